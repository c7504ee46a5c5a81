"""What a matrix costs: multiply-adds per token and stored bits, exactly. Index bits always count.

Axis names of the whole package: ``m`` outputs, ``n`` inputs, ``b`` columns per block, ``B = n / b`` blocks,
``r`` atoms per block, ``k`` nonzeros per row and block.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT_BITS = 32
"""Bits of a value that is kept as float32; the scales of integer codes are always float32."""


@dataclass(frozen=True)
class Cost:
    """Multiply-adds per token and stored bits of one matrix; costs add up over the layers of a model.

    Attributes:
        macs: multiply-adds for one input vector.
        bits: everything that must be stored: values, atoms, indices, scales.

    >>> Cost(macs=10, bits=12) + Cost(macs=1, bits=1)
    Cost(macs=11, bits=13)
    >>> Cost(macs=11, bits=13).bytes
    2
    """

    macs: int
    bits: int

    @property
    def bytes(self) -> int:
        """Whole bytes that hold the bits."""
        return -(-self.bits // 8)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.bits + other.bits)


def index_bits(choices: int) -> int:
    """Bits that name one of ``choices`` things: ``ceil(log2 choices)``.

    >>> [index_bits(choices) for choices in (1, 2, 3, 64, 65)]
    [0, 1, 2, 6, 7]
    """
    return (choices - 1).bit_length()


def dense_sparse_cost(
    m: int,
    n: int,
    b: int,
    r: int,
    k: int,
    *,
    atom_bits: int = FLOAT_BITS,
    value_bits: int = FLOAT_BITS,
    scales: int = 0,
    identity: bool = False,
) -> Cost:
    """Cost of ``W_i = S_i D_i``, without making one.

    ``macs = n r + m k n/b`` and ``bits = n r atom_bits + m (n/b) k (value_bits + ceil(log2 r)) + 32 scales``.
    With ``identity`` atoms (``r = b``, N:M pruning) the first term of each is gone.

    >>> dense_sparse_cost(384, 384, 16, 64, 4).macs / (384 * 384)
    0.4166666666666667
    """
    nonzeros = m * (n // b) * k
    stage_one = 0 if identity else n * r
    bits = stage_one * atom_bits + nonzeros * (value_bits + index_bits(r)) + scales * FLOAT_BITS
    return Cost(macs=stage_one + nonzeros, bits=bits)
