"""Choosing the regularizer's weight and the share of trained weights on validation pairs.

Every candidate is scored on two slices: validation pairs of the training distribution, and a shifted slice
(:mod:`leanmatch.training.shift`). The objective is the mean of the two, and the best candidate wins; of
equals the one nearest to the base model. Preferring the nearest to the base within one standard error was
tried and costs more than it saves (docs/LOG.md): on small slices the error exceeds what is at stake.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""Shares of the trained weights that ``average="auto"`` tries."""
WEIGHTS = (0.0, 0.3)
"""Regularizer weights that ``weight="auto"`` tries, a training run each; 0 is plain fine-tuning."""


@dataclass(frozen=True)
class Candidate:
    """A regularizer weight and a share of trained weights."""

    weight: float
    share: float


@dataclass(frozen=True)
class Choice:
    """What was chosen, and all that it was chosen from.

    Attributes:
        candidate: the winner.
        scores: mean metric of every candidate on every slice.
        reason: a sentence for people.
    """

    candidate: Candidate
    scores: dict[Candidate, dict[str, float]]
    reason: str

    def to_json(self) -> dict[str, Any]:
        """As written into the saved model."""
        return {
            "weight": self.candidate.weight,
            "average": self.candidate.share,
            "reason": self.reason,
            "candidates": [
                {"weight": c.weight, "average": c.share, **{k: round(v, 5) for k, v in scores.items()}}
                for c, scores in self.scores.items()
            ],
        }


def choose(per_query: Mapping[Candidate, Mapping[str, NDArray[np.float64]]], metric: str) -> Choice:
    """Apply the rule of this module.

    Args:
        per_query: for each candidate and slice the metric of every query, in the same order of queries.
        metric: its name, for the sentence.
    """
    scores = {c: {name: float(v.mean()) for name, v in slices.items()} for c, slices in per_query.items()}
    objective = {c: float(np.mean(list(slices.values()))) for c, slices in scores.items()}
    # ties go to the candidate nearest to the base: lower share, then higher weight
    winner = max(objective, key=lambda c: (objective[c], -c.share, c.weight))
    parts = ", ".join(f"{100 * value:.1f} {name}" for name, value in scores[winner].items())
    reason = (
        f"average {winner.share:g}, weight {winner.weight:g}: {metric} {parts}; "
        f"best mean of the slices, {100 * objective[winner]:.2f}"
    )
    plain = next((c for c in per_query if c.share == 0), None)
    if plain is not None and plain != winner:
        error = _standard_error(per_query[winner], per_query[plain])
        gain = objective[winner] - objective[plain]
        reason += f", {100 * gain:+.2f} against the base model (standard error {100 * error:.2f})"
    return Choice(winner, scores, reason)


def _standard_error(
    first: Mapping[str, NDArray[np.float64]], second: Mapping[str, NDArray[np.float64]]
) -> float:
    """Standard error of the difference of two objectives, from paired differences of the slices' queries."""
    total = 0.0
    for name, values in first.items():
        difference = values - second[name]
        if len(difference) > 1:
            total += float(difference.var(ddof=1)) / len(difference)
    return math.sqrt(total) / len(first)
