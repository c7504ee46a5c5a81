"""How training moved importance: by word type, by part of the data, and how concentrated it is.

Everything here compares two importances of the same pairs, the model's ``TI`` and the base's ``TI0``. Pairs
may carry weights (how many pairs of the data each one stands for); intervals are from a bootstrap over pairs.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError
from leanmatch.interventions.results import TokenImportance
from leanmatch.metrics.bootstrap import check_bootstrap, interval, ratio_influence, resampled_ratios
from leanmatch.types import JsonValue

BLOCK_WORDS = 128
"""Word types whose intervals are found at once."""


class Bootstrap(NamedTuple):
    """Settings of the intervals."""

    confidence: float = 0.95
    resamples: int = 1000
    seed: int = 0


DEFAULT_BOOTSTRAP = Bootstrap()


class Estimate(NamedTuple):
    """A number and the interval of it; all None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None


class Aligned(NamedTuple):
    """Rows of two importances that are about the same unit: numbers in each, same shape."""

    model: NDArray[np.int64]
    base: NDArray[np.int64]


@dataclass(frozen=True)
class WordDrift:
    """A word type's mean importance under both models.

    ``word``: its commonest spelling; case does not tell types apart. ``pairs``, ``count``: pairs and
    occurrences. ``difference``: mean of ``TI - TI0``, with its interval ``low`` to ``high``.
    ``strength``: the end of the interval that is nearer to 0, without its sign; 0 where the interval holds 0.
    """

    word: str
    pairs: int
    count: int
    base: float
    model: float
    difference: float
    low: float
    high: float
    strength: float

    def to_json(self) -> JsonValue:
        """All fields."""
        return asdict(self)


@dataclass(frozen=True)
class PartDrift:
    """How far effects moved, and how concentrated they are, in one part of the data.

    ``drift``: ``sum (TI - TI0)^2 / sum TI0^2``: 1 means that effects moved by as much as they are large.
    ``base``, ``model``: share of the score that the top word carries, ``sum max_t TI / sum s`` over texts;
    ``difference``: model less base. ``pairs``: of the sample; ``texts``: that count for the shares, because
    all their words were looked at.
    """

    pairs: int
    texts: int
    drift: Estimate
    base: Estimate
    model: Estimate
    difference: Estimate

    def to_json(self) -> JsonValue:
        """All fields; estimates as objects."""
        return {
            key: value._asdict() if isinstance(value, Estimate) else value
            for key, value in ((name, getattr(self, name)) for name in self.__dataclass_fields__)
        }


def align(model: TokenImportance, base: TokenImportance) -> Aligned:
    """Find the units that both models have: same pair, side, start and end.

    Models with one tokenizer share all units; with two, words that only one of them cut off or glued together
    are left out.

    Raises:
        UsageError: the importances are of different pairs, or of different units.
    """
    if (model.anchors, model.positives) != (base.anchors, base.positives) or model.unit != base.unit:
        raise UsageError(
            "the two importances are not about the same pairs and units", remedy="give both the same texts"
        )
    keys = [
        np.column_stack([importance.pair, importance.side, importance.offsets])
        for importance in (model, base)
    ]
    both, numbers = np.unique(np.concatenate(keys), axis=0, return_inverse=True)
    places = np.full((2, len(both)), -1, np.int64)
    numbers = numbers.reshape(-1)
    for which, indices in enumerate(np.split(numbers, [len(keys[0])])):
        places[which, indices[::-1]] = np.arange(len(indices))[::-1]
    shared = (places >= 0).all(axis=0)
    return Aligned(places[0, shared], places[1, shared])


def word_drift(
    model: TokenImportance,
    base: TokenImportance,
    *,
    weights: NDArray[np.float64] | None = None,
    min_pairs: int = 5,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> list[WordDrift]:
    """Mean importance of each word type under both models, those that surely moved most first.

    Args:
        model, base: importances of the same pairs.
        weights: of the pairs, ``(pairs,)``; 1 each where left out.
        min_pairs: word types that stand in fewer pairs are left out: nothing can be said about them.
        bootstrap: over pairs.

    Returns:
        word types by falling ``strength``, then by how far they moved.

    Raises:
        UsageError: importances of different pairs, or settings of the bootstrap that give no interval.
    """
    check_bootstrap(bootstrap.confidence, bootstrap.resamples)
    rows, base_rows = align(model, base)
    pair = model.pair[rows]
    weight = np.ones(len(model.scores)) if weights is None else weights
    types, names = _word_types(np.array(model.words(), object)[rows].tolist() if len(rows) else [])
    effects = np.stack([model.effects[rows], base.effects[base_rows]])
    in_pairs = np.bincount(np.unique(np.stack([types, pair]), axis=1)[0], minlength=len(names))
    kept = np.flatnonzero(in_pairs >= min_pairs)
    drifts = []
    for start in range(0, len(kept), BLOCK_WORDS):
        some = kept[start : start + BLOCK_WORDS]
        column = np.full(len(names), -1, np.int64)
        column[some] = np.arange(len(some))
        here = column[types] >= 0
        shape = (len(model.scores), len(some))
        sums, counts = [np.zeros(shape) for _ in range(2)], np.zeros(shape)
        cell = (pair[here], column[types[here]])
        np.add.at(counts, cell, weight[pair[here]])
        for total, effect in zip(sums, effects, strict=True):
            np.add.at(total, cell, weight[pair[here]] * effect[here])
        moved = sums[0] - sums[1]
        with np.errstate(invalid="ignore", divide="ignore"):  # resamples without the word
            samples = resampled_ratios(moved, counts, resamples=bootstrap.resamples, seed=bootstrap.seed)
        influence = ratio_influence(moved, counts)
        for place_of, number in enumerate(some.tolist()):
            of = [float(total[:, place_of].sum() / counts[:, place_of].sum()) for total in (*sums, moved)]
            low, high = interval(
                samples[:, place_of], of[2], confidence=bootstrap.confidence, influence=influence[:, place_of]
            )
            strength = max(low, -high, 0.0)
            occurrences = int(np.count_nonzero(types == number))
            drifts.append(
                WordDrift(
                    names[number],
                    int(in_pairs[number]),
                    occurrences,
                    of[1],
                    of[0],
                    of[2],
                    low,
                    high,
                    strength,
                )
            )
    return sorted(drifts, key=lambda drift: (-drift.strength, -abs(drift.difference), drift.word))


def part_drift(
    model: TokenImportance,
    base: TokenImportance,
    pairs: NDArray[np.int64],
    *,
    weights: NDArray[np.float64] | None = None,
    bootstrap: Bootstrap = DEFAULT_BOOTSTRAP,
) -> PartDrift:
    """Drift and concentration over some of the pairs; see :class:`PartDrift`.

    Args:
        model, base: importances of the same pairs.
        pairs: numbers of those to look at.
        weights: of all pairs, ``(pairs,)``.
        bootstrap: over pairs.

    Raises:
        UsageError: as :func:`word_drift`.
    """
    check_bootstrap(bootstrap.confidence, bootstrap.resamples)
    rows, base_rows = align(model, base)
    count = len(model.scores)
    weight = (np.ones(count) if weights is None else weights)[pairs]
    moved, size = np.zeros(count), np.zeros(count)
    np.add.at(moved, model.pair[rows], (model.effects[rows] - base.effects[base_rows]) ** 2)
    np.add.at(size, model.pair[rows], base.effects[base_rows] ** 2)
    complete = model.complete() & base.complete() & (model.counts > 0) & (base.counts > 0)
    tops = [_tops(importance, complete).sum(axis=0)[pairs] * weight for importance in (model, base)]
    scores = [
        importance.scores[pairs] * complete[:, pairs].sum(axis=0) * weight for importance in (model, base)
    ]
    columns = np.column_stack(tops), np.column_stack(scores)
    shares = [_ratio(columns[0][:, [i]], columns[1][:, [i]], bootstrap) for i in range(2)]
    return PartDrift(
        pairs=len(pairs),
        texts=int(complete[:, pairs].sum()),
        drift=_ratio((moved[pairs] * weight)[:, None], (size[pairs] * weight)[:, None], bootstrap),
        base=shares[1],
        model=shares[0],
        difference=_ratio(*columns, bootstrap),
    )


def _tops(importance: TokenImportance, counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    top = np.zeros((2, len(importance.scores)))
    np.maximum.at(top, (importance.side.astype(np.int64), importance.pair), importance.effects)
    return np.asarray(top * counted)


def _ratio(
    numerators: NDArray[np.float64],
    denominators: NDArray[np.float64],
    bootstrap: Bootstrap,
) -> Estimate:
    """A ratio of sums with its interval; of two columns, the difference of their ratios."""
    totals = denominators.sum(axis=0)
    if not len(numerators) or (totals <= 0).any():
        return Estimate(None, None, None)
    with np.errstate(invalid="ignore", divide="ignore"):
        samples = resampled_ratios(
            numerators, denominators, resamples=bootstrap.resamples, seed=bootstrap.seed
        )
    values, influence = numerators.sum(axis=0) / totals, ratio_influence(numerators, denominators)
    sign = np.array([1.0, -1.0])[: len(values)]
    value = float(values @ sign)
    return Estimate(
        value, *interval(samples @ sign, value, confidence=bootstrap.confidence, influence=influence @ sign)
    )


def _word_types(words: Sequence[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Number of each word's type, and each type's commonest spelling."""
    numbers: dict[str, int] = {}
    types = np.array(
        [numbers.setdefault(unicodedata.normalize("NFC", w).casefold(), len(numbers)) for w in words],
        np.int64,
    )
    spellings: list[Counter[str]] = [Counter() for _ in numbers]
    for number, word in zip(types.tolist(), words, strict=True):
        spellings[number][word] += 1
    return types, [spelling.most_common(1)[0][0] for spelling in spellings]
