"""The best rows by a weighted sum of cosine and lexical score; a bound proves that none is missing.

Both rankings are read to the same depth, and every row of either gets both scores. A row of neither has at
most the last cosine and the last lexical score that were read, so its sum is at most

    (1 - weight) cosine_depth + weight lexical_depth.

Where that is below the ``width``-th best sum, nothing is missing; else the depth grows (Fagin, Lotem, Naor:
Optimal Aggregation Algorithms for Middleware, 2001). Behind an approximate index the cosines are those that
it finds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.index.search.scan import Rows

SUM_DECIMALS = 6
"""Sums that agree to this many decimals are a tie: lexical scores are float32."""

_LEAST_DEPTH = 100

Ranked = tuple[NDArray[np.float64], Rows]


@dataclass(frozen=True)
class Fused:
    """Rows, best first, with the sum that they are ranked by and its two parts."""

    sums: NDArray[np.float64]
    rows: Rows
    cosines: NDArray[np.float64]
    lexical: NDArray[np.float64]
    nearest: tuple[float, int] | None
    """The best cosine, and its row."""


def fuse(
    near: Callable[[int], Ranked],
    cosines_of: Callable[[Rows], NDArray[np.float64]],
    lexical: NDArray[np.float32],
    allowed: Rows | None,
    weight: float,
    width: int,
    *,
    proven: bool = True,
) -> Fused:
    """The best ``width`` rows.

    Args:
        near: the best rows by cosine to a depth; fewer than asked for where there are no more.
        cosines_of: the cosines of rows.
        lexical: the lexical score of every row.
        allowed: the rows that may be found; None for all.
        weight: of the lexical score, in 0..1.
        width: how many.
        proven: read on until nothing can be missing; without, one reading of both rankings decides.
    """
    total = len(lexical) if allowed is None else len(allowed)
    depth = min(total, max(_LEAST_DEPTH, 2 * width))
    while True:
        cosines, rows = near(depth)
        nearest = (float(cosines[0]), int(rows[0])) if len(rows) else None
        named, least = _best_lexical(lexical, allowed, depth)
        further = np.setdiff1d(named, rows)
        cosines = np.concatenate([cosines, cosines_of(further)])
        rows = np.concatenate([rows, further])
        parts = lexical[rows].astype(np.float64)
        sums = (1 - weight) * cosines + weight * parts
        order = np.lexsort((rows, -np.round(sums, SUM_DECIMALS)))[:width]
        if depth >= total or not len(order) or not proven:
            break
        bound = (1 - weight) * cosines[depth - 1] + weight * least if len(cosines) >= depth else -np.inf
        if len(order) == min(width, total) and sums[order[-1]] > bound + 10.0**-SUM_DECIMALS:
            break
        depth = min(total, 4 * depth)
    return Fused(sums[order], rows[order], cosines[order], parts[order], nearest)


def _best_lexical(lexical: NDArray[np.float32], allowed: Rows | None, depth: int) -> tuple[Rows, float]:
    """The rows of the best lexical scores to a depth, and the most that any other has."""
    scores = lexical if allowed is None else lexical[allowed]
    places = np.flatnonzero(scores > 0)
    least = 0.0
    if len(places) > depth:
        chosen = np.argpartition(-scores[places], depth - 1)[:depth]
        places = places[chosen]
        least = float(scores[places[-1]])
    return (places if allowed is None else allowed[places]), least
