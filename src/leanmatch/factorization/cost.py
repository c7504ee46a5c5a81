"""What a matrix costs: multiply-adds per token and stored bits. Every count of either comes from here.

Bits are those of an artifact: integer codes and indices are packed to their last bit, and every group of
codes has a scale of 16 bits. Axis names everywhere: ``m`` outputs, ``n`` inputs, ``b`` columns per block,
``B = n / b`` blocks, ``r`` atoms per block, ``k`` nonzeros per row and block.
"""

from __future__ import annotations

from dataclasses import dataclass

FLOAT_BITS = 32
"""Bits of a float32 value."""
STORED_FLOAT_BITS = 16
"""Bits of a float in an artifact, where rounding it to float16 loses next to nothing."""
SCALE_BITS = 16
"""Bits of a scale of integer codes. An artifact falls back to 32 for scales that float16 cannot hold."""
WIDTH_BITS = 2
"""Bits that say how many bits a row has (:class:`leanmatch.factorization.factors.MixedIntMatrix`)."""


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


def dense_cost(m: int, n: int, *, float_bits: int = FLOAT_BITS) -> Cost:
    """Cost of a matrix of floats: ``macs = m n``, ``bits = m n float_bits``."""
    return Cost(macs=m * n, bits=m * n * float_bits)


def int_cost(m: int, n: int, *, bits: int, group: int) -> Cost:
    """Cost of integer codes with a scale for every ``group`` columns of a row.

    ``macs = m n``, ``bits = m n bits + 16 m n / group``.

    >>> int_cost(4, 64, bits=4, group=32).bits
    1152
    """
    return Cost(macs=m * n, bits=m * n * bits + SCALE_BITS * m * (n // group))


def mixed_cost(m: int, n: int, row_bits: int) -> Cost:
    """Cost of integer codes with a scale and a number of bits for each row.

    ``macs = m n``, ``bits = n row_bits + (16 + 2) m``; ``row_bits`` is the sum over all rows.

    >>> mixed_cost(10, 8, 25).bits
    380
    """
    return Cost(macs=m * n, bits=n * row_bits + (SCALE_BITS + WIDTH_BITS) * m)


def low_rank_cost(m: int, n: int, rank: int, *, value_bits: int | None = None) -> Cost:
    """Cost of ``W = left right`` with ``left (m, q)`` and ``right (q, n)``: ``macs = q (m + n)``.

    Args:
        m, n, rank: sizes; ``q`` is the rank.
        value_bits: of integer codes with a scale for each row of both factors; None for floats.
    """
    if value_bits is None:
        return dense_cost(m, rank) + dense_cost(rank, n)
    return int_cost(m, rank, bits=value_bits, group=rank) + int_cost(rank, n, bits=value_bits, group=n)


def dense_sparse_cost(
    m: int,
    n: int,
    b: int,
    r: int,
    k: int,
    *,
    value_bits: int | None = None,
    atom_bits: int = 8,
    float_bits: int = FLOAT_BITS,
    identity: bool = False,
    shared_atoms: bool = False,
) -> Cost:
    """Cost of ``W_i = S_i D_i``, without making one.

    ``macs = n r + m k n/b``. Floats take ``bits = n r float_bits + m (n/b) k (float_bits + ceil(log2 r))``;
    integer codes take ``n r atom_bits + m (n/b) k (value_bits + ceil(log2 r)) + 16 (m + r n/b)``.

    Args:
        m, n, b, r, k: sizes, see the module.
        value_bits: of integer codes, with a scale for each row of values and for each atom; None for floats.
        atom_bits: of the atoms' integer codes.
        float_bits: of each float.
        identity: the atoms are unit vectors (``r = b``, N:M pruning). They cost nothing.
        shared_atoms: another layer of the same stack pays for the atoms and their products.

    >>> dense_sparse_cost(384, 384, 16, 64, 4).macs / (384 * 384)
    0.4166666666666667
    """
    blocks = n // b
    nonzeros = m * blocks * k
    atoms = 0 if identity or shared_atoms else blocks * r
    if value_bits is None:
        bits = atoms * b * float_bits + nonzeros * (float_bits + index_bits(r))
    else:
        bits = atoms * (b * atom_bits + SCALE_BITS)
        bits += nonzeros * (value_bits + index_bits(r)) + SCALE_BITS * m
    return Cost(macs=atoms * b + nonzeros, bits=bits)
