"""A weight matrix ``W (m, n)`` in each form that leanmatch knows: checked arrays with their exact cost.

Every form has ``shape``, ``dense()`` (float32, what it stands for) and ``cost()``. The arrays are taken as
they are, not copied, and must not be changed afterwards. :mod:`leanmatch.factorization.cost` names the axes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import DataError
from leanmatch.factorization.arrays import Float, Int8
from leanmatch.factorization.checks import (
    check_array,
    check_bits,
    check_codes,
    check_float,
    check_not_empty,
    check_scale,
)
from leanmatch.factorization.cost import FLOAT_BITS, Cost, dense_cost, int_cost, mixed_cost
from leanmatch.factorization.dense_sparse import DenseSparse, QuantizedDenseSparse

__all__ = [
    "Dense",
    "DenseSparse",
    "Factors",
    "IntMatrix",
    "LowRank",
    "MixedIntMatrix",
    "QuantizedDenseSparse",
]

INT_MATRIX_BITS = (8, 4, 3, 2)
ROW_BITS = (2, 3, 4, 6)
"""Bits that a row of a :class:`MixedIntMatrix` can have."""


@dataclass(frozen=True, eq=False)
class Dense:
    """The matrix itself: ``weight`` float32 ``(m, n)``.

    Raises:
        DataError: wrong dtype or axes, no columns, values that are not finite.
    """

    weight: Float

    def __post_init__(self) -> None:
        check_float("weight", self.weight, ("m", "n"))

    @property
    def shape(self) -> tuple[int, int]:
        """``(m, n)``."""
        return self.weight.shape[0], self.weight.shape[1]

    def dense(self) -> Float:
        """The weight."""
        return self.weight

    def cost(self, float_bits: int = FLOAT_BITS) -> Cost:
        """:func:`leanmatch.factorization.cost.dense_cost`."""
        return dense_cost(*self.shape, float_bits=float_bits)


@dataclass(frozen=True, eq=False)
class IntMatrix:
    """Integer codes with a scale for every group of a row: ``W[:, g] = q[:, g] * scale[:, g]``.

    Attributes:
        q: int8 ``(m, n)``: -127 to 127 with 8 bits, -7 to 7 with 4; with 3 bits the odd numbers from -7 to 7,
            with 2 bits those from -3 to 3.
        scale: float32 ``(m, n / group)``, above 0; column ``j`` belongs to group ``j // group``.
        bits: 8, 4, 3 or 2.

    Raises:
        DataError: shapes that do not fit, codes or scales out of range.
        UsageError: other ``bits``.
    """

    q: Int8
    scale: Float
    bits: int = 8

    def __post_init__(self) -> None:
        check_bits("bits", self.bits, INT_MATRIX_BITS)
        check_array("q", self.q, ("m", "n"), (np.int8,))
        check_array("scale", self.scale, ("m", "groups"), (np.float32,))
        check_not_empty("q", self.q, ("m", "n"))
        check_not_empty("scale", self.scale, ("m", "groups"))
        m, n = self.q.shape
        if self.scale.shape[0] != m or n % self.scale.shape[1]:
            raise DataError(
                f"scale must have the shape (m, n / group) for q of {self.q.shape} (found {self.scale.shape})"
            )
        check_codes("q", self.q, self.bits)
        check_scale("scale", self.scale)

    @property
    def shape(self) -> tuple[int, int]:
        """``(m, n)``."""
        return self.q.shape[0], self.q.shape[1]

    @property
    def group(self) -> int:
        """Columns that share a scale."""
        return int(self.q.shape[1] // self.scale.shape[1])

    def dense(self) -> Float:
        """``q * scale``."""
        return np.multiply(self.q, np.repeat(self.scale, self.group, axis=1), dtype=np.float32)

    def cost(self, float_bits: int = FLOAT_BITS) -> Cost:
        """:func:`leanmatch.factorization.cost.int_cost`; ``float_bits`` changes nothing here."""
        return int_cost(*self.shape, bits=self.bits, group=self.group)


@dataclass(frozen=True, eq=False)
class MixedIntMatrix:
    """Odd integer codes with a scale and a number of bits for each row: ``W[t] = q[t] * scale[t]``.

    Attributes:
        q: int8 ``(m, n)``: in a row of ``b`` bits the odd numbers from ``1 - 2^b`` to ``2^b - 1``.
        scale: float32 ``(m,)``, above 0.
        row_bits: uint8 ``(m,)``, each 2, 3, 4 or 6.

    Raises:
        DataError: shapes that do not fit, codes, scales or bits out of range.
    """

    q: Int8
    scale: Float
    row_bits: NDArray[np.uint8]

    def __post_init__(self) -> None:
        check_array("q", self.q, ("m", "n"), (np.int8,))
        check_not_empty("q", self.q, ("m", "n"))
        check_array("scale", self.scale, ("m",), (np.float32,))
        check_array("row_bits", self.row_bits, ("m",), (np.uint8,))
        for name, array in (("scale", self.scale), ("row_bits", self.row_bits)):
            if len(array) != len(self.q):
                raise DataError(
                    f"{name} must have one entry for each of {len(self.q)} rows (found {len(array)})"
                )
        check_scale("scale", self.scale)
        wrong = np.flatnonzero(~np.isin(self.row_bits, ROW_BITS))
        if wrong.size:
            raise DataError(
                f"row_bits must be one of {', '.join(map(str, ROW_BITS))} "
                f"(found {int(self.row_bits[wrong[0]])} in row {int(wrong[0])})"
            )
        most = (1 << self.row_bits.astype(np.int16)) - 1
        beyond = np.flatnonzero(np.abs(self.q.astype(np.int16)).max(axis=1) > most)
        if beyond.size:
            row = int(beyond[0])
            raise DataError(
                f"q of {int(self.row_bits[row])} bits must lie between {-most[row]} and {most[row]} "
                f"(found {int(self.q[row].min())} to {int(self.q[row].max())} in row {row})"
            )
        even = np.flatnonzero((self.q & 1 == 0).any(axis=1))
        if even.size:
            raise DataError(f"q must be odd (found an even number in row {int(even[0])})")

    @property
    def shape(self) -> tuple[int, int]:
        """``(m, n)``."""
        return self.q.shape[0], self.q.shape[1]

    @property
    def average_bits(self) -> float:
        """Mean of ``row_bits``."""
        return float(self.row_bits.mean())

    def as_int8(self) -> IntMatrix:
        """The same matrix with 8 bits in every row."""
        return IntMatrix(self.q, self.scale[:, None])

    def dense(self) -> Float:
        """``q * scale``."""
        return self.as_int8().dense()

    def cost(self, float_bits: int = FLOAT_BITS) -> Cost:
        """:func:`leanmatch.factorization.cost.mixed_cost`; ``float_bits`` changes nothing here."""
        m, n = self.shape
        return mixed_cost(m, n, int(self.row_bits.sum()))


@dataclass(frozen=True, eq=False)
class LowRank:
    """``W = left right``: ``left (m, q)``, ``right (q, n)``, each a float32 array or an :class:`IntMatrix`.

    Raises:
        DataError: inner sizes that differ, wrong dtype, values that are not finite.
    """

    left: Float | IntMatrix
    right: Float | IntMatrix

    def __post_init__(self) -> None:
        for name, part, axes in (("left", self.left, ("m", "q")), ("right", self.right, ("q", "n"))):
            if not isinstance(part, IntMatrix):
                check_float(name, part, axes)
        if self.left.shape[1] != self.right.shape[0]:
            raise DataError(
                f"left (m, q) and right (q, n) must share q (found {self.left.shape} and {self.right.shape})"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """``(m, n)``."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def rank(self) -> int:
        """``q``, the columns of ``left``."""
        return int(self.left.shape[1])

    def dense(self) -> Float:
        """``left right``."""
        weight: Float = _plain(self.left) @ _plain(self.right)
        return weight

    def cost(self, float_bits: int = FLOAT_BITS) -> Cost:
        """``macs = q (m + n)``; bits of both parts."""
        return _part_cost(self.left, float_bits) + _part_cost(self.right, float_bits)


def _plain(part: Float | IntMatrix) -> Float:
    return part.dense() if isinstance(part, IntMatrix) else part


def _part_cost(part: Float | IntMatrix, float_bits: int) -> Cost:
    if isinstance(part, IntMatrix):
        return part.cost()
    return dense_cost(part.shape[0], part.shape[1], float_bits=float_bits)


Factors: TypeAlias = Dense | IntMatrix | MixedIntMatrix | LowRank | DenseSparse | QuantizedDenseSparse
"""Any form of a matrix."""
