"""Per-query retrieval metrics, computed by ``ir_measures`` (trec_eval underneath).

Reference: MacAvaney, Macdonald, Ounis: Streamlining Evaluation with ir-measures, ECIR 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import MissingExtraError, UsageError
from leanmatch.metrics.names import RetrievalMetric


class Judgements:
    """What is relevant to which query.

    Args:
        n_queries: the number of queries; each should have something relevant.
        queries: for each judgement its query, int64, shape ``(judgements,)``.
        items: for each judgement the relevant candidate; one that is no candidate (it can never be found) has
            a number of its own beyond the last candidate.
        grades: how relevant, whole numbers from 1; 1 everywhere where left out. Only nDCG looks at them.
    """

    def __init__(
        self,
        n_queries: int,
        queries: NDArray[np.int64],
        items: NDArray[np.int64],
        grades: NDArray[np.int64] | None = None,
    ) -> None:
        order = np.argsort(queries, kind="stable")
        self.n_queries, self.queries, self.items = n_queries, queries[order], items[order]
        self.grades = np.ones(len(order), np.int64) if grades is None else grades[order]

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each query's judgements start, shape ``(queries + 1,)``."""
        return np.searchsorted(self.queries, np.arange(self.n_queries + 1))

    def of(self, query: int) -> NDArray[np.int64]:
        """The relevant items of one query."""
        return self.items[self.starts[query] : self.starts[query + 1]]

    def hits(self, ranking: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which places of a ranking, shape ``(queries, depth)``, hold a relevant item; same shape."""
        width = int(max(self.items.max(initial=0), ranking.max(initial=0))) + 1
        rows = np.arange(len(ranking))[:, None]
        relevant = np.isin(rows * width + ranking, self.queries * width + self.items)
        return relevant & (ranking >= 0)

    @cached_property
    def qrels(self) -> dict[str, dict[str, int]]:
        """The form that ``ir_measures`` takes."""
        qrels: dict[str, dict[str, int]] = {}
        triples = zip(self.queries.tolist(), self.items.tolist(), self.grades.tolist(), strict=True)
        for query, item, grade in triples:
            judged = qrels.setdefault(str(query), {})
            judged[str(item)] = max(grade, judged.get(str(item), 0))
        return qrels


def per_query(
    ranking: NDArray[np.int64], judgements: Judgements, metrics: Sequence[RetrievalMetric]
) -> NDArray[np.float64]:
    """Values of each metric for each query, in 0..1; shape ``(queries, metrics)``.

    ``nDCG@k``: ``sum_j g_j / log2(j + 1)`` over ranks ``j <= k``, by that of the best ranking; ``MRR@k``:
    ``1 / j`` of the first relevant, 0 where ``j > k``; ``P@k``: relevant among the first k, by k (also where
    fewer than k were ranked); ``Recall@k``: relevant among the first k, by all relevant.

    Args:
        ranking: candidate numbers, best first, each at most once a row, shape ``(queries, depth)``; -1 pads.
            ``depth`` should be the largest cut-off, or all candidates.
        judgements: what is relevant.
        metrics: any but PSP, which :mod:`leanmatch.metrics.ranking.propensity` computes.

    Raises:
        UsageError: PSP is asked for, or no such family.

    What stands after a query's last relevant item changes none of these values; it is not handed on, which
    halves the time. ``MRR@k`` is trec_eval's uncut reciprocal rank, 0 where it is below ``1 / k``.
    """
    if judgements.n_queries == 0 or not metrics:
        return np.zeros((judgements.n_queries, len(metrics)))
    try:
        import ir_measures
    except ModuleNotFoundError as error:
        raise MissingExtraError("ir-measures", "data", "a ranking metric") from error
    measures = [_measure(metric) for metric in metrics]
    columns: dict[Any, list[int]] = {}
    for column, measure in enumerate(measures):
        columns.setdefault(measure, []).append(column)
    values = np.zeros((judgements.n_queries, len(metrics)))
    run = _truncated_run(ranking, judgements)
    for result in ir_measures.iter_calc(list(columns), judgements.qrels, run):
        values[int(result.query_id), columns[result.measure]] = result.value
    for column, metric in enumerate(metrics):
        if metric.family == "MRR":
            values[values[:, column] < 1 / (metric.k + 0.5), column] = 0.0
    return values


def _measure(metric: RetrievalMetric) -> Any:
    from ir_measures import RR, P, R, nDCG

    table: dict[str, Callable[[int], Any]] = {
        "nDCG": lambda k: nDCG @ k,
        "MRR": lambda k: RR,
        "P": lambda k: P @ k,
        "Recall": lambda k: R @ k,
    }
    if metric.family not in table:
        raise UsageError(
            f"{metric} has no value for each query",
            remedy=f"one of {', '.join(f'{name}@k' for name in table)}",
        )
    return table[metric.family](metric.k)


def _truncated_run(ranking: NDArray[np.int64], judgements: Judgements) -> dict[str, dict[str, float]]:
    """Rankings up to the last relevant item, at least one item a query, with falling scores (no ties)."""
    depth = ranking.shape[1]
    hits = judgements.hits(ranking)
    last = np.where(hits.any(axis=1), depth - np.argmax(hits[:, ::-1], axis=1), 1)
    falling = [float(depth - j) for j in range(depth)]
    lengths = last.tolist()
    return {
        str(query): {str(item): falling[j] for j, item in enumerate(row[: lengths[query]]) if item >= 0}
        for query, row in enumerate(ranking.tolist())
    }
