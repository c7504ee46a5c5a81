"""The tables that research scripts train and test on; the repository may not contain their rows.

Each is a gzipped TSV with a header row, UTF-8, without tabs in its fields. You can make them from the public
data sets; other tables with the same columns work too and give other numbers.
"""

from __future__ import annotations

from pathlib import Path

TABLES = {
    "question_pairs": "domain (askubuntu, quora), split (train, test), label, anchor, positive",
    "product_titles": "category (cameras, computers), split (train, test), label, anchor, positive",
    "nlu_tasks": "task (sst2, cola, rte), split (train, test), text, text_pair, label",
    "clinc150": "domain, split, intent, intent_text, utterance",
    "medical_questions": "domain (medical), split (test), label, anchor, positive",
    "next_item_items": "category, item_id, title",
    "next_item_pairs": "category, period (train, valid, test), left_id, right_id",
}


def private_table(folder: Path, name: str) -> Path:
    """``folder/NAME.tsv.gz``, or an exit that says what the file must hold."""
    path = folder / f"{name}.tsv.gz"
    if not path.is_file():
        raise SystemExit(
            f"{path} is not there. This script needs data that the repository may not contain.\n"
            f"Remedy: put a gzipped TSV with these columns there: {TABLES[name]}"
        )
    return path
