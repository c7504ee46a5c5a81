"""Layers in, their compressed stand-ins out: which solver a layer spec asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from leanmatch.compression.calibration import Calibration
from leanmatch.compression.decode import as_array, index_array
from leanmatch.compression.fitting.blocks import metric_of
from leanmatch.compression.fitting.pursuit import pursue
from leanmatch.compression.layers import (
    CompressedEmbedding,
    CompressedLayer,
    CompressedLinear,
    FactoredEmbedding,
    FactoredLinear,
    LowRankLinear,
    QuantizedEmbedding,
    QuantizedLinear,
)
from leanmatch.compression.matrices import FactoredMatrix, LowRankMatrix, QuantizedMatrix
from leanmatch.compression.spec import LayerSpec
from leanmatch.factorization import Calibration as Weights
from leanmatch.factorization import DenseSparse, LowRank
from leanmatch.factorization.baselines.low_rank import LowRankOptions, fwsvd, svd
from leanmatch.factorization.baselines.pruning import PruneOptions, prune
from leanmatch.factorization.dictionary import DenseSparseOptions, dense_sparse_factors

if TYPE_CHECKING:
    from torch import Tensor

SWEEPS = 2
ROUGH = 10
"""Fewer rounds than these are for a first look: blocks are not solved again once all others are known."""
SAMPLE = 8192
"""Rows that atoms are learned from at most; embeddings have more, but no activation statistics."""


@dataclass(frozen=True)
class Effort:
    """How the factors are looked for.

    Attributes:
        rounds: alternations of pursuit and atoms.
        seed: of the first atoms.
        threads: of the pursuit; None for as many as torch uses.
    """

    rounds: int = 15
    seed: int = 0
    threads: int | None = None


@dataclass(frozen=True)
class _Statistics:
    """What the layer's weighting uses, None where it uses none; and the same as the solvers take it."""

    moment: Tensor | None
    fisher: Tensor | None
    weights: Weights


def fit_group(
    modules: Mapping[str, nn.Module],
    layer: LayerSpec,
    calibration: Calibration,
    effort: Effort,
    *,
    stack: str | None = None,
) -> list[CompressedLayer]:
    """The stand-ins of layers that are factored together; the modules stay as they are.

    Args:
        modules: one linear or embedding layer, or the linear members of a stack, by full name.
        layer: how.
        calibration: serves the weighting; what solvers derive from it is kept in it.
        effort: see there.
        stack: the stack's name, where the members share their atoms.
    """
    if stack is not None:
        linear = {name: cast("nn.Linear", module) for name, module in modules.items()}
        return list(_fit_stack(linear, layer, calibration, effort, stack))
    ((name, module),) = modules.items()
    if isinstance(module, nn.Embedding):
        return [_fit_embedding(module, layer, effort)]
    return [_fit_linear(cast("nn.Linear", module), layer, _statistics(layer, calibration, [name]), effort)]


def _fit_linear(
    module: nn.Linear, layer: LayerSpec, statistics: _Statistics, effort: Effort
) -> CompressedLinear:
    weight = module.weight.detach().float()
    if layer.method == "int":
        return QuantizedLinear(QuantizedMatrix(weight, bits=layer.bits, group=layer.group), module.bias)
    if layer.method == "low-rank":
        rank = LowRankOptions(layer.rank or rank_for(weight.shape[0], weight.shape[1], layer.ratio))
        solver = svd if statistics.fisher is None else fwsvd
        low = solver(as_array(weight), rank, statistics.weights).factors
        assert isinstance(low, LowRank)
        return LowRankLinear(LowRankMatrix(low, bits=layer.value_bits).to(weight.device), module.bias)
    if layer.method == "nm":
        found = prune(
            as_array(weight), PruneOptions(keep=layer.nonzeros, of=layer.block), statistics.weights
        ).factors
        assert isinstance(found, DenseSparse)
        made = _factored(found, layer).to(weight.device)
        made.metric = metric_of(statistics.weights, weight.shape[1], layer.block).to(weight.device)
        return FactoredLinear(made, module.bias)
    return FactoredLinear(_dense_sparse(weight, layer, statistics, effort)[0], module.bias)


def _fit_stack(
    modules: Mapping[str, nn.Linear], layer: LayerSpec, calibration: Calibration, effort: Effort, stack: str
) -> list[FactoredLinear]:
    """Linear layers with the same input, factored as one matrix: they share one parameter of atoms."""
    weight = torch.cat([module.weight.detach().float() for module in modules.values()])
    sizes = [module.out_features for module in modules.values()]
    statistics = _statistics(layer, calibration, list(modules))
    matrices = _dense_sparse(weight, layer, statistics, effort, sizes=sizes, stack=stack)
    for matrix in matrices:
        matrix.atoms = matrices[0].atoms
    pairs = zip(matrices, modules.values(), strict=True)
    return [FactoredLinear(matrix, module.bias) for matrix, module in pairs]


def _fit_embedding(module: nn.Embedding, layer: LayerSpec, effort: Effort) -> CompressedEmbedding:
    weight = module.weight.detach().float()
    if layer.method == "int":
        matrix = QuantizedMatrix(weight, bits=layer.bits, group=layer.group)
        return QuantizedEmbedding(matrix, module.padding_idx)
    nothing = _Statistics(None, None, Weights())
    return FactoredEmbedding(_dense_sparse(weight, layer, nothing, effort)[0], module.padding_idx)


def _dense_sparse(
    weight: Tensor,
    layer: LayerSpec,
    statistics: _Statistics,
    effort: Effort,
    *,
    sizes: Sequence[int] | None = None,
    stack: str | None = None,
) -> list[FactoredMatrix]:
    metric = metric_of(statistics.weights, weight.shape[1], layer.block).to(weight.device)
    options = DenseSparseOptions(
        width=layer.block,
        atoms=layer.atoms,
        nonzeros=layer.nonzeros,
        iterations=effort.rounds,
        compensate=layer.compensate and statistics.moment is not None,
        sweeps=SWEEPS if effort.rounds >= ROUGH else 0,
        seed=effort.seed,
        threads=effort.threads or torch.get_num_threads(),
    )
    found = _solve_dense_sparse(weight, options, statistics.weights)
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


def _solve_dense_sparse(weight: Tensor, options: DenseSparseOptions, weights: Weights) -> DenseSparse:
    """Factors of the whole matrix; atoms of a tall one (embeddings) are learned from a sample of its rows."""
    few = weight
    if len(weight) > SAMPLE:
        rows = torch.randperm(len(weight), generator=torch.Generator().manual_seed(options.seed))[:SAMPLE]
        few = weight[rows.to(weight.device)]
    found, _ = dense_sparse_factors(as_array(few), options, weights)
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


def _factored(found: DenseSparse, layer: LayerSpec, stack: str | None = None) -> FactoredMatrix:
    return FactoredMatrix(found, value_bits=layer.value_bits, atom_bits=layer.atom_bits, stack=stack)


def _statistics(layer: LayerSpec, calibration: Calibration, names: Sequence[str]) -> _Statistics:
    """Of layers with the same inputs, above one another."""
    if layer.weighting == "none":
        return _Statistics(None, None, Weights())
    moment, fisher = calibration.moments.get(names[0]), None
    if layer.weighting == "fisher" and names[0] in calibration.fisher:
        fisher = torch.cat([calibration.fisher[name] for name in names])
    return _Statistics(moment, fisher, calibration.weights(moment, fisher))
