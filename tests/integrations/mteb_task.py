"""A retrieval task of MTEB whose data is given, so that nothing is downloaded."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("mteb", reason="mteb is not installed")

from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata


def made_up_task(queries: list[str], corpus: list[str]) -> AbsTaskRetrieval:
    """A task in which document ``i`` and the one 20 further answer query ``i``."""

    class MadeUp(AbsTaskRetrieval):
        metadata = TaskMetadata(
            name="MadeUpRetrieval",
            description="Sentences of common words.",
            reference=None,
            dataset={"path": "local/made-up", "revision": "1"},
            type="Retrieval",
            category="t2t",
            modalities=["text"],
            eval_splits=["test"],
            eval_langs=["eng-Latn"],
            main_score="ndcg_at_10",
            date=("2026-01-01", "2026-01-01"),
            domains=["Written"],
            task_subtypes=[],
            license="cc0-1.0",
            annotations_creators="derived",
            dialect=[],
            sample_creation="created",
            bibtex_citation="",
        )

        def load_data(self, **_: Any) -> None:
            documents = [{"id": f"d{row}", "title": "", "text": text} for row, text in enumerate(corpus)]
            asked = [{"id": f"q{row}", "text": text} for row, text in enumerate(queries)]
            relevant = {f"q{row}": {f"d{row}": 1, f"d{row + 20}": 1} for row in range(len(queries))}
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": Dataset.from_list(documents),
                        "queries": Dataset.from_list(asked),
                        "relevant_docs": relevant,
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    return MadeUp()
