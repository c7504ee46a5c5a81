"""What every solver returns: the factors, and how good they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError
from leanmatch.factorization.baselines.product_codes import ProductCodes
from leanmatch.factorization.calibration import Calibration
from leanmatch.factorization.factors import Factors

PLAIN = Calibration()


@dataclass(frozen=True)
class Report:
    """How an approximation came out.

    Attributes:
        method: the solver's name.
        relative_error: ``|W - W^|^2 / |W|^2``.
        weighted_error: the same with the calibration's weights; None where there was no calibration.
        iterations: rounds of the solver; 1 for those that need no iteration.
        history: relative squared errors in the solver's own metric, round by round.
    """

    method: str
    relative_error: float
    weighted_error: float | None = None
    iterations: int = 1
    history: tuple[float, ...] = ()


@dataclass(frozen=True)
class Solved:
    """The factors of a matrix and their :class:`Report`."""

    factors: Factors | ProductCodes
    report: Report


def solved(
    method: str,
    weight: NDArray[np.float32],
    factors: Factors | ProductCodes,
    calibration: Calibration,
    history: tuple[float, ...] = (),
) -> Solved:
    """Measure the factors against the matrix."""
    dense = factors.dense()
    weighted = None if calibration.empty else calibration.error(weight, dense)
    error = PLAIN.error(weight, dense)
    return Solved(factors, Report(method, error, weighted, max(1, len(history)), history))


def check_count(name: str, value: int, low: int, high: int | None = None) -> None:
    """A whole number of an option.

    Raises:
        UsageError: it is out of range.
    """
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise UsageError(f"{name} must be {limits} (found {value!r})")


def check_divides(width: int, n: int) -> None:
    """Blocks of ``width`` columns fill the matrix.

    Raises:
        UsageError: they do not.
    """
    if width < 1 or n % width:
        fitting = [size for size in range(1, min(n, 256) + 1) if n % size == 0]
        raise UsageError(
            f"the width of a block must divide the {n} columns (found {width!r})",
            remedy=f"one of {', '.join(map(str, fitting))}",
        )
