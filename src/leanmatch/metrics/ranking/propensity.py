"""Propensity-scored precision: rare items count more, because they are less likely to have been labelled.

Reference: Jain, Prabhu, Varma: Extreme Multi-label Loss Functions for Recommendation, Tagging, Ranking &
Other Missing Label Applications, KDD 2016, equations 1 and 6.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leanmatch.errors import DataError, UsageError
from leanmatch.metrics.ranking.retrieval import Judgements

PROPENSITY_CONSTANTS = {"default": (0.55, 1.5), "amazon": (0.6, 2.6), "wikipedia": (0.5, 0.4)}
"""``(A, B)`` as the extreme classification repository recommends them by kind of data."""

FEWEST_TRAINING_QUERIES = 3
"""The model needs ``log(N) > 1``."""


@dataclass(frozen=True)
class LabelCounts:
    """How often each item was a positive in training.

    Args:
        counts: training positives of each item, by its id where the data has ids of positives, else by its
        text.
            An item that is not there counts 0.
        queries: distinct training queries, the ``N`` of the definition.
    """

    counts: Mapping[str, int]
    queries: int

    def __post_init__(self) -> None:
        if self.queries < FEWEST_TRAINING_QUERIES:
            raise DataError(
                f"{self.queries} training queries are too few for propensities",
                remedy=f"Jain et al. (2016) need log(N) > 1: at least {FEWEST_TRAINING_QUERIES}",
            )

    @classmethod
    def from_pairs(cls, queries: Sequence[str], items: Sequence[str]) -> LabelCounts:
        """Count over the training positives; a pair that comes twice counts once.

        >>> LabelCounts.from_pairs(["q1", "q1", "q2", "q3"], ["a", "a", "a", "b"]).counts
        {'a': 2, 'b': 1}
        """
        distinct = dict.fromkeys(zip(queries, items, strict=True))
        return cls(dict(Counter(item for _, item in distinct)), len({query for query, _ in distinct}))


def inverse_propensities(counts: ArrayLike, queries: int, *, a: float, b: float) -> NDArray[np.float64]:
    """``1 / p_l = 1 + C (N_l + B)^-A`` with ``C = (log N - 1) (B + 1)^A``.

    Args:
        counts: ``N_l``, training positives of each item, shape ``(items,)``.
        queries: ``N``, at least 3.
        a: ``A``, above 0.
        b: ``B``, above 0.

    Raises:
        UsageError: ``A`` or ``B`` out of range.
    """
    if a <= 0 or b <= 0:
        raise UsageError(
            f"propensity constants A={a}, B={b}", remedy="both must be above 0; usual: 0.55 and 1.5"
        )
    scale = (math.log(queries) - 1.0) * (b + 1.0) ** a
    return np.asarray(1.0 + scale * (np.asarray(counts, np.float64) + b) ** -a)


def propensity_scored(
    ranking: NDArray[np.int64], judgements: Judgements, inverse: NDArray[np.float64], k: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numerator and denominator of PSP@k for each query; the metric is the ratio of their sums.

    ``numerator_q = 1/k sum_(l in first k, relevant) 1/p_l``; ``denominator_q`` is the same for the best
    ranking. Following the published definition, sums over queries are divided, not each query's own values.

    Args:
        ranking: shape ``(queries, depth)``, as in :func:`leanmatch.metrics.ranking.retrieval.per_query`.
        judgements: what is relevant.
        inverse: ``1 / p_l`` by item number (those that are no candidates too), shape ``(items,)``.
        k: the cut-off.

    Returns:
        two arrays of shape ``(queries,)``.
    """
    first = ranking[:, :k]
    hits = judgements.hits(first)
    gained = np.where(hits, inverse[np.where(hits, first, 0)], 0.0).sum(axis=1) / k
    weights = inverse[judgements.items]
    order = np.lexsort((-weights, judgements.queries))
    ranks = np.arange(len(order)) - judgements.starts[judgements.queries[order]]
    best = np.where(ranks < k, weights[order], 0.0)
    attainable = np.bincount(judgements.queries[order], weights=best, minlength=judgements.n_queries) / k
    return gained, attainable
