"""How a filtered search is done: exactly on what the filter leaves, or in the index past what it does not.

The filter is evaluated on all rows first, which costs about as much as comparing with a few hundred
vectors, so the number of rows that it leaves is known, not estimated. An unfiltered approximate search
compares with about ``usual`` rows. Where the filter leaves no more than :data:`EXACT_ROWS` or a few times
``usual``, exact search on the subset is as cheap and misses nothing. Where it leaves more, IVF
visits cells until enough passing rows are compared
(:meth:`leanmatch.index.approximate.ApproximateSearch._efforts`). HNSW walks past nodes that it may not return
and loses its way where most are such, or those near the query: its catalogues answer every filter exactly, by
a scan of 8-bit codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.index.approximate import ApproximateSearch
from leanmatch.index.scan import SCORE_DECIMALS, Rows, Selection

EXACT_ROWS = 10_000
EXACT_TIMES_USUAL = 2


@dataclass(frozen=True)
class Plan:
    """How one query was searched: ``path`` is exact, exact-subset, ivf, hnsw or ivf-filtered.

    Attributes:
        rows: rows that may be found: all, or those that pass the filter.
        share: ``rows`` over all rows.
    """

    path: str
    rows: int
    share: float

    @property
    def exact(self) -> bool:
        """Can nothing be missing?"""
        return self.path.startswith("exact")


def choose(
    approximate: ApproximateSearch | None, delta: int, total: int, selection: Selection | None
) -> Plan:
    """The plan for one query.

    Args:
        approximate: the search index, None where everything is searched exactly.
        delta: rows that the index does not cover; they are always scanned.
        total: all rows.
        selection: the rows that pass the filter, None without one.
    """
    rows = total if selection is None else len(selection)
    share = rows / total if total else 1.0
    if approximate is None:
        return Plan("exact" if selection is None else "exact-subset", rows, share)
    if selection is None:
        return Plan(approximate.kind, rows, share)
    few = max(EXACT_ROWS, EXACT_TIMES_USUAL * approximate.usual_rows)
    if rows <= few or approximate.kind == "hnsw":
        return Plan("exact-subset", rows, share)
    return Plan(f"{approximate.kind}-filtered", rows, share)


def covered_selection(selection: Selection | None, covered: Rows, first: int) -> Selection | None:
    """The selection in the index's own rows, without rows that are gone; None where all may be found."""
    if selection is None:
        return None if (covered >= 0).all() else Selection(np.flatnonzero(covered >= 0), len(covered))
    mask = np.zeros(first + 1, dtype=bool)  # the last one answers for -1
    mask[selection.rows[selection.rows < first]] = True
    return Selection(np.flatnonzero(mask[covered]), len(covered))


def merged(parts: Sequence[tuple[NDArray[np.float64], Rows]], width: int) -> tuple[NDArray[np.float64], Rows]:
    """The best ``width`` of several results, ties in row order."""
    scores = np.concatenate([one[0] for one in parts])
    rows = np.concatenate([one[1] for one in parts])
    order = np.lexsort((rows, -np.round(scores, SCORE_DECIMALS)))[:width]
    return scores[order], rows[order]
