"""Choosing the share of the trained weights on validation pairs.

The candidates are ``share * trained + (1 - share) * base`` for the shares of :data:`SHARES`; ``trained`` is
the run, or the average of the runs (a soup) where the recipe has two. Each candidate is scored on two slices:
validation pairs of the training distribution, and a shifted slice
(:mod:`leanmatch.training.selection.shift`). With unlabelled target texts there is a third
(:mod:`leanmatch.training.selection.target`). A slice is scored by runs that were not trained on it: the
shifted slice, where the second run is trained on it, and the target, where that run is regularized on it, by
the first alone. The largest objective wins:

.. math:: J(s) = E(s) - 0.01 (s - 1)^2

``E`` is the mean of the two slices' metrics; with target texts, the mean of that and the target's. The base
(share 0) pays nothing. The pull towards share 1 stands for what slices of a few hundred queries cannot tell.
Demanding evidence by standard errors instead was tried and is worse, as are about 3,000 other rules
(docs/LOG.md, docs/results/ood.md).

Source of soups: Wortsman et al., *Model soups* (arXiv 2203.05482).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmatch.training.options import DEFAULT_WEIGHT

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    Slices: TypeAlias = Mapping[str, NDArray[np.float64]]
    """Of each slice, the metric of every query."""

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4)
"""Shares of the trained weights that ``average="auto"`` tries; above 1 goes on as training went."""
WEIGHTS = (0.0, DEFAULT_WEIGHT)
"""Regularizer weights of the runs that ``weight="auto"`` averages; 0 is plain fine-tuning."""
PULL = 0.01
"""What the objective (0..1) loses at a distance of 1 from the trained weights as they are."""
VALID, SHIFTED, TARGET = "valid", "shifted", "target"
"""Names of the slices."""


def evidence(slices: Slices) -> dict[str, float]:
    """The weight of each slice in the objective; they sum to 1."""
    source = [name for name in slices if name != TARGET]
    half = 2 if TARGET in slices and source else 1
    return {name: 1 / half / (1 if name == TARGET else len(source)) for name in slices}


def objective(slices: Slices, share: float, pull: float = PULL) -> float:
    """``J`` of this module."""
    seen = sum(weight * float(slices[name].mean()) for name, weight in evidence(slices).items())
    return seen - (pull * (share - 1) ** 2 if share > 0 else 0.0)


@dataclass(frozen=True)
class Choice:
    """What was chosen, and all that it was chosen from.

    Attributes:
        share: of the trained weights.
        scores: mean metric of every share on every slice.
        reason: a sentence for people.
        outlook: what the evidence leaves open, in sentences.
    """

    share: float
    scores: dict[float, dict[str, float]]
    reason: str
    outlook: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As written into the saved model."""
        return {
            "average": self.share,
            "reason": self.reason,
            "candidates": [
                {"average": share, **{name: round(value, 5) for name, value in scores.items()}}
                for share, scores in self.scores.items()
            ],
        }


def choose(per_query: Mapping[float, Slices], metric: str) -> Choice:
    """Apply the rule of this module.

    Args:
        per_query: for each share and slice the metric of every query, in the same order of queries.
        metric: its name, for the sentence.
    """
    values = {share: objective(slices, share) for share, slices in per_query.items()}
    winner = max(values, key=lambda share: (values[share], -share))
    scores = {s: {name: float(v.mean()) for name, v in slices.items()} for s, slices in per_query.items()}
    parts = ", ".join(f"{100 * value:.1f} {name}" for name, value in scores[winner].items())
    reason = f"average {winner:g}: {metric} {parts}"
    if 0.0 in per_query and winner != 0:
        differences = []
        for name in per_query[winner]:
            gain, error = paired_difference(per_query[winner][name], per_query[0.0][name])
            differences.append(f"{100 * gain:+.1f} {name} (standard error {100 * error:.1f})")
        reason += f"; against the base model {', '.join(differences)}"
    open_questions = _outlook(per_query, winner) if 0.0 in per_query else []
    return Choice(winner, scores, reason, tuple(open_questions))


def paired_difference(values: NDArray[np.float64], other: NDArray[np.float64]) -> tuple[float, float]:
    """Mean difference over queries, and its standard error."""
    difference = values - other
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return float(difference.mean()), error


def _outlook(per_query: Mapping[float, Slices], share: float) -> list[str]:
    """What the evidence leaves open, in sentences.

    Args:
        per_query: what :func:`choose` saw, the base (share 0) included.
        share: what it chose.
    """
    if share == 0:
        return ["fine-tuning did not help on the validation slices: the result is the base model"]
    sentences = []
    for name, where in ((SHIFTED, "texts unlike the rest"), (TARGET, "the target texts")):
        if name in per_query[share]:
            gain, error = paired_difference(per_query[share][name], per_query[0.0][name])
            if gain < -2 * error:
                sentences.append(
                    f"risk: on {where} the chosen model is worse than the base by {-100 * gain:.1f} points "
                    f"(standard error {100 * error:.1f}); what it gains on the others outweighs that. A "
                    "smaller average is safer there"
                )
    if TARGET not in per_query[share]:
        sentences.append(
            "risk: the choice saw no texts of another category or time; give it unlabelled ones "
            "(--target FILE, in Python target=)"
        )
    return sentences


def weight_json(weights: tuple[float, ...]) -> float | list[float]:
    """One weight as a number, several as a list."""
    return list(weights) if len(weights) > 1 else weights[0]
