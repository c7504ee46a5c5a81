"""What could be had, before any training: the frontier of time, bytes and expected quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from leanmatch.compression.planner.budget import Budget
from leanmatch.compression.planner.choice import FACTORS_LEFT, SHOT_LEFT, Choices, Plan
from leanmatch.compression.planner.quality import Estimate, Quality
from leanmatch.compression.planner.states import States
from leanmatch.errors import UsageError

SPEEDS = (1.15, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0)
"""Times as fast as int8, or times fewer multiply-adds without a clock, that the menu looks at."""
SHARES = (None, 0.5, 0.4)
"""Bytes, as shares of those of int8; None leaves tables in int8."""
MOST_ROWS = 12
LEFT_LOW, LEFT_HIGH = 0.6, 1.6
"""How far what training leaves of the harm may be off, as factors: runs that were seen lie within."""


@dataclass(frozen=True)
class Row:
    """One plan of the menu.

    Attributes:
        number: from 1 on; what ``--pick`` takes.
        plan: the plan.
        texts_a_second: on one core; None without a clock.
        expected: share of the metric that it is expected to keep after training, and a rough interval.
        worst: the same of the slice that loses most, where the menu's one measured plan shows that it loses
            more than all queries together.
    """

    number: int
    plan: Plan
    texts_a_second: float | None
    expected: Estimate
    worst: Estimate | None = None

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        plan = self.plan
        return {
            "number": self.number,
            **plan.to_json(),
            "texts_a_second": self.texts_a_second,
            "expected": self.expected._asdict(),
            "worst": None if self.worst is None else self.worst._asdict(),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Row:
        """What :meth:`to_json` gave."""
        return cls(
            values["number"],
            Plan.from_json(values),
            values["texts_a_second"],
            Estimate(**values["expected"]),
            None if values["worst"] is None else Estimate(**values["worst"]),
        )


@dataclass(frozen=True)
class Menu:
    """All rows, the most careful first.

    Attributes:
        rows: the plans.
        int8_bytes: of the same model in int8.
        int8_texts_a_second: on one core; None without a clock.
        shot: the quality of one plan's first factors, by which the others were placed.
        worst_slice: the slice of :attr:`Row.worst`.
    """

    rows: Sequence[Row]
    int8_bytes: int
    int8_texts_a_second: float | None
    shot: Quality
    worst_slice: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "rows": [row.to_json() for row in self.rows],
            "int8": {"bytes": self.int8_bytes, "texts_a_second": self.int8_texts_a_second},
            "judged_by": self.shot.to_json(),
            "worst_slice": self.worst_slice,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Menu:
        """What :meth:`to_json` gave."""
        rows = [Row.from_json(row) for row in values["rows"]]
        int8 = values["int8"]
        shot = Quality(**values["judged_by"])
        return cls(rows, int8["bytes"], int8["texts_a_second"], shot, values["worst_slice"])

    def row(self, number: int) -> Row:
        """A row by its number.

        Raises:
            UsageError: there is none.
        """
        if not 1 <= number <= len(self.rows):
            raise UsageError(f"the menu has no row {number}", remedy=f"1 to {len(self.rows)}")
        return self.rows[number - 1]


def make_menu(choices: Choices, budget: Budget, states: States) -> Menu:
    """The plans within a budget that no other one beats in bytes, time and expected harm at once.

    Expected quality: the first factors of the middle plan are made and judged. What they lose, over the harm
    that was expected of them, is what a unit of harm costs; the same price holds for all rows.

    Raises:
        UsageError: a budget that no choice of candidates meets.
    """
    plans = frontier(choices, budget)
    shot_plan = _middle([plan for plan in plans if not plan.dropped] or [_int8_plan(choices)])
    shot = states.one_shot(0, shot_plan).quality
    harm = shot_plan.harm * SHOT_LEFT / FACTORS_LEFT
    price = _price(shot.estimate, harm)
    worst = shot.worst_slice
    slice_price = None if worst is None else _price(Estimate(*(worst[key] for key in Estimate._fields)), harm)
    dense = None if choices.clock is None or not choices.timed else 1 / choices.int8_seconds
    rows = []
    for number, expected_plan in enumerate(plans, 1):
        plan = expected_plan
        if choices.measure is not None:
            plan = replace(plan, faster=choices.measure(plan))
        texts = None if dense is None or plan.faster is None else dense * plan.faster
        of_slice = None if slice_price is None else _expected(slice_price, plan.harm)
        rows.append(Row(number, plan, texts, _expected(price, plan.harm), of_slice))
    whole = choices.int8_bytes + choices.other_bytes[0]
    return Menu(rows, whole, dense, shot, None if worst is None else worst["slice"])


def frontier(choices: Choices, budget: Budget) -> list[Plan]:
    """At most :data:`MOST_ROWS` plans, the least harmful first."""
    whole = choices.int8_bytes + choices.other_bytes[0]
    plans: dict[str, Plan] = {}
    problem: UsageError | None = None
    for speed in SPEEDS:
        for share in SHARES:
            size = None if share is None else int(share * whole) + budget.beside
            wanted = _tighter(budget, speed, size, choices.timed)
            try:
                plan = choices.within(wanted, measure=False)
            except UsageError as error:
                problem = error
                continue
            plans.setdefault(plan.key, plan)
    if not plans:
        assert problem is not None
        choices.within(budget, measure=False)  # the user's own limits, if they are the problem
        raise problem
    best = [plan for plan in plans.values() if not any(_beats(other, plan) for other in plans.values())]
    best.sort(key=lambda plan: plan.harm)
    if len(best) <= MOST_ROWS:
        return best
    return [best[round(at * (len(best) - 1) / (MOST_ROWS - 1))] for at in range(MOST_ROWS)]


def _tighter(budget: Budget, speed: float, size: int | None, timed: bool) -> Budget:
    """The budget with a row's limits, where those are tighter."""
    name = "faster" if timed else "macs"
    asked = getattr(budget, name)
    limits: dict[str, Any] = {name: max(speed, asked or 0.0)}
    if size is not None or budget.size is not None:
        limits["size"] = min(value for value in (size, budget.size) if value is not None)
    return replace(budget, **limits)


def _beats(other: Plan, plan: Plan) -> bool:
    """Whether another plan is at least as good in everything and better in something."""
    mine = (plan.bytes, plan.harm, -(plan.faster or 0.0), plan.macs if plan.faster is None else 0)
    theirs = (other.bytes, other.harm, -(other.faster or 0.0), other.macs if other.faster is None else 0)
    return theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True))


def _middle(plans: Sequence[Plan]) -> Plan:
    return sorted(plans, key=lambda plan: plan.harm)[len(plans) // 2]


def _int8_plan(choices: Choices) -> Plan:
    return choices.within(Budget(size=choices.int8_bytes + choices.other_bytes[0]), dropped=0, measure=False)


def _expected(price: Estimate, harm: float) -> Estimate:
    """What is left of the metric after so much harm."""
    return Estimate(1 - price.kept * harm, 1 - price.high * LEFT_HIGH * harm, 1 - price.low * LEFT_LOW * harm)


def _price(estimate: Estimate, harm: float) -> Estimate:
    """What a unit of harm costs of the metric, with the interval that the estimate gives; at least 0.

    >>> _price(Estimate(0.9, 0.88, 0.94), 0.1)
    Estimate(kept=1.0, low=0.6, high=1.2)
    """
    harm = max(harm, 1e-9)
    lost = [max(0.0, 1 - share) / harm for share in (estimate.kept, estimate.high, estimate.low)]
    return Estimate(*(round(value, 9) for value in lost))
