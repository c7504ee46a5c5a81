"""Each form of a matrix as fields of JSON and tensors, and back. One table, :data:`FORMS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import FormatError, LeanmatchError
from leanmatch.factorization import (
    Dense,
    DenseSparse,
    Factors,
    IntMatrix,
    LowRank,
    MixedIntMatrix,
    QuantizedDenseSparse,
)
from leanmatch.factorization.arrays import ODD_BITS
from leanmatch.factorization.checks import MOST_ATOMS, index_dtype
from leanmatch.factorization.cost import WIDTH_BITS, index_bits
from leanmatch.factorization.dense_sparse import ATOM_BITS, VALUE_BITS, identity_atoms
from leanmatch.factorization.factors import INT_MATRIX_BITS, ROW_BITS
from leanmatch.formats.artifact.bit_packing import odd, pack, pack_odd, signed
from leanmatch.formats.artifact.fields import MOST_SIZE, Array, Fields, Tensors
from leanmatch.formats.artifact.halves import stored, stored_scales

Encoded: TypeAlias = tuple[dict[str, Any], dict[str, Array]]
"""JSON fields and tensors by their last name."""

Names: TypeAlias = Callable[[str], str]
"""From a tensor's last name to its whole one."""

SHARED = ("atoms", "atoms_scale")
"""Tensors that the members of a stack have in common."""

MOST_IDENTITY = 1 << 22
"""``n b`` of a matrix with identity atoms, which no file's size bounds."""


@dataclass(frozen=True)
class Form:
    """How one class of :mod:`leanmatch.factorization` is stored.

    ``decode`` takes the fields, the tensors, the names of theirs, and the shape ``(m, n)``.
    """

    factors: type[Any]
    encode: Callable[[Any], Encoded]
    decode: Callable[[Fields, Tensors, Names, tuple[int, int]], Factors]


def encode(factors: Factors) -> Encoded:
    """Fields (with ``form`` and ``shape``) and tensors of a matrix.

    Raises:
        FormatError: a class that :data:`FORMS` does not know.
    """
    for name, form in FORMS.items():
        if type(factors) is form.factors:
            fields, tensors = form.encode(factors)
            return {"form": name, "shape": list(factors.shape), **fields}, tensors
    storable = ", ".join(form.factors.__name__ for form in FORMS.values())
    raise FormatError(
        f"a {type(factors).__name__} has no form in the artifact", remedy=f"use one of {storable}"
    )


def has_odd_codes(fields: Mapping[str, Any]) -> bool:
    """Whether a layer's codes are odd: 2 or 3 bits, also in low-rank factors, or rows that differ in bits."""
    if fields.get("form") == "int-mixed":
        return True
    parts = (fields, fields.get("left", {}), fields.get("right", {}))
    return any(part.get("bits") in ODD_BITS for part in parts)


def decode(fields: Fields, tensors: Tensors, names: Names) -> Factors:
    """The inverse of :func:`encode`.

    Raises:
        FormatError: fields or tensors that do not fit one another, or values out of range.
    """
    form = FORMS[fields.choice("form", FORMS)]
    m, n = fields.sizes("shape", 2)
    try:
        return form.decode(fields, tensors, names, (m, n))
    except FormatError:
        raise
    except LeanmatchError as error:  # the factors check their own values
        raise FormatError(f"{fields.where}: {error.problem}") from error


def _encode_dense(factors: Dense) -> Encoded:
    return {}, {"weight": stored(factors.weight)}


def _decode_dense(fields: Fields, tensors: Tensors, names: Names, shape: tuple[int, int]) -> Factors:
    return Dense(tensors.floats(names("weight"), shape))


def _encode_int(factors: IntMatrix, name: str = "q") -> Encoded:
    packed = pack_odd if factors.bits in ODD_BITS else pack
    q = factors.q if factors.bits == 8 else packed(factors.q, factors.bits)
    fields = {"bits": factors.bits, "group": factors.group}
    return fields, {name: np.ascontiguousarray(q), f"{name}_scale": stored_scales(factors.scale)}


def _decode_int(
    fields: Fields, tensors: Tensors, names: Names, shape: tuple[int, int], name: str = "q"
) -> IntMatrix:
    bits = fields.choice("bits", INT_MATRIX_BITS)
    group = fields.whole("group", 1, shape[1])
    if shape[1] % group:
        raise FormatError(f"{fields.where}: groups of {group} do not divide {shape[1]} columns")
    q = _codes(tensors, names(name), shape, bits)
    if bits in ODD_BITS:
        q = odd(q)
    scale = tensors.floats(names(f"{name}_scale"), (shape[0], shape[1] // group))
    return IntMatrix(q, scale, bits)


def _encode_mixed(factors: MixedIntMatrix) -> Encoded:
    tensors: dict[str, Array] = {
        f"q{bits}": pack_odd(factors.q[factors.row_bits == bits], bits)
        for bits in ROW_BITS
        if (factors.row_bits == bits).any()
    }
    names = np.searchsorted(ROW_BITS, factors.row_bits).astype(np.uint8)
    return {}, {**tensors, "row_bits": pack(names, WIDTH_BITS), "q_scale": stored_scales(factors.scale)}


def _decode_mixed(fields: Fields, tensors: Tensors, names: Names, shape: tuple[int, int]) -> MixedIntMatrix:
    m, n = shape
    widths = tensors.packed(names("row_bits"), m, WIDTH_BITS)
    row_bits = np.array(ROW_BITS, np.uint8)[widths]
    rows = {bits: np.flatnonzero(row_bits == bits) for bits in ROW_BITS}
    parts = {
        bits: odd(_codes(tensors, names(f"q{bits}"), (len(own), n), bits))
        for bits, own in rows.items()
        if len(own)
    }
    q = np.empty(shape, np.int8)  # no larger than the parts together
    for bits, part in parts.items():
        q[rows[bits]] = part
    return MixedIntMatrix(q, tensors.floats(names("q_scale"), (m,)), row_bits)


def _encode_low_rank(factors: LowRank) -> Encoded:
    fields: dict[str, Any] = {"rank": factors.rank}
    tensors: dict[str, Array] = {}
    for side, part in (("left", factors.left), ("right", factors.right)):
        if isinstance(part, IntMatrix):
            fields[side], arrays = _encode_int(part, side)
            tensors |= arrays
        else:
            fields[side] = {}
            tensors[side] = stored(part)
    return fields, tensors


def _decode_low_rank(fields: Fields, tensors: Tensors, names: Names, shape: tuple[int, int]) -> Factors:
    rank = fields.whole("rank", 1, MOST_SIZE)
    parts: list[Any] = []
    for side, size in (("left", (shape[0], rank)), ("right", (rank, shape[1]))):
        section = fields.section(side)
        if "bits" in section:
            parts.append(_decode_int(section, tensors, names, size, side))
        else:
            parts.append(tensors.floats(names(side), size))
        section.end()
    return LowRank(*parts)


def _sizes(factors: DenseSparse | QuantizedDenseSparse) -> dict[str, Any]:
    return {
        "blocks": factors.block_count,
        "atoms": factors.atom_count,
        "nonzeros": factors.nonzeros,
        "identity": factors.identity,
    }


def _packed_indices(factors: DenseSparse | QuantizedDenseSparse) -> Array:
    return pack(factors.indices, index_bits(factors.atom_count))


def _encode_dense_sparse(factors: DenseSparse) -> Encoded:
    tensors = {"indices": _packed_indices(factors), "values": stored(factors.values)}
    if not factors.identity:
        tensors["atoms"] = stored(factors.atoms)
    return _sizes(factors), tensors


@dataclass(frozen=True)
class _Sizes:
    """Checked sizes of dense-sparse factors; ``codes`` is ``(m, B, k)``."""

    block_count: int
    atoms: int
    block: int
    identity: bool
    codes: tuple[int, int, int]

    def indices(self, tensors: Tensors, names: Names) -> NDArray[Any]:
        """Read the indices; after the values, whose stored size bounds theirs (one atom takes 0 bits)."""
        m, blocks, nonzeros = self.codes
        flat = tensors.packed(names("indices"), m * blocks * nonzeros, index_bits(self.atoms))
        return flat.reshape(self.codes).astype(index_dtype(self.atoms), copy=False)


def _decode_sizes(fields: Fields, shape: tuple[int, int]) -> _Sizes:
    m, n = shape
    blocks = fields.whole("blocks", 1, n)
    if n % blocks:
        raise FormatError(f"{fields.where}: {blocks} blocks do not divide {n} columns")
    block = n // blocks
    atoms = fields.whole("atoms", 1, MOST_ATOMS)
    nonzeros = fields.whole("nonzeros", 1, atoms)
    identity = fields.choice("identity", (False, True))
    if identity and (atoms != block or n * block > MOST_IDENTITY):
        raise FormatError(
            f"{fields.where}: identity atoms of {atoms} in blocks of {block} columns; the two must be equal, "
            f"and {n} x {block} at most {MOST_IDENTITY:,}"
        )
    return _Sizes(blocks, atoms, block, identity, (m, blocks, nonzeros))


def _decode_dense_sparse(fields: Fields, tensors: Tensors, names: Names, shape: tuple[int, int]) -> Factors:
    size = _decode_sizes(fields, shape)
    values = tensors.floats(names("values"), size.codes)
    indices = size.indices(tensors, names)
    if size.identity:
        return DenseSparse.with_identity(indices, values, size.block)
    atoms = tensors.floats(names("atoms"), (size.block_count, size.atoms, size.block))
    return DenseSparse(atoms, indices, values)


def _encode_quantized(factors: QuantizedDenseSparse) -> Encoded:
    values = factors.values_q if factors.value_bits == 8 else pack(factors.values_q, factors.value_bits)
    tensors = {
        "indices": _packed_indices(factors),
        "values": np.ascontiguousarray(values),
        "values_scale": stored_scales(factors.values_scale),
    }
    if not factors.identity:
        tensors["atoms"] = np.ascontiguousarray(factors.atoms_q)
        tensors["atoms_scale"] = stored_scales(factors.atoms_scale)
    fields = {**_sizes(factors), "value_bits": factors.value_bits, "atom_bits": factors.atom_bits}
    return fields, tensors


def _decode_quantized(fields: Fields, tensors: Tensors, names: Names, shape: tuple[int, int]) -> Factors:
    value_bits = fields.choice("value_bits", VALUE_BITS)
    atom_bits = fields.choice("atom_bits", ATOM_BITS)
    size = _decode_sizes(fields, shape)
    values = _codes(tensors, names("values"), size.codes, value_bits)
    indices = size.indices(tensors, names)
    values_scale = tensors.floats(names("values_scale"), shape[:1])
    if size.identity:
        atoms = identity_atoms(size.block_count, size.block).astype(np.int8)
        atoms_scale = np.ones((size.block_count, size.atoms), dtype=np.float32)
    else:
        atoms = _codes(tensors, names("atoms"), (size.block_count, size.atoms, size.block), atom_bits)
        atoms_scale = tensors.floats(names("atoms_scale"), (size.block_count, size.atoms))
    return QuantizedDenseSparse(
        atoms_q=atoms,
        atoms_scale=atoms_scale,
        indices=indices,
        values_q=values,
        values_scale=values_scale,
        value_bits=value_bits,
        atom_bits=atom_bits,
        identity=size.identity,
    )


def _codes(tensors: Tensors, name: str, shape: tuple[int, ...], bits: int) -> NDArray[np.int8]:
    if bits == 8:
        return tensors.take(name, ("int8",), shape)
    count = 1
    for size in shape:
        count *= size
    return signed(tensors.packed(name, count, bits), bits).reshape(shape)


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "dense": Form(Dense, _encode_dense, _decode_dense),
        "int": Form(IntMatrix, _encode_int, _decode_int),
        "int-mixed": Form(MixedIntMatrix, _encode_mixed, _decode_mixed),
        "low-rank": Form(LowRank, _encode_low_rank, _decode_low_rank),
        "dense-sparse": Form(DenseSparse, _encode_dense_sparse, _decode_dense_sparse),
        "dense-sparse-int": Form(QuantizedDenseSparse, _encode_quantized, _decode_quantized),
    }
)
"""Name in ``leanmatch.json`` to form."""
