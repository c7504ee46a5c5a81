"""Round to nearest: codes of 8, 4, 3 or 2 bits with a scale for every group of a row."""

from __future__ import annotations

from dataclasses import dataclass

from leanmatch.errors import UsageError
from leanmatch.factorization.arrays import Float, round_to_codes
from leanmatch.factorization.checks import check_count, check_divides
from leanmatch.factorization.error_metric import ErrorMetric
from leanmatch.factorization.factors import INT_MATRIX_BITS, IntMatrix
from leanmatch.factorization.solved import PLAIN, Solved, solved


@dataclass(frozen=True)
class RoundOptions:
    """Options of :func:`round_to_nearest`.

    Attributes:
        bits: 8, 4, 3 or 2.
        group: columns that share a scale, must divide ``n``; 0 for whole rows.

    Raises:
        UsageError: out of range.
    """

    bits: int = 8
    group: int = 0

    def __post_init__(self) -> None:
        if self.bits not in INT_MATRIX_BITS:
            raise UsageError(
                f"bits {self.bits!r} is not supported",
                remedy=f"one of {', '.join(map(str, INT_MATRIX_BITS))}",
            )
        check_count("group", self.group, 0)


def round_to_nearest(
    weight: Float, options: RoundOptions | None = None, metric: ErrorMetric = PLAIN
) -> Solved:
    """``W ~ q scale``, codes and scales from :func:`leanmatch.factorization.arrays.round_to_codes`.

    The error metric only measures the result.

    Raises:
        UsageError: a group that does not divide ``n``.
    """
    options = options or RoundOptions()
    m, n = weight.shape
    group = options.group or n
    check_divides(group, n)
    metric.check_fits((m, n))
    codes, scale = round_to_codes(weight.reshape(m, n // group, group), options.bits)
    factors = IntMatrix(codes.reshape(m, n), scale, options.bits)
    return solved(f"int{options.bits}", weight, factors, metric)
