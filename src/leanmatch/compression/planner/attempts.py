"""States that the planner has evaluated, and which of them becomes the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leanmatch.compression.planner.choice import Plan
from leanmatch.compression.planner.quality import Quality


@dataclass(frozen=True)
class Attempt:
    """One evaluated state: the factors as they were first computed (one shot), or after training.

    Attributes:
        rung: its place on the ladder; the leanest is 0.
        plan: what it was made with.
        quality: on the held-out pairs.
        errors: relative squared error of each layer to the dense weights.
        training: steps and loss; 0 steps for one shot.
    """

    rung: int
    plan: Plan
    quality: Quality
    errors: dict[str, float]
    training: dict[str, Any]

    @property
    def trained(self) -> bool:
        """Whether its factors took any training step."""
        return bool(self.training["steps"])

    def meets(self, keep: float | None) -> bool:
        """Whether its share of the dense model's metric is estimated at what was asked for, and no slice is
        shown to keep less."""
        return keep is None or self.quality.reaches >= keep

    @property
    def standing(self) -> float:
        """By what attempts are compared: the share kept by ranks, unless a slice is shown to keep less."""
        return min(self.quality.kept, self.quality.ceiling)


def best_attempt(attempts: Sequence[Attempt], keep: float | None, *, leanest: bool) -> Attempt:
    """The result: never worse than any other state that was evaluated.

    Args:
        attempts: all of one run; at least one.
        keep: share of the metric that was asked for, if any.
        leanest: of those that meet ``keep``, take the leanest rung (its best state); else the best state.

    Returns:
        Of the attempts that meet ``keep``, or of all where none does, the best by its worst slice
        (:attr:`Attempt.standing`); of equals the trained one.
    """
    meeting = [attempt for attempt in attempts if attempt.meets(keep)]
    if leanest and meeting:
        first = min(attempt.rung for attempt in meeting)
        meeting = [attempt for attempt in meeting if attempt.rung == first]
    return max(meeting or attempts, key=lambda a: (a.standing, a.trained, -a.rung))


def rungs_to_train(first: int, safe: int | None, last: int, most: int) -> list[int]:
    """Which rungs to train, the leanest first.

    Args:
        first: the leanest that training may lift to what was asked for.
        safe: the leanest that needs no training, if one was seen.
        last: the roomiest.
        most: attempts.

    Returns:
        From ``first`` to ``safe`` or ``last``; the one in between gives a good deal more room than ``first``.

    >>> rungs_to_train(2, None, 13, 3), rungs_to_train(2, 4, 13, 3), rungs_to_train(4, 4, 13, 3)
    ([2, 4, 13], [2, 3, 4], [4])
    """
    end = last if safe is None else max(first, safe)
    rungs = list(range(first, end + 1))
    return rungs if len(rungs) <= most else [first, min(first + 2, end - 1), end]
