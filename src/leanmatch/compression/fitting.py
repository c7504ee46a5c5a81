"""One layer in, its compressed stand-in out: which solver a layer spec asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from leanmatch.compression.blocks import metric_of
from leanmatch.compression.calibration import Calibration
from leanmatch.compression.decode import as_array, index_array
from leanmatch.compression.matrices import FactoredMatrix, LowRankMatrix, QuantizedMatrix
from leanmatch.compression.modules import (
    CompressedEmbedding,
    CompressedLinear,
    FactoredEmbedding,
    FactoredLinear,
    LowRankLinear,
    QuantizedEmbedding,
    QuantizedLinear,
)
from leanmatch.compression.pursuit import pursue
from leanmatch.compression.spec import LayerSpec
from leanmatch.factorization import Calibration as Weights
from leanmatch.factorization import DenseSparse, LowRank
from leanmatch.factorization.dictionary import DenseSparseOptions, dense_sparse
from leanmatch.factorization.low_rank import LowRankOptions, fwsvd, svd
from leanmatch.factorization.pruning import PruneOptions, prune

if TYPE_CHECKING:
    from torch import Tensor

SWEEPS = 2
ROUGH = 10
"""Fewer rounds than these are for a first look: blocks are not solved again once all others are known."""
SAMPLE = 8192
"""Rows that atoms are learned from at most; embeddings have more, but no activation statistics."""


def fit_linear(
    module: nn.Linear,
    layer: LayerSpec,
    calibration: Calibration,
    name: str,
    *,
    surplus: int = 0,
    rounds: int = 15,
    seed: int = 0,
) -> CompressedLinear:
    """The compressed stand-in of one linear layer; ``calibration`` serves its weighting."""
    weight = module.weight.detach().float()
    moment, fisher = _statistics(layer, calibration, name)
    if layer.method == "int":
        return QuantizedLinear(QuantizedMatrix(weight, bits=layer.bits, group=layer.group), module.bias)
    if layer.method == "low-rank":
        rank = LowRankOptions(layer.rank or rank_for(weight.shape[0], weight.shape[1], layer.ratio))
        solver = svd if fisher is None else fwsvd
        low = solver(as_array(weight), rank, _weights(moment, fisher)).factors
        assert isinstance(low, LowRank)
        return LowRankLinear(LowRankMatrix(low, bits=layer.value_bits).to(weight.device), module.bias)
    if layer.method == "nm":
        keep = min(layer.nonzeros + surplus, layer.block)
        options = PruneOptions(keep=keep, of=layer.block)
        found = prune(as_array(weight), options, _weights(moment, fisher)).factors
        assert isinstance(found, DenseSparse)
        made = _factored(found, layer).to(weight.device)
        made.metric = metric_of(moment, weight.shape[1], layer.block)
        return FactoredLinear(made, module.bias)
    return FactoredLinear(_dense_sparse(weight, layer, moment, fisher, surplus, rounds, seed)[0], module.bias)


def fit_stack(
    modules: Sequence[nn.Linear],
    layer: LayerSpec,
    calibration: Calibration,
    names: Sequence[str],
    *,
    stack: str,
    surplus: int = 0,
    rounds: int = 15,
    seed: int = 0,
) -> Iterator[FactoredLinear]:
    """Linear layers with the same input, factored as one matrix: they share one parameter of atoms."""
    weight = torch.cat([module.weight.detach().float() for module in modules])
    moment = _statistics(layer, calibration, names[0])[0]
    rows = [_statistics(layer, calibration, name)[1] for name in names]
    fisher = None if rows[0] is None else torch.cat([row for row in rows if row is not None])
    sizes = [module.out_features for module in modules]
    matrices = _dense_sparse(weight, layer, moment, fisher, surplus, rounds, seed, sizes=sizes, stack=stack)
    for matrix, module in zip(matrices, modules, strict=True):
        matrix.atoms = matrices[0].atoms
        yield FactoredLinear(matrix, module.bias)


def fit_embedding(
    module: nn.Embedding, layer: LayerSpec, *, rounds: int = 15, seed: int = 0
) -> CompressedEmbedding:
    """The compressed stand-in of an embedding table."""
    weight = module.weight.detach().float()
    if layer.method == "int":
        matrix = QuantizedMatrix(weight, bits=layer.bits, group=layer.group)
        return QuantizedEmbedding(matrix, module.padding_idx)
    return FactoredEmbedding(_dense_sparse(weight, layer, None, None, 0, rounds, seed)[0], module.padding_idx)


def _dense_sparse(
    weight: Tensor,
    layer: LayerSpec,
    moment: Tensor | None,
    fisher: Tensor | None,
    surplus: int,
    rounds: int,
    seed: int,
    *,
    sizes: Sequence[int] | None = None,
    stack: str | None = None,
) -> list[FactoredMatrix]:
    metric = metric_of(moment, weight.shape[1], layer.block).to(weight.device)
    options = DenseSparseOptions(
        width=layer.block,
        atoms=layer.atoms,
        nonzeros=min(layer.nonzeros + surplus, layer.atoms),
        iterations=rounds,
        compensate=layer.compensate and moment is not None,
        sweeps=SWEEPS if rounds >= ROUGH else 0,
        seed=seed,
        threads=torch.get_num_threads(),
    )
    found = _solve_dense_sparse(weight, options, moment, fisher, seed)
    matrices, start = [], 0
    for size in sizes or [len(weight)]:
        part = DenseSparse(
            found.atoms, found.indices[start : start + size], found.values[start : start + size]
        )
        matrix = _factored(part, layer, stack).to(weight.device)
        matrix.metric = metric
        matrices.append(matrix)
        start += size
    return matrices


def _solve_dense_sparse(
    weight: Tensor, options: DenseSparseOptions, moment: Tensor | None, fisher: Tensor | None, seed: int
) -> DenseSparse:
    """Factors of the whole matrix; atoms of a tall one (embeddings) are learned from a sample of its rows."""
    few = weight
    if len(weight) > SAMPLE:
        rows = torch.randperm(len(weight), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
        few = weight[rows.to(weight.device)]
    found = dense_sparse(as_array(few), options, _weights(moment, fisher)).factors
    assert isinstance(found, DenseSparse)
    if few is weight:
        return found
    codes = pursue(weight, torch.from_numpy(found.atoms).to(weight.device), options.nonzeros)
    indices = index_array(codes.indices, options.atoms)
    return DenseSparse(found.atoms, indices, as_array(codes.values))


def rank_for(rows: int, columns: int, ratio: float) -> int:
    """The largest rank at ``ratio`` times fewer multiply-adds than the dense layer, at least 1.

    >>> rank_for(384, 1536, 2.67)
    115
    """
    return max(1, int(rows * columns / (ratio * (rows + columns))))


def _weights(moment: Tensor | None, fisher: Tensor | None) -> Weights:
    """Statistics as the solvers of :mod:`leanmatch.factorization` take them."""
    return Weights(
        moments=None if moment is None else as_array(moment.double()),
        fisher=None if fisher is None else as_array(fisher.double()),
    )


def _factored(found: DenseSparse, layer: LayerSpec, stack: str | None = None) -> FactoredMatrix:
    return FactoredMatrix(
        found, value_bits=layer.value_bits, atom_bits=layer.atom_bits, stack=stack, nonzeros=layer.nonzeros
    )


def _statistics(layer: LayerSpec, calibration: Calibration, name: str) -> tuple[Any, Any]:
    """Second moment and Fisher information that the layer's weighting uses, None where it uses none."""
    if layer.weighting == "none":
        return None, None
    fisher = calibration.fisher.get(name) if layer.weighting == "fisher" else None
    return calibration.moments.get(name), fisher
