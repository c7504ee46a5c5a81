"""Exact nearest neighbours by blocked matrix products, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import LeanmatchError
from leanmatch.types import Vectors

BLOCK_BYTES = 32 * 2**20
"""Scores that are held at once, about; one query's row is always held whole."""

MAX_BLOCK_ROWS = 256


class Neighbours(NamedTuple):
    """The best candidates of each query, best first.

    ``indices``: shape ``(queries, k)``, int64, -1 where a query has fewer than ``k`` candidates.
    ``scores``: same shape, float32, ``-inf`` at those places.
    """

    indices: NDArray[np.int64]
    scores: NDArray[np.float32]


class Exclusions(NamedTuple):
    """Candidates that some queries must not find: pairs of query and candidate, int64, same shape."""

    queries: NDArray[np.int64]
    candidates: NDArray[np.int64]


def top_k(
    queries: Vectors,
    candidates: Vectors,
    k: int,
    *,
    exclude: Exclusions | None = None,
    change: Callable[[NDArray[np.float32], int], None] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Neighbours:
    """The ``k`` candidates with the largest inner product of each query.

    Equal scores are ordered by candidate index, so that the answer is the same in every run and for every
    block size, as far as the matrix product itself is. Time ``O(queries * candidates * dimension)``.

    Args:
        queries: shape ``(queries, dimension)``, float32.
        candidates: shape ``(candidates, dimension)``, float32.
        k: how many, at least 1; fewer come back where there are fewer candidates.
        exclude: pairs that must not be found, a query's own text for one.
        change: called with the scores of some queries, ``(queries, candidates)``, and the number of the first
            of them; it may change the scores.
        block_bytes: how many bytes of scores are held at once.

    Raises:
        LeanmatchError: ``k`` below 1, or vectors whose dimensions differ.

    >>> eye = np.eye(3, dtype=np.float32)
    >>> top_k(eye[:1], eye, 2, exclude=Exclusions(np.array([0]), np.array([0]))).indices
    array([[1, 2]])
    """
    if k < 1:
        raise LeanmatchError(f"k is {k}", remedy="ask for at least one neighbour")
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise LeanmatchError(
            f"query vectors have shape {queries.shape}, candidate vectors {candidates.shape}",
            remedy="both must have two axes and the same dimension",
        )
    width = min(k, len(candidates))
    indices = np.full((len(queries), width), -1, np.int64)
    scores = np.full((len(queries), width), -np.inf, np.float32)
    if not width:
        return Neighbours(indices, scores)
    excluded_queries, excluded_candidates = _sorted(exclude)
    step = max(1, min(MAX_BLOCK_ROWS, block_bytes // (4 * len(candidates))))
    transposed = candidates.T
    for start in range(0, len(queries), step):
        block = queries[start : start + step] @ transposed
        if change is not None:
            change(block, start)
        first, last = np.searchsorted(excluded_queries, [start, start + len(block)])
        block[excluded_queries[first:last] - start, excluded_candidates[first:last]] = -np.inf
        _take_best(block, width, indices[start : start + step], scores[start : start + step])
    return Neighbours(indices, scores)


def _sorted(exclude: Exclusions | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if exclude is None:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    order = np.argsort(exclude.queries, kind="stable")
    return exclude.queries[order], exclude.candidates[order]


def _take_best(
    block: NDArray[np.float32], k: int, indices: NDArray[np.int64], scores: NDArray[np.float32]
) -> None:
    """Write each row's best ``k`` to ``indices`` and ``scores``; ties with the k-th are all looked at."""
    first_kept = block.shape[1] - k
    threshold = np.partition(block, first_kept, axis=1)[:, first_kept]
    rows, columns = np.nonzero((block >= threshold[:, None]) & (block > -np.inf))
    values = block[rows, columns]
    order = np.lexsort((-values, rows))  # stable: columns stay in rising order
    rows, columns, values = rows[order], columns[order], values[order]
    starts = np.searchsorted(rows, np.arange(len(block)))
    ranks = np.arange(len(rows)) - starts[rows]
    kept = ranks < k
    indices[rows[kept], ranks[kept]] = columns[kept]
    scores[rows[kept], ranks[kept]] = values[kept]
