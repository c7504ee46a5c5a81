"""Chooses one candidate per layer, with the least total harm within a budget: a multiple-choice knapsack.

``minimize sum_g loss[g][c_g]  subject to  sum_g cost[g][c_g] <= budget``. Costs are rounded up to a grid of
the budget, so that no answer exceeds it. Where they lie on the grid the answer is optimal (dynamic
programming; Dudzinski and Walukiewicz, 1987).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError

GRID = 4000
"""Cells of the budget; rounding up costs at most (layers / GRID) of it."""


def allocate(
    losses: Sequence[Sequence[float]], costs: Sequence[Sequence[int]], budget: int, *, grid: int = GRID
) -> list[int]:
    """Choose one candidate for each group.

    Args:
        losses: of each group's candidates, finite.
        costs: of each group's candidates, from 0 on.
        budget: most that the chosen costs may add up to.
        grid: cells of the budget.

    Returns:
        the number of the chosen candidate of each group.

    Raises:
        UsageError: even the cheapest candidates exceed the budget; the message says what they cost.

    >>> allocate([[3.0, 1.0], [2.0, 0.5]], [[1, 2], [1, 4]], 5)
    [1, 0]
    """
    cheapest = sum(min(group) for group in costs)
    if cheapest > budget:
        raise UsageError(f"the budget of {budget:,} is below the least that is possible, {cheapest:,}")
    cells = min(grid, budget)
    best: NDArray[np.float64] = np.zeros(
        cells + 1
    )  # best[w]: least loss of the groups so far at a cost of w cells
    chosen: list[NDArray[np.int16]] = []
    for loss, cost in zip(losses, costs, strict=True):
        widths = [_cells(candidate, cells, budget) for candidate in cost]
        table = np.full((len(loss), cells + 1), np.inf)
        for number, (harm, width) in enumerate(zip(loss, widths, strict=True)):
            if width <= cells:
                table[number, width:] = best[: cells + 1 - width] + harm
        chosen.append(table.argmin(0).astype(np.int16))
        best = table.min(0)
    if not np.isfinite(best[cells]):  # the rounding up took what was left: the cheapest fit exactly
        return [int(np.argmin(group)) for group in costs]
    left, answer = cells, []
    for pick, cost in zip(reversed(chosen), reversed(costs), strict=True):
        number = int(pick[left])
        answer.append(number)
        left -= _cells(cost[number], cells, budget)
    return answer[::-1]


def _cells(cost: int, cells: int, budget: int) -> int:
    """A cost in cells, rounded up; with no budget at all only what is free fits."""
    if budget == 0:
        return 0 if cost == 0 else cells + 1
    return -(-int(cost) * cells // budget)
