r"""Choosing the share of the trained weights on validation pairs.

The candidates are ``share * trained + (1 - share) * base`` for the shares of :data:`SHARES`; ``trained`` is
the run, or the average of the runs (a soup) where the recipe has two. Each candidate is scored on two slices:
validation pairs of the training distribution, and a shifted slice
(:mod:`leanmatch.training.selection.shift`). With unlabelled target texts there is a third
(:mod:`leanmatch.training.selection.target`). A slice is scored with weights that were not trained on it. If
the model is also trained on the shifted slice, that slice is scored with the first run as it was before it
saw the slice. If the second run is regularized on the target, the target is scored with the first run alone.
The objective of a share is

.. math:: J(s) = E(s) - 2 \sigma (s - 0.8)^2

The value of a candidate is the mean of the two slices' metrics; with target texts, the mean of that and the
target's metric. Neighbouring shares differ by less than the standard error of a few hundred queries, so ``E``
is smoothed: it is the parabola that fits the candidates' values best. The second term pulls the share towards
0.8, more strongly the less the queries tell: :math:`\sigma` is the standard error of the parabola's slope at
0.8. The model gets the share with the largest ``J``. Resampled queries say how far it can be trusted.

One earlier rule took the share with the largest mean, another the mean of the shares that win resamples. On
the same queries both were worse out of distribution, and below the base in 3 of 114 tests instead of 1
(docs/results/ood.md). What else was tried is in docs/LOG.md.

Sources: Wortsman et al., *Model soups* (arXiv 2203.05482); Box and Wilson, *On the experimental attainment of
optimum conditions* (1951), for optima of fitted parabolas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmatch.training.options import DEFAULT_WEIGHT

if TYPE_CHECKING:
    from typing import TypeAlias

    from numpy.typing import NDArray

    Slices: TypeAlias = Mapping[str, NDArray[np.float64]]
    """Of each slice, the metric of every query."""

SHARES = (0.0, 0.4, 0.8, 1.2, 1.4)
"""Shares of the trained weights that ``average="auto"`` tries; those above 1 go further in the direction of
training. Eight shares choose no better (docs/LOG.md)."""
RESAMPLES = 200
"""How often the queries are resampled, to show how certain the choice is."""
STEP = 0.01
"""Shares are chosen in steps of this."""
SMALLEST = 0.05
"""A smaller share counts as 0, which is the base itself."""
WEIGHTS = (0.0, DEFAULT_WEIGHT)
"""Regularizer weights of the runs that ``weight="auto"`` averages; 0 is plain fine-tuning."""
CENTRE = 0.8
"""The share that the choice is pulled to."""
PULL = 2.0
"""What the objective loses at a distance of 1 from the centre, in standard errors of its slope there."""
VALID, SHIFTED, TARGET = "valid", "shifted", "target"
"""Names of the slices."""


def evidence(slices: Slices) -> dict[str, float]:
    """The weight of each slice in the objective; they sum to 1."""
    source = [name for name in slices if name != TARGET]
    half = 2 if TARGET in slices and source else 1
    return {name: 1 / half / (1 if name == TARGET else len(source)) for name in slices}


def best_shares(
    per_query: Mapping[float, Slices], *, pull: float = PULL, centre: float = CENTRE, resamples: int = 0
) -> NDArray[np.float64]:
    """The share with the largest ``J`` of this module; in a tie the smallest.

    Args:
        per_query: for each share and slice the metric of every query, in the same order of queries; at least
            three shares.
        pull, centre: see :data:`PULL` and :data:`CENTRE`.
        resamples: how often the queries are resampled.

    Returns:
        shape ``(1 + resamples,)``: first the choice of the original queries, then that of each resample.
    """
    shares = np.array(sorted(per_query))
    draw = np.random.default_rng(0)
    fit = np.linalg.pinv(np.vander(shares, 3))  # values at the shares to a parabola's coefficients
    slope = np.array([2 * centre, 1, 0]) @ fit
    seen, variance = np.zeros((len(shares), 1 + resamples)), 0.0
    for name, weight in evidence(per_query[shares[0]]).items():
        values = np.stack([per_query[share][name] for share in shares])
        count = values.shape[1]
        drawn = draw.multinomial(count, np.full(count, 1 / count), size=resamples)
        seen += weight / count * values @ np.vstack([np.ones(count), drawn]).T
        variance += (weight * _standard_error(slope @ values)) ** 2
    grid = np.linspace(0, shares[-1], 1 + round(shares[-1] / STEP)).round(2)
    fitted = np.vander(grid, 3) @ fit @ seen
    value = fitted - pull * math.sqrt(variance) * (grid[:, None] - centre) ** 2
    best: NDArray[np.float64] = grid[value.round(9).argmax(0)]
    return np.where(best < SMALLEST, 0.0, best)


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


def choose(per_query: Mapping[float, Slices], metric: str, score: Callable[[float], Slices]) -> Choice:
    """Apply the rule of this module.

    Args:
        per_query: for each share and slice the metric of every query, in the same order of queries.
        metric: its name, for the sentence.
        score: computes the same for a share that ``per_query`` lacks.
    """
    winner, *resampled = best_shares(per_query, resamples=RESAMPLES).tolist()
    if winner not in per_query:
        per_query = dict(sorted({**per_query, winner: score(winner)}.items()))
    scores = {s: {name: float(v.mean()) for name, v in slices.items()} for s, slices in per_query.items()}
    parts = ", ".join(f"{100 * value:.1f} {name}" for name, value in scores[winner].items())
    low, high = np.quantile(resampled, (0.05, 0.95), method="nearest")
    reason = f"average {winner:g}"
    if low < high:
        reason += f" (resampled queries mostly choose {low:g} to {high:g})"
    reason += f": {metric} {parts}"
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
    return float(difference.mean()), _standard_error(difference)


def _standard_error(values: NDArray[np.float64]) -> float:
    """Of the mean; 0 of a single value."""
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0


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
