"""The share of the dense model's metric that a compressed model keeps on held-out queries."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.metrics.bootstrap import interval, ratio_influence, resampled_ratios

RESAMPLES = 2000


@dataclass(frozen=True)
class Quality:
    """A metric before and after.

    Attributes:
        metric: its name.
        dense: mean over the held-out queries of the dense model.
        compressed: of the compressed one.
        kept: ``compressed / dense``.
        low, high: 95% interval of ``kept`` (:mod:`leanmatch.metrics.bootstrap`, paired by query).
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
    before, after = float(dense.mean()), float(compressed.mean())
    kept = after / before if before else 1.0
    pair = compressed[:, None].astype(np.float64), dense[:, None].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # resamples where the dense model scores 0
        ratios = resampled_ratios(*pair, resamples=RESAMPLES, seed=0)[:, 0]
        influence = ratio_influence(*pair)[:, 0]
    low, high = interval(
        ratios, kept, confidence=0.95, influence=influence if np.isfinite(influence).all() else None
    )
    return Quality(metric, before, after, kept, low, high, len(dense))
