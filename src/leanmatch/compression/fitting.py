"""One layer in, its compressed stand-in out: which solver a layer spec asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from leanmatch.compression.calibration import Calibration
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
from leanmatch.compression.solvers import block_metric, fit_dense_sparse, fit_low_rank, fit_nm, rank_for
from leanmatch.compression.spec import LayerSpec
from leanmatch.factorization import DenseSparse

if TYPE_CHECKING:
    from torch import Tensor


def fit_linear(
    module: nn.Linear,
    layer: LayerSpec,
    calibration: Calibration,
    name: str,
    *,
    surplus: int = 0,
    rounds: int = 10,
    seed: int = 0,
) -> CompressedLinear:
    """The compressed stand-in of one linear layer; ``calibration`` serves its weighting."""
    weight = module.weight.detach().float()
    moment, fisher = _statistics(layer, calibration, name)
    if layer.method == "int":
        return QuantizedLinear(QuantizedMatrix(weight, bits=layer.bits, group=layer.group), module.bias)
    if layer.method == "low-rank":
        rank = layer.rank or rank_for(weight.shape[0], weight.shape[1], layer.ratio)
        matrix = moment if fisher is None else torch.diag(fisher.sum(0))
        factors = fit_low_rank(weight, rank, moment=matrix)
        return LowRankLinear(LowRankMatrix(factors, bits=layer.value_bits).to(weight.device), module.bias)
    if layer.method == "nm":
        found = fit_nm(
            weight, width=layer.block, nonzeros=min(layer.nonzeros + surplus, layer.block), moment=moment
        )
        made = _factored(found, layer).to(weight.device)
        made.metric = block_metric(moment, weight.shape[1], layer.block)
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
    rounds: int = 10,
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
    module: nn.Embedding, layer: LayerSpec, *, rounds: int = 10, seed: int = 0
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
    metric = block_metric(moment, weight.shape[1], layer.block).to(weight.device)
    row_weights = None if fisher is None else fisher.mean(1) / fisher.mean().clamp_min(1e-30)
    found = fit_dense_sparse(
        weight,
        width=layer.block,
        atoms=layer.atoms,
        nonzeros=min(layer.nonzeros + surplus, layer.atoms),
        metric=metric,
        row_weights=row_weights,
        rounds=rounds,
        seed=seed,
    )
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
