"""Compressed against dense on the same held-out queries: the share that is kept, with an interval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


@dataclass(frozen=True)
class Quality:
    """A metric before and after.

    Attributes:
        metric: its name.
        dense: mean over the held-out queries of the dense model.
        compressed: of the compressed one.
        kept: ``compressed / dense``.
        low, high: 95% interval of ``kept`` (paired bootstrap over queries).
        queries: how many.
    """

    metric: str
    dense: float
    compressed: float
    kept: float
    low: float
    high: float
    queries: int

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    def sentence(self) -> str:
        """For people."""
        return (
            f"{self.metric} {self.compressed:.4f} of {self.dense:.4f} on {self.queries:,} held-out queries, "
            f"{self.kept:.1%} kept (95% interval {self.low:.1%} to {self.high:.1%})"
        )


def compare(metric: str, dense: NDArray[np.float64], compressed: NDArray[np.float64]) -> Quality:
    """Quality from the scores of each query, in the same order.

    >>> compare("MRR@10", np.array([1.0, 0.5]), np.array([0.5, 0.5])).kept
    0.6666666666666666
    """
    rng = np.random.default_rng(0)
    counts = len(dense)
    ratios = np.empty(RESAMPLES)
    for place in range(RESAMPLES):
        rows = rng.integers(counts, size=counts)
        below = dense[rows].sum()
        ratios[place] = compressed[rows].sum() / below if below > 0 else 1.0
    low, high = np.quantile(ratios, [0.025, 0.975])
    before, after = float(dense.mean()), float(compressed.mean())
    return Quality(metric, before, after, after / before if before else 1.0, float(low), float(high), counts)
