"""Which rows a diagnosis looks at. What was chosen is told in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanmatch.data import PairTable
from leanmatch.interventions.readers import SidedReaders
from leanmatch.metrics.slices import COLUMN_VALUE, OVERALL, Slice


class PairSample(NamedTuple):
    """Rows whose words are looked at, int64 rising; ``weights``: how many matching rows each stands for;
    ``tokens``: what each model reads for it."""

    rows: NDArray[np.int64]
    weights: NDArray[np.float64]
    sentence: str
    tokens: int


def strata_of(parts: Sequence[Slice], rows: int) -> NDArray[np.int64]:
    """Number the parts that the slices cut a table into: in or out of distribution, by the first column.

    Returns:
        int64 ``(rows,)``; one stratum where there are no slices.
    """
    strata = np.zeros(rows, np.int64)
    columns = [part for part in parts if part.kind == COLUMN_VALUE]
    first = columns[0].name.partition("=")[0] if columns else ""
    for part in parts:
        if part.kind != OVERALL and (part.kind != COLUMN_VALUE or part.name.partition("=")[0] == first):
            strata = strata * 2
            strata[part.rows] += 1
            strata = np.unique(strata, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return strata


def sample_rows(strata: NDArray[np.int64], most: int, seed: int) -> NDArray[np.int64]:
    """At most ``most`` rows at random, each stratum in proportion to its size; rising."""
    if len(strata) <= most:
        return np.arange(len(strata), dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(strata))
    # spread each stratum evenly over 0..1; the first rows of that order are a proportional sample
    spread = np.empty(len(strata))
    for stratum in np.unique(strata):
        own = order[strata[order] == stratum]
        spread[own] = (np.arange(len(own)) + 0.5) / len(own)
    return np.sort(order[np.argsort(spread[order], kind="stable")][:most]).astype(np.int64)


def sample_pairs(
    readers: SidedReaders,
    texts: tuple[Sequence[str], Sequence[str]],
    matching: NDArray[np.int64],
    strata: NDArray[np.int64],
    *,
    max_pairs: int,
    max_words: int,
    budget: int,
    seed: int,
) -> PairSample:
    """Matching pairs for the drift of words: the same number from each stratum, as far as it has them.

    Pairs are taken in turn from each stratum until there are ``max_pairs``, or until intervening on all their
    words would make the model read more than ``budget`` tokens (characters, for a function of texts).

    Args:
        readers: of the model, which tell how long texts are.
        texts: anchors and positives of all rows.
        matching: rows to choose from.
        strata: of all rows.
        max_pairs, max_words, budget, seed: see :class:`~leanmatch.report.options.DiagnoseOptions`.
    """
    order = _in_turn(np.random.default_rng(seed).permutation(matching), strata)[:max_pairs]
    taken, spent, stopped = 0, 0, False
    for start in range(0, len(order), 64):
        some = order[start : start + 64]
        both = [
            reader.read([side[row] for row in some.tolist()], "word")
            for reader, side in zip(readers, texts, strict=True)
        ]
        for anchor, positive in zip(*both, strict=True):
            cost = sum(min(len(r.units), max_words) * len(r.source) for r in (anchor, positive))
            stopped = taken > 0 and spent + cost > budget
            if stopped:
                break
            taken, spent = taken + 1, spent + cost
        if stopped:
            break
    rows = np.sort(order[:taken])
    population = np.bincount(strata[matching], minlength=int(strata.max(initial=0)) + 1)
    drawn = np.bincount(strata[rows], minlength=len(population))
    weights = population[strata[rows]] / drawn[strata[rows]]
    return PairSample(
        rows, weights, _sentence(taken, len(matching), drawn, population, stopped, budget), spent
    )


def _in_turn(rows: NDArray[np.int64], strata: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows in their order, but one of each stratum after the other."""
    turn = np.empty(len(rows), np.int64)
    for stratum in np.unique(strata[rows]):
        own = strata[rows] == stratum
        turn[own] = np.arange(np.count_nonzero(own))
    return rows[np.argsort(turn, kind="stable")]


def _sentence(
    taken: int,
    there: int,
    drawn: NDArray[np.int64],
    population: NDArray[np.int64],
    stopped: bool,
    budget: int,
) -> str:
    if taken == there:
        return f"words: all {there:,} matching pairs"
    strata = int(np.count_nonzero(population))
    text = f"words: a sample of {taken:,} of {there:,} matching pairs"
    if strata > 1:
        sizes = drawn[population > 0]
        text += (
            f", {sizes.min():,} to {sizes.max():,} from each of {strata} parts of the data, weighted so that "
            "the whole is represented"
        )
    return text + (f" (the budget of {budget:,} tokens a model was reached)" if stopped else "")


def occurring(conditions: tuple[str, ...], table: PairTable) -> tuple[str, ...]:
    """Conditions that some row meets: a sample may have lost a rare value."""
    kept = []
    for condition in conditions:
        column, _, value = condition.partition("=")
        if any(str(cell) == value for cell in table.column(column)):
            kept.append(condition)
    return tuple(kept)
