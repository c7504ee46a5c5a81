"""Exact multiply-adds and bytes of a compressed model; shared layers and atoms count once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from leanmatch.compression.layers import CompressedEmbedding, CompressedLayer
from leanmatch.factorization.cost import FLOAT_BITS, Cost, dense_cost


@dataclass(frozen=True)
class LayerCost:
    """One layer, or one stack of layers with shared atoms.

    Attributes:
        name: full name, of a stack its members joined by ``+``.
        macs: multiply-adds per token; embeddings have none.
        bytes: exact bytes of the weight, index bits and scales included; no bias.
        dense_macs: of the dense layer.
        dense_bytes: of the dense layer in float32.
    """

    name: str
    macs: int
    bytes: float
    dense_macs: int
    dense_bytes: int


@dataclass(frozen=True)
class ModelCost:
    """Sums over a model.

    Attributes:
        layers: the compressed layers.
        other_bytes: float32 bytes of every other parameter: norms, biases, layers left alone.
    """

    layers: tuple[LayerCost, ...]
    other_bytes: int

    @property
    def bytes(self) -> float:
        """Bytes of all weights."""
        return sum(layer.bytes for layer in self.layers) + self.other_bytes

    @property
    def mac_ratio(self) -> float:
        """How many times fewer multiply-adds the compressed linear layers take."""
        return sum(x.dense_macs for x in self.layers) / max(1, sum(x.macs for x in self.layers))

    @property
    def byte_ratio(self) -> float:
        """How many times fewer bytes the compressed linear layers take than in float32."""
        linear = [layer for layer in self.layers if layer.dense_macs]
        return sum(x.dense_bytes for x in linear) / max(1.0, sum(x.bytes for x in linear))


def model_cost(model: nn.Module) -> ModelCost:
    """Costs of a model after :func:`leanmatch.compression.factorize` (or ``finalize``)."""
    stacks: dict[tuple[str, int], list[tuple[str, CompressedLayer]]] = {}
    for number, (name, module) in enumerate(model.named_modules()):
        if isinstance(module, CompressedLayer):
            stack = getattr(module.factors, "stack", None)
            stacks.setdefault((stack, 0) if stack else ("", number), []).append((name, module))
    layers = tuple(_cost(members) for members in stacks.values())
    inside = {
        id(parameter)
        for members in stacks.values()
        for _, module in members
        for parameter in module.factors.parameters()
    }
    other = sum(p.numel() for p in model.parameters() if id(p) not in inside)
    return ModelCost(layers, other * FLOAT_BITS // 8)


def _cost(members: list[tuple[str, CompressedLayer]]) -> LayerCost:
    """The cost of a layer, or of a stack: its first member pays for the atoms of all."""
    cost = Cost(0, 0)
    rows = 0
    for number, (_, module) in enumerate(members):
        factors: Any = module.to_factors()
        cost += factors.cost(shared_atoms=True) if number else factors.cost()
        rows += factors.shape[0]
    columns = members[0][1].factors.shape[1]
    dense = dense_cost(rows, columns)
    embedding = isinstance(members[0][1], CompressedEmbedding)
    return LayerCost(
        name="+".join(name for name, _ in members),
        macs=0 if embedding else cost.macs,
        bytes=cost.bits / 8,
        dense_macs=0 if embedding else dense.macs,
        dense_bytes=dense.bytes,
    )
