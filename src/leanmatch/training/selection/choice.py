"""Choosing the regularizer's weight and the share of trained weights on validation pairs.

Candidates are the trained models and their average (a soup), each mixed with the base by a share, and beyond
the trained weights too (share above 1). Every candidate is scored on two slices: validation pairs of the
training distribution, and a shifted slice (:mod:`leanmatch.training.selection.shift`); the objective is the
mean of the two.

1. The best of the trained models as they are (share 1), unless another candidate, the base included, is ahead
   of it by half a standard error: then the best of those.
2. From there the share goes down as long as the objective surely loses next to nothing (:data:`MARGIN`, the
   standard error of the loss included): where validation is flat, less of the training is more robust.

Both steps ask for evidence because small slices are noisy: taking the nearest to the base within one standard
error, or within a fixed tolerance, was tried and costs more than it saves (docs/LOG.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
"""Shares of the trained weights that ``average="auto"`` may try; above 1 goes on as training went."""
WEIGHTS = (0.0, DEFAULT_WEIGHT)
"""Regularizer weights that ``weight="auto"`` tries, a training run each; 0 is plain fine-tuning."""
EVIDENCE = 0.5
"""Standard errors by which a share other than 1 must be ahead of the trained models as they are."""
MARGIN = 0.004
"""What a share nearer to the base may lose of the objective (0..1), the standard error of the loss added."""


@dataclass(frozen=True)
class Candidate:
    """A model to choose from: ``share * (mean of trained models) + (1 - share) * base``.

    Attributes:
        weights: the regularizer weight of each training run whose weights are averaged (a model soup where
            there is more than one).
        share: of the trained weights.

    Source of soups: Wortsman et al., *Model soups* (arXiv 2203.05482).
    """

    weights: tuple[float, ...]
    share: float

    @property
    def weight(self) -> float:
        """Mean weight of the runs."""
        return sum(self.weights) / len(self.weights)


def mixtures(weights: Sequence[float]) -> list[tuple[float, ...]]:
    """Every run by itself, and all of them averaged where there are several."""
    return [(weight,) for weight in weights] + ([tuple(weights)] if len(weights) > 1 else [])


def explore(
    shares: Mapping[tuple[float, ...], Sequence[float]], score: Callable[[Candidate], Slices]
) -> dict[Candidate, Slices]:
    """Score what :func:`choose` has to see: base, a climb for each mixture, the way down from the winner.

    Args:
        shares: those that may be tried, of every mixture; the base only where they hold 0.
        score: the metric of every query of each slice.
    """
    scored: dict[Candidate, Slices] = {}
    for mixture, allowed in shares.items():
        if 0.0 in allowed and not scored:  # the base is the same in every mixture
            base = Candidate(mixture, 0.0)
            scored[base] = score(base)
        scored |= search(mixture, allowed, score)
    return scored | approach(scored, shares[_winner(scored).weights], score)


def search(
    mixture: tuple[float, ...],
    shares: Sequence[float],
    score: Callable[[Candidate], Slices],
) -> dict[Candidate, Slices]:
    """Candidates of one mixture, climbing from share 1 (or the only one) up, else down, while it gets better.

    Found the same winner as trying all shares in 12 of 12 runs (docs/LOG.md), with half as many scored.
    """
    ordered = sorted(share for share in shares if share > 0) or list(shares)
    scored: dict[Candidate, Slices] = {}

    def value(step: int) -> float:
        candidate = Candidate(mixture, ordered[step])
        if candidate not in scored:
            scored[candidate] = score(candidate)
        return objective(scored[candidate])

    start = ordered.index(1.0) if 1.0 in ordered else len(ordered) - 1
    value(start)
    for direction in (1, -1):
        step = start
        while 0 <= step + direction < len(ordered) and value(step + direction) > value(step):
            step += direction
        if step != start:
            break
    return scored


def approach(
    scored: Mapping[Candidate, Slices],
    shares: Sequence[float],
    score: Callable[[Candidate], Slices],
) -> dict[Candidate, Slices]:
    """Candidates between the winner so far and the base, as far down as :func:`choose` has to look."""
    winner = _winner(scored)
    added: dict[Candidate, Slices] = {}
    for share in sorted((share for share in shares if 0 < share < winner.share), reverse=True):
        candidate = Candidate(winner.weights, share)
        if candidate not in scored:
            added[candidate] = score(candidate)
        if not _loses_nothing({**scored, **added}, candidate, winner):
            break
    return added


def objective(slices: Slices) -> float:
    """Mean over slices of the mean over queries."""
    return float(np.mean([values.mean() for values in slices.values()]))


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
            "weight": weight_json(self.candidate.weights),
            "average": self.candidate.share,
            "reason": self.reason,
            "candidates": [
                {
                    "weight": weight_json(c.weights),
                    "average": c.share,
                    **{k: round(v, 5) for k, v in scores.items()},
                }
                for c, scores in self.scores.items()
            ],
        }


def choose(per_query: Mapping[Candidate, Slices], metric: str) -> Choice:
    """Apply the rule of this module.

    Args:
        per_query: for each candidate and slice the metric of every query, in the same order of queries.
        metric: its name, for the sentence.
    """
    scores = {c: {name: float(v.mean()) for name, v in slices.items()} for c, slices in per_query.items()}
    values = {c: objective(slices) for c, slices in per_query.items()}
    winner = _nearest(per_query, _winner(per_query))
    standing = _standing(per_query, winner, values)
    parts = ", ".join(f"{100 * value:.1f} {name}" for name, value in scores[winner].items())
    reason = f"average {winner.share:g}, weight {_named(winner)}: {metric} {parts}; {standing}"
    plain = next((c for c in per_query if c.share == 0), None)
    if plain is not None and plain != winner:
        error = _standard_error(per_query[winner], per_query[plain])
        gain = values[winner] - values[plain]
        reason += f", {100 * gain:+.2f} against the base model (standard error {100 * error:.2f})"
    return Choice(winner, scores, reason)


def _best(per_query: Mapping[Candidate, Slices], candidates: Iterable[Candidate]) -> Candidate:
    """Of equals the one nearest to the base: lower share, then higher weight."""
    return max(candidates, key=lambda c: (objective(per_query[c]), -c.share, c.weight))


def _full(per_query: Mapping[Candidate, Slices]) -> Candidate:
    """The best candidate at share 1, or at the share nearest to it where only one share is tried."""
    share = min((c.share for c in per_query), key=lambda share: abs(share - 1))
    return _best(per_query, (c for c in per_query if c.share == share))


def _winner(per_query: Mapping[Candidate, Slices]) -> Candidate:
    """Step 1 of the rule."""
    full = _full(per_query)
    value = objective(per_query[full])
    ahead = [
        c
        for c, slices in per_query.items()
        if objective(slices) - value > EVIDENCE * _standard_error(slices, per_query[full])
    ]
    return _best(per_query, ahead) if ahead else full


def _nearest(per_query: Mapping[Candidate, Slices], winner: Candidate) -> Candidate:
    """Step 2: the winner's lowest share (above 0) on the way down that loses nothing."""
    nearest = winner
    below = (c for c in per_query if c.weights == winner.weights and 0 < c.share < winner.share)
    for candidate in sorted(below, key=lambda c: -c.share):
        if not _loses_nothing(per_query, candidate, winner):
            break
        nearest = candidate
    return nearest


def _loses_nothing(per_query: Mapping[Candidate, Slices], lower: Candidate, winner: Candidate) -> bool:
    loss = objective(per_query[winner]) - objective(per_query[lower])
    return loss + _standard_error(per_query[winner], per_query[lower]) <= MARGIN


def _described(candidate: Candidate, values: Mapping[Candidate, float]) -> str:
    return f"average {candidate.share:g}, weight {_named(candidate)} ({100 * values[candidate]:.2f})"


def _standing(
    per_query: Mapping[Candidate, Slices], winner: Candidate, values: Mapping[Candidate, float]
) -> str:
    """The winner's objective, and which part of the rule decided."""
    full, best = _full(per_query), _winner(per_query)
    mean = f"mean of the slices {100 * values[winner]:.2f}"
    if winner != best:
        return (
            f"{mean}, surely no more than {100 * MARGIN:g} points below average {best.share:g} "
            f"({100 * values[best]:.2f}) and nearer to the base model"
        )
    if winner != full:
        return f"{mean}, ahead of {_described(full, values)} by more than {EVIDENCE:g} standard errors"
    rival = max(per_query, key=lambda c: values[c])
    if values[rival] > values[full]:
        return f"{mean}; {_described(rival, values)} is ahead by no more than {EVIDENCE:g} standard errors"
    return f"{mean}, the best"


def _named(candidate: Candidate) -> str:
    names = " and ".join(f"{weight:g}" for weight in candidate.weights)
    return f"{names} averaged" if len(candidate.weights) > 1 else names


def weight_json(weights: tuple[float, ...]) -> float | list[float]:
    """One weight as a number, several as a list."""
    return list(weights) if len(weights) > 1 else weights[0]


def _standard_error(first: Slices, second: Slices) -> float:
    """Standard error of the difference of two objectives, from paired differences of the slices' queries."""
    total = 0.0
    for name, values in first.items():
        difference = values - second[name]
        if len(difference) > 1:
            total += float(difference.var(ddof=1)) / len(difference)
    return math.sqrt(total) / len(first)
