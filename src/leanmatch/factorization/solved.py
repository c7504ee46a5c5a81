"""What every solver returns: the factors, and how well they approximate the matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.factorization.error_metric import ErrorMetric
from leanmatch.factorization.factors import Factors

PLAIN = ErrorMetric()


@dataclass(frozen=True)
class Report:
    """How an approximation came out.

    Attributes:
        method: the solver's name.
        relative_error: ``|W - W^|^2 / |W|^2``.
        weighted_error: the same in the error metric; None where that is the plain one.
        iterations: those of the solver; 1 where it needs none.
        history: relative squared errors in the solver's own metric, after each iteration.
    """

    method: str
    relative_error: float
    weighted_error: float | None = None
    iterations: int = 1
    history: tuple[float, ...] = ()


@dataclass(frozen=True)
class Solved:
    """The factors of a matrix and their :class:`Report`."""

    factors: Factors
    report: Report


def solved(
    method: str,
    weight: NDArray[np.float32],
    factors: Factors,
    metric: ErrorMetric,
    history: tuple[float, ...] = (),
) -> Solved:
    """Measure the factors against the matrix."""
    dense = factors.dense()
    weighted = None if metric.plain else metric.error(weight, dense)
    error = PLAIN.error(weight, dense)
    return Solved(factors, Report(method, error, weighted, max(1, len(history)), history))
