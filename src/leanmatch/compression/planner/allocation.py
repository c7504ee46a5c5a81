"""Chooses one candidate per layer with the least total harm within budgets: a multiple-choice knapsack.

``minimize sum_g loss[g][c_g]  subject to  sum_g cost_j[g][c_g] <= limit_j`` for every budget ``j``: bytes,
multiply-adds, seconds, in any mixture. Solved to the optimum as an integer program (HiGHS, by scipy).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError

Costs: TypeAlias = Sequence[Sequence[float]]
"""For each group the cost of each candidate, from 0 on."""
MIP_GAP = 1e-5
"""Relative distance from the optimum at which the solver may stop."""
TOLERANCE = 1e-6
"""Of the solver, relative to a limit: a choice that exceeds it by no more is solved again with less room."""


class NoChoiceError(UsageError):
    """No choice of candidates meets the budgets."""


def allocate(losses: Costs, costs: Mapping[str, Costs], limits: Mapping[str, float]) -> list[int]:
    """Choose one candidate for each group.

    Args:
        losses: of each group's candidates, finite.
        costs: by budget.
        limits: by budget, the most that the chosen costs may add up to; other budgets are not looked at.

    Returns:
        the number of the chosen candidate of each group.

    Raises:
        NoChoiceError: no choice meets the limits.

    >>> allocate([[3.0, 1.0], [2.0, 0.5]], {"bytes": [[1, 2], [1, 4]]}, {"bytes": 5})
    [1, 0]
    """
    for shrunk in (0.0, 2 * TOLERANCE, 0.001):
        picks = _solve(losses, [(costs[name], limit * (1 - shrunk)) for name, limit in limits.items()])
        if picks is None:
            break
        if all(total(costs[name], picks) <= limit for name, limit in limits.items()):
            return picks
    raise NoChoiceError(f"no choice of candidates meets {dict(limits)}")


def least(costs: Mapping[str, Costs], name: str, limits: Mapping[str, float]) -> float | None:
    """The least that one cost can be within the limits on all others; None where those cannot be met."""
    others = {other: limit for other, limit in limits.items() if other != name}
    try:
        return total(costs[name], allocate(costs[name], costs, others))
    except NoChoiceError:
        return None


def total(costs: Costs, picks: Sequence[int]) -> float:
    """What the chosen candidates cost together."""
    return sum(group[pick] for group, pick in zip(costs, picks, strict=True))


def _solve(losses: Costs, limited: Sequence[tuple[Costs, float]]) -> list[int] | None:
    from scipy.optimize import Bounds, LinearConstraint, milp

    if not losses:
        return []
    sizes = [len(group) for group in losses]
    ends = np.cumsum(sizes)
    one_each = np.zeros((len(sizes), int(ends[-1])))
    for row, (end, size) in enumerate(zip(ends, sizes, strict=True)):
        one_each[row, end - size : end] = 1
    harm = _flat(losses)
    constraints = [LinearConstraint(one_each, 1, 1)]
    possible = np.ones(len(harm))
    for cost, limit in limited:
        costs = _flat(cost)
        possible[costs > limit] = 0
        if limit > 0:
            shares = np.where(costs > limit, 0, costs) / limit
            constraints.append(LinearConstraint(shares[None], -np.inf, 1))
    result = milp(
        harm / max(float(np.abs(harm).max()), 1e-30),
        constraints=constraints,
        bounds=Bounds(0, possible),
        integrality=np.ones(len(harm)),
        options={"mip_rel_gap": MIP_GAP},
    )
    if result.x is None:
        return None
    return [int(np.argmax(result.x[end - size : end])) for end, size in zip(ends, sizes, strict=True)]


def _flat(costs: Costs) -> NDArray[np.float64]:
    return np.array([value for group in costs for value in group], dtype=np.float64)
