"""Bootstrap intervals over queries: one set of resamples serves every metric and both models.

A resample is a vector of counts, how often each unit (query) was drawn; a statistic that is a ratio of sums
is then two matrix products. Paired: both models see the same resamples. Intervals are bias-corrected and
accelerated (BCa) where the influence of each unit is known, percentile intervals else.

Reference: Efron, Tibshirani: An Introduction to the Bootstrap, 1993, chapters 13 and 14.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError

BLOCK_CELLS = 200_000
"""Counts that are held at once, about; few enough to stay in the cache."""


class Interval(NamedTuple):
    """Both ends of a confidence interval."""

    low: float
    high: float


def check_bootstrap(confidence: float, resamples: int) -> None:
    """Refuse settings that give no interval.

    Raises:
        UsageError: ``confidence`` outside (0, 1), or fewer than 100 resamples.
    """
    if not 0 < confidence < 1:
        raise UsageError(f"confidence is {confidence}", remedy="a number between 0 and 1, usually 0.95")
    if resamples < 100:
        raise UsageError(f"{resamples} bootstrap resamples", remedy="at least 100; 2,000 are usual")


def resample_counts(units: int, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each unit is drawn, blocks of shape ``(some, units)``; every row sums to ``units``.

    >>> block = next(resample_counts(4, 100, seed=0))
    >>> block.shape, set(block.sum(axis=1).tolist())
    ((100, 4), {4.0})
    """
    generator = np.random.default_rng(seed)
    step = max(1, BLOCK_CELLS // max(1, units))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = generator.integers(0, units, (rows, units)) + np.arange(rows)[:, None] * units
        yield np.bincount(drawn.ravel(), minlength=rows * units).reshape(rows, units).astype(np.float64)


def resampled_ratios(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64], *, resamples: int, seed: int
) -> NDArray[np.float64]:
    """Bootstrap samples of ``sum numerators / sum denominators``; a mean has denominators of 1.

    Args:
        numerators: shape ``(units, statistics)``.
        denominators: same shape, above 0.

    Returns:
        shape ``(resamples, statistics)``; columns share their resamples.
    """
    units, statistics = numerators.shape
    both = np.hstack([numerators, denominators])
    sums = np.vstack([counts @ both for counts in resample_counts(units, resamples, seed)])
    return np.asarray(sums[:, :statistics] / sums[:, statistics:])


def ratio_influence(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64]
) -> NDArray[np.float64]:
    """First-order influence of each unit on a ratio of sums; shape ``(units, statistics)``."""
    ratio = numerators.sum(axis=0) / denominators.sum(axis=0)
    return np.asarray((numerators - ratio * denominators) / denominators.mean(axis=0))


def interval(
    samples: NDArray[np.float64],
    value: float,
    *,
    confidence: float,
    influence: NDArray[np.float64] | None = None,
) -> Interval:
    """A confidence interval from bootstrap samples.

    Args:
        samples: shape ``(resamples,)``; NaN (a resample where the statistic is not defined) is left out.
        value: the statistic on the data themselves.
        confidence: 0.95 for a 95% interval.
        influence: of each unit, shape ``(units,)``; with it the interval is BCa, without it percentile.

    Where the samples do not vary the interval is the value alone.
    """
    samples = samples[np.isfinite(samples)]
    if not len(samples) or np.ptp(samples) == 0:
        return Interval(value, value)
    tails = np.array([(1 - confidence) / 2, (1 + confidence) / 2])
    if influence is not None:
        tails = _accelerated(samples, value, influence, tails)
    low, high = np.quantile(samples, tails)
    return Interval(float(low), float(high))


def _accelerated(
    samples: NDArray[np.float64], value: float, influence: NDArray[np.float64], tails: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The BCa levels: ``Phi(z0 + (z0 + z) / (1 - a (z0 + z)))``."""
    normal = NormalDist()
    below = float(np.mean(samples < value) + np.mean(samples == value) / 2)
    below = min(max(below, 0.5 / len(samples)), 1 - 0.5 / len(samples))
    bias = normal.inv_cdf(below)
    spread = float((influence**2).sum())
    acceleration = float((influence**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    shifted = [bias + normal.inv_cdf(float(tail)) for tail in tails]
    return np.array([normal.cdf(bias + z / (1 - acceleration * z)) for z in shifted])
