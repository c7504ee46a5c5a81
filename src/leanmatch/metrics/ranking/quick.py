"""Light functions for use while training: one retrieval metric over one table, no intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.table import PairTable
from leanmatch.errors import DataError, UsageError
from leanmatch.metrics.encoding import SideVectors, encode_sides
from leanmatch.metrics.measure import retrieval_values
from leanmatch.metrics.names import parse_retrieval_metric
from leanmatch.metrics.ranking.candidates import decide_symmetric, grades, identify
from leanmatch.metrics.ranking.retrieval import Judgements
from leanmatch.metrics.ranking.tasks import RetrievalTask, make_task
from leanmatch.models import ByRole
from leanmatch.types import EncodeFunction


class RetrievalProbe:
    """A table prepared once, to be asked for one metric many times.

    Args:
        table: all its rows are used, whatever its ``split`` column says.
        metric: any retrieval metric but PSP.
        symmetric: see :class:`leanmatch.metrics.EvaluationOptions`.
        distractors: further candidates, relevant to no query. Texts that the table has are left out.

    Raises:
        DataError: no matching pair of two different texts.
        UsageError: an unknown metric, or PSP.
    """

    def __init__(
        self,
        table: PairTable,
        metric: str = "MRR@10",
        *,
        symmetric: bool | Literal["auto"] = "auto",
        distractors: Sequence[str] = (),
    ) -> None:
        self.metric = parse_retrieval_metric(metric)
        if self.metric.family == "PSP":
            raise UsageError(
                f"{metric} has no value for each query", remedy="another retrieval metric, or evaluate()"
            )
        self.symmetric = decide_symmetric(table, symmetric).symmetric
        self._known = identify(table, symmetric=self.symmetric)
        own = set(self._known.texts)
        further = [text for text in dict.fromkeys(distractors) if text not in own]
        self._texts = [*self._known.texts, *further]
        self._further = np.arange(len(own), len(self._texts))
        rows = np.arange(len(table), dtype=np.int64)
        task = make_task(self._known, rows, table.labels, grades(table), symmetric=self.symmetric)
        self._task = _with_candidates(task, self._further)
        if self._task.judgements.n_queries == 0:
            raise DataError(
                f"no matching pair of two different texts among {len(table):,} rows",
                path=table.source or None,
                remedy="give rows with label 1",
            )

    @property
    def candidates(self) -> int:
        """How many texts are searched."""
        return len(self._task.candidate_texts)

    @property
    def own(self) -> int:
        """How many texts are the table's; they come first in :meth:`vectors`, before the distractors."""
        return len(self._texts) - len(self._further)

    def per_query(self, encode: EncodeFunction | ByRole) -> NDArray[np.float64]:
        """The metric of each query, shape ``(queries,)``, in the same order for every model.

        Args:
            encode: an encoder, whose prompts by role are used, or a function from texts to vectors.
        """
        return self.values(self.vectors(encode))

    def queries_of(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which queries are the anchors of some of the table's rows, shape ``(queries,)``."""
        texts = self._known.text_of[self._known.queries[rows]]
        return np.isin(self._task.query_texts, texts)

    def vectors(self, encode: EncodeFunction | ByRole) -> SideVectors:
        """The vectors of all texts that take part, as queries and as documents."""
        queries, documents = self._known.roles(symmetric=self.symmetric)
        return encode_sides(encode, self._texts, queries, np.concatenate([documents, self._further]))

    def values(self, vectors: SideVectors) -> NDArray[np.float64]:
        """:meth:`per_query` of vectors that :meth:`vectors` gave, or of others for the same texts."""
        return retrieval_values(self._task, vectors, [self.metric])[0][:, 0]

    def neighbours(self, vectors: SideVectors, k: int) -> NDArray[np.int64]:
        """For each query the numbers of its ``k`` best candidates, shape ``(queries, k)``; -1 where there are
        fewer."""
        found: NDArray[np.int64] = self._task.search(vectors, k).indices
        return found

    def __call__(self, encode: EncodeFunction | ByRole) -> float:
        """The mean over queries."""
        return float(self.per_query(encode).mean())


def _with_candidates(task: RetrievalTask, texts: NDArray[np.int64]) -> RetrievalTask:
    """The task with further candidates behind its own, which are relevant to no query."""
    judged, own = task.judgements, len(task.candidate_texts)
    items = judged.items + np.where(judged.items >= own, len(texts), 0)  # those that are no candidates
    nobody = np.full(len(texts), -1, np.int64)
    return replace(
        task,
        candidate_texts=np.concatenate([task.candidate_texts, texts]),
        judgements=Judgements(judged.n_queries, judged.queries, items, judged.grades),
        items=np.concatenate([task.items[:own], nobody, task.items[own:]]),
    )


def retrieval_score(encode: EncodeFunction | ByRole, table: PairTable, metric: str = "MRR@10") -> float:
    """One retrieval metric over all rows of a table, in 0..1; see :class:`RetrievalProbe`."""
    return RetrievalProbe(table, metric)(encode)


def per_query_scores(
    encode: EncodeFunction | ByRole, table: PairTable, metric: str = "MRR@10"
) -> NDArray[np.float64]:
    """The metric of each query, in the same order for every model, so that scores can be paired."""
    return RetrievalProbe(table, metric).per_query(encode)
