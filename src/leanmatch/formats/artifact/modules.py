"""Compressed layers of an artifact as torch modules, and where they go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanmatch.errors import FormatError
from leanmatch.factorization import DenseSparse, IntMatrix, LowRank, MixedIntMatrix, QuantizedDenseSparse
from leanmatch.formats.artifact.contents import LayerTensors

if TYPE_CHECKING:
    from leanmatch.compression import CompressedLayer


def compressed_layer(layer: LayerTensors, old: Any) -> CompressedLayer:
    """The module that stands in for ``old``.

    Raises:
        FormatError: a form that no compressed layer of this kind has.
    """
    from leanmatch.compression import layers as modules

    kinds: dict[tuple[type[Any], str], Any] = {
        (DenseSparse, "linear"): modules.FactoredLinear,
        (QuantizedDenseSparse, "linear"): modules.FactoredLinear,
        (IntMatrix, "linear"): modules.QuantizedLinear,
        (LowRank, "linear"): modules.LowRankLinear,
        (DenseSparse, "embedding"): modules.FactoredEmbedding,
        (QuantizedDenseSparse, "embedding"): modules.FactoredEmbedding,
        (IntMatrix, "embedding"): modules.QuantizedEmbedding,
        (MixedIntMatrix, "embedding"): modules.QuantizedEmbedding,
    }
    kind = kinds.get((type(layer.factors), layer.kind))
    if kind is None:
        raise FormatError(f"a {type(layer.factors).__name__} cannot stand in for a {layer.kind} layer")
    if layer.kind == "embedding":
        module = kind.from_factors(layer.factors, padding_idx=old.padding_idx)
    elif layer.stack is not None:
        module = kind.from_factors(layer.factors, layer.bias, stack=layer.stack)
    else:
        module = kind.from_factors(layer.factors, layer.bias)
    module.finalize_()
    compressed: CompressedLayer = module
    return compressed


def share_stacks(layers: list[tuple[LayerTensors, Any]]) -> None:
    """Let the members of a stack hold one tensor of atoms."""
    from leanmatch.compression.convert import share_atoms

    first: dict[str, Any] = {}
    for layer, module in layers:
        if layer.stack is not None:
            owner = first.setdefault(layer.stack, module)
            if owner is not module:
                share_atoms(owner.factors, module.factors)


def replace_modules(model: Any, replaced: dict[int, Any]) -> None:
    """Put new modules wherever an old one stands or a module that shares its weight; keys are ``id(old)``."""
    by_weight = {
        id(module.weight): replaced[id(module)] for module in model.modules() if id(module) in replaced
    }
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            new = replaced.get(id(child)) or by_weight.get(id(getattr(child, "weight", None)))
            if new is not None:
                setattr(parent, name, new)
