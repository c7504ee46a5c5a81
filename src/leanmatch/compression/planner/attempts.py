"""States that the planner has evaluated, and which of them becomes the result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leanmatch.compression.planner.choice import Plan
from leanmatch.compression.planner.quality import Quality

PRICE = 0.5
"""Share of the metric that a unit of harm costs after training, as a first guess. It is careful: MiniLM lost
that with its first factors (docs/LOG.md). If the first rung is too lean, nothing is left to fall back on."""
LEAST_PRICE = PRICE / 4
"""A model that keeps everything by chance says nothing of leaner ones: harm costs at least so much."""
TRAINING_LEAVES = 0.5
"""Part of the first factors' loss that training leaves (docs/LOG.md)."""


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
    """The attempt that becomes the result.

    A state drops out if another one of its rung is nearer to the dense model, and the ranks do not show that
    the nearer one keeps less (:meth:`Quality.nearer`). The ranks of some hundred queries seldom separate two
    states of one plan; the vectors of thousands of texts do.

    Args:
        attempts: all of one run; at least one.
        keep: share of the metric that was asked for, if any.
        leanest: of those that meet ``keep``, take the leanest rung (its best state); else the best state.

    Returns:
        Of the remaining attempts that meet ``keep``, or of all where none does, the best by its worst slice
        (:attr:`Attempt.standing`); of equals the trained one.
    """
    attempts = [
        a for a in attempts if not any(b.rung == a.rung and b.quality.nearer(a.quality) for b in attempts)
    ]
    meeting = [attempt for attempt in attempts if attempt.meets(keep)]
    if leanest and meeting:
        first = min(attempt.rung for attempt in meeting)
        meeting = [attempt for attempt in meeting if attempt.rung == first]
    return max(meeting or attempts, key=lambda a: (a.standing, a.trained, -a.rung))


def leanest_rung(harms: Sequence[float], price: float, allowed: float) -> int:
    """The leanest rung that is expected to lose no more than ``allowed`` of the metric; else the roomiest.

    Args:
        harms: of each rung, the leanest rung first.
        price: what a unit of harm costs of the metric.
        allowed: the share that may be lost.

    >>> leanest_rung([0.1, 0.04, 0.02], 0.5, 0.03), leanest_rung([0.1, 0.04, 0.02], 0.5, 0.001)
    (1, 2)
    """
    return next((rung for rung, harm in enumerate(harms) if price * harm <= allowed), len(harms) - 1)
