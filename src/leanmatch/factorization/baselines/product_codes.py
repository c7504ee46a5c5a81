"""The form of a product-quantized matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leanmatch.errors import DataError
from leanmatch.factorization.arrays import Float, Index
from leanmatch.factorization.checks import INDEX_DTYPES, check_array, check_float
from leanmatch.factorization.cost import FLOAT_BITS, Cost, product_cost


@dataclass(frozen=True, eq=False)
class ProductCodes:
    """``W[row, block i] = codewords[i, indices[row, i]]``: dense-sparse factors whose one value a row is 1.

    Attributes:
        codewords: float32 ``(B, r, b)``.
        indices: uint8 or uint16 ``(m, B)``.

    Raises:
        DataError: shapes that do not fit, indices out of range.
    """

    codewords: Float
    indices: Index

    def __post_init__(self) -> None:
        check_float("codewords", self.codewords, ("B", "r", "b"))
        check_array("indices", self.indices, ("m", "B"), INDEX_DTYPES)
        if self.indices.shape[1] != self.codewords.shape[0]:
            raise DataError(
                f"indices (m, B) and codewords (B, r, b) must share B (found {self.indices.shape} and "
                f"{self.codewords.shape})"
            )
        if self.indices.size and int(self.indices.max()) >= self.codewords.shape[1]:
            raise DataError(
                f"indices must be below {self.codewords.shape[1]} (found {int(self.indices.max())})"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """``(m, n)``."""
        return self.indices.shape[0], self.codewords.shape[0] * self.codewords.shape[2]

    def dense(self) -> Float:
        """The codewords in place, float32 ``(m, n)``."""
        chosen: Float = self.codewords[np.arange(self.codewords.shape[0]), self.indices.astype(np.int64)]
        return chosen.reshape(self.shape)

    def cost(self, float_bits: int = FLOAT_BITS) -> Cost:
        """:func:`leanmatch.factorization.cost.product_cost`."""
        _, r, b = self.codewords.shape
        return product_cost(*self.shape, b, r, float_bits=float_bits)
