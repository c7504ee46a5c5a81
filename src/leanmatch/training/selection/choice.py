"""Choosing the share of the trained weights on validation pairs.

The candidates are ``share * trained + (1 - share) * base`` for the shares of :data:`SHARES`; ``trained`` is
the run, or the average of the runs (a soup) where the recipe has two. Each candidate is scored on two slices:
validation pairs of the training distribution, and a shifted slice
(:mod:`leanmatch.training.selection.shift`). With unlabelled target texts there is a third
(:mod:`leanmatch.training.selection.target`). A slice is scored with weights that were not trained on it. If
the model is also trained on the shifted slice, that slice is scored with the first run as it was before it
saw the slice. If the second run is regularized on the target, the target is scored with the first run alone.
The objective of a share is

.. math:: J(s) = E(s) - 0.01 (s - 1)^2

``E`` is the mean of the two slices' metrics; with target texts, the mean of that and the target's metric. The
second term pulls the share towards 1 where slices of a few hundred queries cannot tell shares apart.

The share with the largest ``J`` is a noisy choice: neighbouring shares differ by less than the standard error
of a few hundred queries. So the queries of each slice are resampled, the best share of each resample is
taken, and the model gets the mean of those shares (bagging). The earlier rule took the share with the largest
``J``, without a pull for the base. Against it, over 76 tests on 19 shifts, this rule loses 0.1 points less in
distribution, and 1.3 instead of 3.5 at worst (docs/results/ood.md). Requiring gains beyond the standard
error, and about 3,000 other rules on the same scores, were no better than the earlier rule (docs/LOG.md).

Sources: Wortsman et al., *Model soups* (arXiv 2203.05482); Breiman, *Bagging predictors* (1996).
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

SHARES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4)
"""Shares of the trained weights that ``average="auto"`` tries; above 1 goes on as training went."""
RESAMPLES = 200
"""How often the queries are resampled; more resamples move the mean share by less than 0.02."""
SMALLEST = 0.05
"""A smaller mean share counts as 0, which is the base itself."""
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


def objective(
    means: Mapping[str, NDArray[np.float64]], share: float, pull: float = PULL
) -> NDArray[np.float64]:
    """``J`` of this module for each resample.

    Args:
        means: for each slice, the mean metric of every resample of its queries, ``(resamples,)``.
        share: of the trained weights.
        pull: the factor of the pull towards share 1.
    """
    weights = evidence(means)
    seen: NDArray[np.float64] = sum(weights[name] * means[name] for name in means)  # type: ignore[assignment]
    return seen - pull * (share - 1) ** 2


def resampled_shares(per_query: Mapping[float, Slices], pull: float = PULL) -> NDArray[np.float64]:
    """The share with the largest ``J`` in each resample of the queries; of equal ones the smallest.

    Args:
        per_query: for each share and slice the metric of every query, in the same order of queries.
        pull: the factor of the pull towards share 1.
    """
    shares = sorted(per_query)
    draw = np.random.default_rng(0)
    means: dict[float, dict[str, NDArray[np.float64]]] = {share: {} for share in shares}
    for name, values in per_query[shares[0]].items():
        each = draw.multinomial(len(values), np.full(len(values), 1 / len(values)), size=RESAMPLES)
        for share in shares:
            means[share][name] = each @ per_query[share][name] / len(values)
    values = np.stack([objective(means[share], share, pull) for share in shares])
    winners: NDArray[np.float64] = np.array(shares)[values.argmax(0)]
    return winners


def mean_share(winners: NDArray[np.float64]) -> float:
    """The share that the model gets: the mean of the shares of :func:`resampled_shares`, to two decimals."""
    share = round(float(winners.mean()), 2)
    return 0.0 if share < SMALLEST else share


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
    winners = resampled_shares(per_query)
    winner = mean_share(winners)
    if winner not in per_query:
        per_query = dict(sorted({**per_query, winner: score(winner)}.items()))
    scores = {s: {name: float(v.mean()) for name, v in slices.items()} for s, slices in per_query.items()}
    parts = ", ".join(f"{100 * value:.1f} {name}" for name, value in scores[winner].items())
    low, high = np.quantile(winners, (0.05, 0.95), method="nearest")
    reason = f"average {winner:g}"
    if low < high:
        reason += f" (the mean over resampled queries, most of which choose {low:g} to {high:g})"
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
