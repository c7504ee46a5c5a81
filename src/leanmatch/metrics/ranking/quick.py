"""Light functions for use while training: one retrieval metric over one table, no intervals."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.table import PairTable
from leanmatch.errors import DataError, UsageError
from leanmatch.metrics.encoding import SideVectors, encode_sides
from leanmatch.metrics.measure import retrieval_values
from leanmatch.metrics.names import parse_retrieval_metric
from leanmatch.metrics.ranking.candidates import decide_symmetric, grades, identify
from leanmatch.metrics.ranking.tasks import make_task
from leanmatch.models import ByRole
from leanmatch.types import EncodeFunction


class RetrievalProbe:
    """A table prepared once, to be asked for one metric many times.

    Args:
        table: all its rows are used, whatever its ``split`` column says.
        metric: any retrieval metric but PSP.
        symmetric: see :class:`leanmatch.metrics.EvaluationOptions`.

    Raises:
        DataError: no matching pair of two different texts.
        UsageError: an unknown metric, or PSP.
    """

    def __init__(
        self, table: PairTable, metric: str = "MRR@10", *, symmetric: bool | Literal["auto"] = "auto"
    ) -> None:
        self.metric = parse_retrieval_metric(metric)
        if self.metric.family == "PSP":
            raise UsageError(
                f"{metric} has no value for each query", remedy="another retrieval metric, or evaluate()"
            )
        self.symmetric = decide_symmetric(table, symmetric).symmetric
        self._known = identify(table, symmetric=self.symmetric)
        rows = np.arange(len(table), dtype=np.int64)
        self._task = make_task(self._known, rows, table.labels, grades(table), symmetric=self.symmetric)
        if self._task.judgements.n_queries == 0:
            raise DataError(
                f"no matching pair of two different texts among {len(table):,} rows",
                path=table.source or None,
                remedy="give rows with label 1",
            )

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
        return encode_sides(encode, self._known.texts, *self._known.roles(symmetric=self.symmetric))

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


def retrieval_score(encode: EncodeFunction | ByRole, table: PairTable, metric: str = "MRR@10") -> float:
    """One retrieval metric over all rows of a table, in 0..1; see :class:`RetrievalProbe`."""
    return RetrievalProbe(table, metric)(encode)


def per_query_scores(
    encode: EncodeFunction | ByRole, table: PairTable, metric: str = "MRR@10"
) -> NDArray[np.float64]:
    """The metric of each query, in the same order for every model, so that scores can be paired."""
    return RetrievalProbe(table, metric).per_query(encode)
