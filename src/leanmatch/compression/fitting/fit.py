"""From dense layers to their compressed stand-ins: one function for each method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from leanmatch.compression.decode import as_array, index_array
from leanmatch.compression.fitting.blocks import block_roots
from leanmatch.compression.fitting.pursuit import pursue
from leanmatch.compression.layer_specs import (
    DenseSparseSpec,
    LayerSpec,
    LowRankSpec,
    MixedRoundingSpec,
    PruningSpec,
    RoundingSpec,
)
from leanmatch.compression.layers import (
    CompressedLayer,
    FactoredEmbedding,
    FactoredLinear,
    LowRankLinear,
    Matrix,
    QuantizedEmbedding,
    QuantizedLinear,
)
from leanmatch.compression.matrices import (
    FactoredMatrix,
    LowRankMatrix,
    MixedQuantizedMatrix,
    QuantizedMatrix,
)
from leanmatch.errors import UsageError
from leanmatch.factorization import DenseSparse, ErrorMetric, LowRank
from leanmatch.factorization.baselines.low_rank import LowRankOptions, fwsvd, svd
from leanmatch.factorization.baselines.pruning import PruneOptions, prune
from leanmatch.factorization.dense_sparse_solver import dense_sparse_factors
from leanmatch.factorization.dictionary import DenseSparseOptions
from leanmatch.factorization.mixed import bits_of_rows, round_rows

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

SWEEPS = 2
FIRST_LOOK = 10
"""Fewer iterations than these are a first look: blocks are not solved again once all others are known."""
SAMPLE = 8192
"""Atoms are learned from at most so many rows; embedding tables have more."""


@dataclass(frozen=True)
class Effort:
    """How long dense-sparse factors are improved, and where they begin.

    Attributes:
        iterations: of pursuit and atom updates.
        seed: of the first atoms.
        threads: of the pursuit; None for as many as torch uses.
    """

    iterations: int = 15
    seed: int = 0
    threads: int | None = None


def fit_layers(
    modules: Sequence[nn.Linear | nn.Embedding],
    spec: LayerSpec,
    metric: ErrorMetric,
    effort: Effort,
    *,
    stack: str | None = None,
    target: Tensor | None = None,
    counts: NDArray[np.int64] | None = None,
) -> list[CompressedLayer]:
    """The stand-ins of layers that are compressed together; the modules stay as they are.

    Args:
        modules: one layer, or the linear members of a stack, which then share their atoms.
        spec: how they are compressed.
        metric: the error that the solvers minimize.
        effort: see there.
        stack: the stack's name.
        target: what is approximated in place of the layers' own weights, float32, one above the other.
        counts: how often each row of a table is read; None where that is not known.
    """
    weight = torch.cat([module.weight.detach().float() for module in modules]) if target is None else target
    if isinstance(spec, DenseSparseSpec):
        factors = _dense_sparse(weight, spec, metric, effort)
        matrices: list[Matrix] = [*_split(factors, modules, spec, metric, stack)]
    elif isinstance(spec, PruningSpec):
        matrices = [_pruned(weight, spec, metric)]
    elif isinstance(spec, LowRankSpec):
        matrices = [_low_rank(weight, spec, metric)]
    elif isinstance(spec, MixedRoundingSpec):
        known = np.zeros(len(weight), np.int64) if counts is None else counts
        mixed = round_rows(as_array(weight), bits_of_rows(known, spec.average_bits))
        matrices = [MixedQuantizedMatrix(mixed, weight)]
    elif isinstance(spec, RoundingSpec):
        matrices = [QuantizedMatrix(weight, bits=spec.bits, group=spec.group)]
    else:
        raise UsageError(f"nothing is fitted for the method {spec.method!r}")
    return [
        _stand_in(module, matrix.to(weight.device)) for module, matrix in zip(modules, matrices, strict=True)
    ]


def _dense_sparse(weight: Tensor, spec: DenseSparseSpec, metric: ErrorMetric, effort: Effort) -> DenseSparse:
    """Factors of the whole matrix; atoms of a tall one (embeddings) are learned from a sample of its rows."""
    options = DenseSparseOptions(
        block=spec.block,
        atoms=spec.atoms,
        nonzeros=spec.nonzeros,
        iterations=effort.iterations,
        compensate=spec.compensate and metric.moments is not None,
        sweeps=SWEEPS if effort.iterations >= FIRST_LOOK else 0,
        seed=effort.seed,
        threads=effort.threads or torch.get_num_threads(),
    )
    if len(weight) <= SAMPLE:
        return dense_sparse_factors(as_array(weight), options, metric)[0]
    rows = torch.randperm(len(weight), generator=torch.Generator().manual_seed(effort.seed))[:SAMPLE]
    sampled, _ = dense_sparse_factors(as_array(weight[rows.to(weight.device)]), options, metric)
    codes = pursue(weight, torch.from_numpy(sampled.atoms).to(weight.device), spec.nonzeros)
    return DenseSparse(sampled.atoms, index_array(codes.indices, spec.atoms), as_array(codes.values))


def _split(
    factors: DenseSparse,
    modules: Sequence[nn.Linear | nn.Embedding],
    spec: DenseSparseSpec,
    metric: ErrorMetric,
    stack: str | None,
) -> list[FactoredMatrix]:
    """The rows of each module as a matrix of its own; all matrices hold one parameter of atoms."""
    roots = block_roots(metric, factors.shape[1], spec.block)
    matrices: list[FactoredMatrix] = []
    start = 0
    for module in modules:
        rows = slice(start, start + len(module.weight))
        part = DenseSparse(factors.atoms, factors.indices[rows], factors.values[rows])
        matrix = FactoredMatrix(
            part, value_bits=spec.value_bits, atom_bits=spec.atom_bits, stack=stack, metric=roots
        ).to(module.weight.device)
        if matrices:
            matrix.atoms = matrices[0].atoms
        matrices.append(matrix)
        start = rows.stop
    return matrices


def _pruned(weight: Tensor, spec: PruningSpec, metric: ErrorMetric) -> FactoredMatrix:
    factors = prune(as_array(weight), PruneOptions(keep=spec.nonzeros, of=spec.block), metric).factors
    assert isinstance(factors, DenseSparse)
    roots = block_roots(metric, weight.shape[1], spec.block)
    return FactoredMatrix(factors, value_bits=spec.value_bits, metric=roots)


def _low_rank(weight: Tensor, spec: LowRankSpec, metric: ErrorMetric) -> LowRankMatrix:
    options = LowRankOptions(spec.rank_of(weight.shape[0], weight.shape[1]))
    solver = svd if metric.fisher is None else fwsvd
    factors = solver(as_array(weight), options, metric).factors
    assert isinstance(factors, LowRank)
    return LowRankMatrix(factors, bits=spec.value_bits)


def _stand_in(module: nn.Linear | nn.Embedding, matrix: Matrix) -> CompressedLayer:
    """The compressed layer over a matrix that takes the module's place."""
    if isinstance(module, nn.Linear):
        if isinstance(matrix, FactoredMatrix):
            return FactoredLinear(matrix, module.bias)
        if isinstance(matrix, QuantizedMatrix):
            return QuantizedLinear(matrix, module.bias)
        return LowRankLinear(matrix, module.bias)
    if isinstance(matrix, FactoredMatrix):
        return FactoredEmbedding(matrix, module.padding_idx)
    assert isinstance(matrix, QuantizedMatrix | MixedQuantizedMatrix)
    return QuantizedEmbedding(matrix, module.padding_idx)
