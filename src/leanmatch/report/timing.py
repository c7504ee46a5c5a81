"""How much of the words a diagnosis can look at in the time that it is given."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.interventions import importance
from leanmatch.interventions.readers import SidedReaders
from leanmatch.report.options import DiagnoseOptions

MOST_BUDGET = 600_000
"""Tokens of each model beyond which intervals hardly get narrower."""
LEAST_BUDGET = 2_000
LEAST_SHOWN = 20
PROBED_PAIRS, PROBED_WORDS = 8, 6


@dataclass(frozen=True)
class Pace:
    """Seconds in which both models read one token of edited texts, and tokens that a pair's words take."""

    seconds: float
    tokens_a_pair: float


def measure_pace(
    readers: Sequence[SidedReaders],
    texts: tuple[Sequence[str], Sequence[str]],
    matching: NDArray[np.int64],
    options: DiagnoseOptions,
) -> Pace:
    """Look at the words of a few pairs with each model, by the clock."""
    rows = np.random.default_rng(options.seed + 1).permutation(matching)[:PROBED_PAIRS].tolist()
    sides = [[side[row] for row in rows] for side in texts]
    readings = [
        reading
        for reader, side in zip(readers[0], sides, strict=True)
        for reading in reader.read(side, "word")
    ]

    def tokens(most: int) -> int:
        return sum(min(len(reading.units), most) * len(reading.source) for reading in readings)

    seconds = 0.0
    for sided in readers:
        for some in (1, len(rows)):  # the first pair warms up
            begun = time.perf_counter()
            importance(
                sided,
                sides[0][:some],
                sides[1][:some],
                intervention=options.intervention,
                max_units=PROBED_WORDS,
                seed=options.seed + 1,
            )
            spent = time.perf_counter() - begun
        seconds += spent
    return Pace(seconds / max(1, tokens(PROBED_WORDS)), tokens(options.max_words) / max(1, len(rows)))


def timed_budget(pace: Pace, minutes: float) -> int:
    """Tokens of each model for the words of sampled pairs: all of the time but a third, for the shown pairs.

    >>> timed_budget(Pace(0.0004, 1000.0), 3.0), timed_budget(Pace(1e-9, 10.0), 3.0)
    (300000, 600000)
    """
    budget = 40 * minutes / max(pace.seconds, 1e-12)
    return int(float(f"{min(MOST_BUDGET, max(LEAST_BUDGET, budget)):.2g}"))


def timed_shown(pace: Pace, minutes: float, wanted: int) -> int:
    """Pairs of the explorer whose words can be looked at in a third of the time.

    >>> timed_shown(Pace(0.0004, 1000.0), 3.0, 200), timed_shown(Pace(0.01, 1000.0), 3.0, 200)
    (150, 20)
    """
    most = 20 * minutes / max(pace.seconds * pace.tokens_a_pair, 1e-12)
    return min(wanted, max(LEAST_SHOWN, int(float(f"{min(most, 1e9):.2g}"))))
