"""A retrieval task of MTEB whose data is given, so that nothing is downloaded."""

from __future__ import annotations

from typing import Any

from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata


def made_up_task(
    queries: dict[str, str], corpus: dict[str, str], relevant: dict[str, dict[str, int]]
) -> AbsTaskRetrieval:
    """A task of texts by their identifiers; ``relevant`` has the grades of documents by query."""

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
            documents = [{"id": key, "title": "", "text": text} for key, text in corpus.items()]
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": Dataset.from_list(documents),
                        "queries": Dataset.from_list([{"id": k, "text": v} for k, v in queries.items()]),
                        "relevant_docs": relevant,
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    return MadeUp()
