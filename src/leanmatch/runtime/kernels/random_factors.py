"""Random factors of the form that a layer specification makes.

A kernel's time does not depend on values, but it does on whether all atoms have one scale. Those of trained
factors differ.
"""

from __future__ import annotations

import numpy as np

from leanmatch.compression.layer_specs import (
    DenseSparseSpec,
    LayerSpec,
    LowRankSpec,
    PruningSpec,
    RoundingSpec,
)
from leanmatch.factorization import Dense, DenseSparse, Factors, IntMatrix, LowRank, QuantizedDenseSparse
from leanmatch.factorization.arrays import ODD_BITS, Float, Index, largest_code
from leanmatch.factorization.checks import index_dtype


def random_factors(spec: LayerSpec | None, m: int, n: int) -> Factors:
    """A weight ``(m, n)`` as ``spec`` would store it; dense float32 for a layer that stays (None, DenseSpec).

    >>> from leanmatch.compression.layer_specs import DenseSparseSpec
    >>> random_factors(DenseSparseSpec(block=16), 8, 32).cost() == DenseSparseSpec(block=16).cost(8, 32)
    True
    """
    rng = np.random.default_rng(0)
    if isinstance(spec, DenseSparseSpec):
        sizes = (m, n // spec.block, spec.atoms, spec.nonzeros)
        return _dense_sparse(rng, *sizes, spec.block, spec.value_bits, identity=False)
    if isinstance(spec, PruningSpec):
        sizes = (m, n // spec.block, spec.block, spec.nonzeros)
        return _dense_sparse(rng, *sizes, spec.block, spec.value_bits, identity=True)
    if isinstance(spec, LowRankSpec):
        rank = spec.rank_of(m, n)
        if spec.value_bits is None:
            left = rng.standard_normal((m, rank), dtype=np.float32)
            return LowRank(left, rng.standard_normal((rank, n), dtype=np.float32))
        return LowRank(_codes(rng, m, rank, spec.value_bits, rank), _codes(rng, rank, n, spec.value_bits, n))
    if isinstance(spec, RoundingSpec):
        return _codes(rng, m, n, spec.bits, spec.group or n)
    return Dense(rng.standard_normal((m, n), dtype=np.float32))


def _codes(rng: np.random.Generator, m: int, n: int, bits: int, group: int) -> IntMatrix:
    most = largest_code(bits)
    q = rng.integers(-most, most + 1, (m, n), dtype=np.int8)
    q = q | np.int8(1) if bits in ODD_BITS else q
    return IntMatrix(q, np.full((m, n // group), 0.01, np.float32), bits)


def _dense_sparse(
    rng: np.random.Generator,
    m: int,
    blocks: int,
    atoms: int,
    nonzeros: int,
    width: int,
    bits: int | None,
    *,
    identity: bool,
) -> DenseSparse | QuantizedDenseSparse:
    # atoms before what has rows: those of layers with the same blocks are equal, as in a stack
    atom_codes = rng.integers(-127, 128, (blocks, atoms, width), dtype=np.int8)
    first = rng.integers(0, atoms, (m, blocks, 1))
    kind = index_dtype(atoms)
    indices: Index = np.sort((first + np.arange(nonzeros)) % atoms, axis=2).astype(kind)
    values: Float = rng.standard_normal(indices.shape, dtype=np.float32)
    if identity:
        pruned = DenseSparse.with_identity(indices, values, width)
        return pruned if bits is None else pruned.quantize(value_bits=bits)
    if bits is None:
        floats: Float = (atom_codes / 127).astype(np.float32)
        return DenseSparse(floats, indices, values)
    most = 2 ** (bits - 1) - 1
    return QuantizedDenseSparse(
        atom_codes,
        rng.uniform(0.005, 0.01, (blocks, atoms)).astype(np.float32),
        indices,
        rng.integers(1, most + 1, indices.shape, dtype=np.int8),
        np.full(m, 0.01, np.float32),
        value_bits=bits,
    )
