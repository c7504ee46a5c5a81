"""Dense-sparse factors ``W_i = S_i D_i`` in float32 and in integers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import DataError
from leanmatch.factorization.arrays import Float, Index, Int8, round_to_codes
from leanmatch.factorization.checks import (
    INDEX_DTYPES,
    check_array,
    check_bits,
    check_codes,
    check_float,
    check_indices,
    check_not_empty,
    check_scale,
    check_shape,
    index_dtype,
)
from leanmatch.factorization.cost import FLOAT_BITS, Cost, dense_sparse_cost

VALUE_BITS = (8, 6, 4)
ATOM_BITS = (8,)


@dataclass(frozen=True, eq=False)
class DenseSparse:
    """Dense-sparse factors: block ``i`` of the columns is ``W_i = S_i D_i``, ``k`` nonzeros a row.

    Attributes:
        atoms: ``D``, float32 ``(B, r, b)``, of any norm.
        indices: which atoms, uint8 or uint16 ``(m, B, k)``, distinct within a row and block.
        values: their coefficients, float32 ``(m, B, k)``.
        identity: the atoms are the columns themselves (``D_i = I``, ``r = b``): N:M pruning. They cost
            nothing and need not be stored; :meth:`with_identity` makes them.

    Raises:
        DataError: shapes that do not fit, indices out of range or repeated, values that are not finite.
    """

    atoms: Float
    indices: Index
    values: Float
    identity: bool = False

    def __post_init__(self) -> None:
        check_float("atoms", self.atoms, ("B", "r", "b"))
        check_float("values", self.values, ("m", "B", "k"))
        _check_support(self.indices, self.values.shape, self.atoms.shape)
        if self.identity and not (self.atoms == np.eye(self.block, dtype=np.float32)).all():
            raise DataError("atoms must be identity matrices where identity=True (found others)")

    @classmethod
    def with_identity(cls, indices: Index, values: Float, block: int) -> DenseSparse:
        """Row-balanced N:M pruning: ``indices (m, B, k)`` are columns within a block of ``block`` columns."""
        check_array("indices", indices, ("m", "B", "k"), INDEX_DTYPES)
        return cls(identity_atoms(indices.shape[1], block), indices, values, identity=True)

    @property
    def shape(self) -> tuple[int, int]:
        """``(m, n)``."""
        return self.indices.shape[0], self.atoms.shape[0] * self.atoms.shape[2]

    @property
    def block_count(self) -> int:
        """``B``, the blocks of columns."""
        return int(self.atoms.shape[0])

    @property
    def atom_count(self) -> int:
        """``r``, atoms per block."""
        return int(self.atoms.shape[1])

    @property
    def block(self) -> int:
        """``b``, columns per block."""
        return int(self.atoms.shape[2])

    @property
    def nonzeros(self) -> int:
        """``k``, nonzeros per row and block."""
        return int(self.indices.shape[2])

    def dense(self) -> Float:
        """``W_i = S_i D_i``, the blocks side by side."""
        return decode_reference(self.indices, self.values, self.atoms).astype(np.float32)

    def cost(self, float_bits: int = FLOAT_BITS, *, shared_atoms: bool = False) -> Cost:
        """:func:`leanmatch.factorization.cost.dense_sparse_cost` with atoms and values of ``float_bits``."""
        return dense_sparse_cost(
            *self.shape,
            self.block,
            self.atom_count,
            self.nonzeros,
            float_bits=float_bits,
            identity=self.identity,
            shared_atoms=shared_atoms,
        )

    def quantize(self, value_bits: int = 8, atom_bits: int = 8) -> QuantizedDenseSparse:
        """Round to integer codes: one scale for each atom, one for each row's coefficients.

        The largest of each gets the largest code. Identity atoms stay exact: codes 0 and 1, scale 1.

        Raises:
            UsageError: bits that are not supported.
        """
        check_bits("value_bits", value_bits, VALUE_BITS)
        check_bits("atom_bits", atom_bits, ATOM_BITS)
        m = self.values.shape[0]
        values_q, values_scale = round_to_codes(
            self.values.reshape(m, self.block_count * self.nonzeros), value_bits
        )
        if self.identity:
            atoms_q, atoms_scale = self.atoms.astype(np.int8), np.ones(self.atoms.shape[:2], np.float32)
        else:
            atoms_q, atoms_scale = round_to_codes(self.atoms, atom_bits)
        return QuantizedDenseSparse(
            atoms_q=atoms_q,
            atoms_scale=atoms_scale,
            indices=self.indices,
            values_q=values_q.reshape(self.values.shape),
            values_scale=values_scale,
            value_bits=value_bits,
            atom_bits=atom_bits,
            identity=self.identity,
        )


@dataclass(frozen=True, eq=False)
class QuantizedDenseSparse:
    """Dense-sparse factors in integers.

    ``atoms = atoms_q * atoms_scale[..., None]`` and ``values = values_q * values_scale[:, None, None]``.

    Attributes:
        atoms_q: int8 ``(B, r, b)``.
        atoms_scale: float32 ``(B, r)``, above 0.
        indices: uint8 or uint16 ``(m, B, k)``, distinct within a row and block.
        values_q: int8 ``(m, B, k)``, at most ``2^(value_bits-1) - 1`` in size.
        values_scale: float32 ``(m,)``, above 0.
        value_bits: 8, 6 or 4.
        atom_bits: 8.
        identity: as in :class:`DenseSparse`; neither atoms nor their scales are counted.

    Raises:
        DataError: shapes that do not fit, codes, scales or indices out of range.
        UsageError: bits that are not supported.
    """

    atoms_q: Int8
    atoms_scale: Float
    indices: Index
    values_q: Int8
    values_scale: Float
    value_bits: int = 8
    atom_bits: int = 8
    identity: bool = False

    def __post_init__(self) -> None:
        check_bits("value_bits", self.value_bits, VALUE_BITS)
        check_bits("atom_bits", self.atom_bits, ATOM_BITS)
        check_array("atoms_q", self.atoms_q, ("B", "r", "b"), (np.int8,))
        check_array("values_q", self.values_q, ("m", "B", "k"), (np.int8,))
        check_array("atoms_scale", self.atoms_scale, ("B", "r"), (np.float32,))
        check_array("values_scale", self.values_scale, ("m",), (np.float32,))
        check_not_empty("atoms_q", self.atoms_q, ("B", "r", "b"))
        check_not_empty("values_q", self.values_q, ("m", "B", "k"))
        check_shape("atoms_scale", self.atoms_scale, self.atoms_q.shape[:2], "(B, r)")
        check_shape("values_scale", self.values_scale, self.values_q.shape[:1], "(m,)")
        check_scale("atoms_scale", self.atoms_scale)
        check_scale("values_scale", self.values_scale)
        check_codes("atoms_q", self.atoms_q, self.atom_bits)
        check_codes("values_q", self.values_q, self.value_bits)
        _check_support(self.indices, self.values_q.shape, self.atoms_q.shape)
        if self.identity and not (
            (self.atoms_q == np.eye(self.block, dtype=np.int8)).all() and (self.atoms_scale == 1).all()
        ):
            raise DataError("atoms must be identity matrices of scale 1 where identity=True (found others)")

    @property
    def shape(self) -> tuple[int, int]:
        """``(m, n)``."""
        return self.indices.shape[0], self.atoms_q.shape[0] * self.atoms_q.shape[2]

    @property
    def block_count(self) -> int:
        """``B``, the blocks of columns."""
        return int(self.atoms_q.shape[0])

    @property
    def atom_count(self) -> int:
        """``r``, atoms per block."""
        return int(self.atoms_q.shape[1])

    @property
    def block(self) -> int:
        """``b``, columns per block."""
        return int(self.atoms_q.shape[2])

    @property
    def nonzeros(self) -> int:
        """``k``, nonzeros per row and block."""
        return int(self.indices.shape[2])

    def dequantize(self) -> DenseSparse:
        """The float32 factors that the codes stand for."""
        values = self.values_q * self.values_scale[:, None, None]
        if self.identity:
            return DenseSparse.with_identity(self.indices, values, self.block)
        return DenseSparse(self.atoms_q * self.atoms_scale[..., None], self.indices, values)

    def dense(self) -> Float:
        """What the codes stand for, as one matrix."""
        return self.dequantize().dense()

    def cost(self, float_bits: int = FLOAT_BITS, *, shared_atoms: bool = False) -> Cost:
        """As :meth:`DenseSparse.cost` with the bits of codes and scales; ``float_bits`` changes nothing."""
        return dense_sparse_cost(
            *self.shape,
            self.block,
            self.atom_count,
            self.nonzeros,
            value_bits=self.value_bits,
            atom_bits=self.atom_bits,
            identity=self.identity,
            shared_atoms=shared_atoms,
        )


def _check_support(indices: Index, values: tuple[int, ...], atoms: tuple[int, ...]) -> None:
    check_array("indices", indices, ("m", "B", "k"), INDEX_DTYPES)
    check_shape("indices", indices, values, "(m, B, k), that of values")
    if indices.shape[1] != atoms[0]:
        raise DataError(
            f"indices (m, B, k) and atoms (B, r, b) must share B (found {indices.shape} and {atoms})"
        )
    index_dtype(atoms[1])
    check_indices("indices", indices, atoms[1])


def identity_atoms(blocks: int, block: int) -> Float:
    """Atoms of N:M pruning, ``(B, b, b)``: one identity matrix, seen ``B`` times."""
    return np.broadcast_to(np.eye(block, dtype=np.float32), (blocks, block, block))


def decode_reference(
    indices: Index, values: NDArray[np.floating], atoms: NDArray[np.floating]
) -> NDArray[np.float64]:
    """``W (m, n)`` in float64, slow and obvious: ``W[:, block i] = sum_j values_j atoms[i, index_j]``."""
    m, blocks, nonzeros = indices.shape
    block = atoms.shape[2]
    weight = np.zeros((m, blocks, block))
    for i in range(blocks):
        for j in range(nonzeros):
            weight[:, i] += values[:, i, j, None].astype(np.float64) * atoms[i, indices[:, i, j]]
    return weight.reshape(m, blocks * block)
