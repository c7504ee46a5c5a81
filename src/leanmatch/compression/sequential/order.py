"""The layers of an encoder in the order of the data, and what is factored together in each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from leanmatch.compression.layer_specs import ROUNDING, LayerSpec
from leanmatch.models.architectures import ARCHITECTURES, Architecture

MENDED = ("auto", "activation")
"""Weightings of layers that are factored in order; the others are factored by their weights alone."""


@dataclass(frozen=True)
class LayerGroup:
    """Layers that are compressed together.

    Attributes:
        names: full names: one layer, or the members of a stack.
        spec: how.
        stack: name of the stack, None for a layer alone.
    """

    names: tuple[str, ...]
    spec: LayerSpec
    stack: str | None


@dataclass(frozen=True)
class Stage:
    """Linear layers that read the same input.

    Attributes:
        groups: what is factored together.
        stream: full name of the module whose input the outputs are added to (the residual stream); None where
            they are not added to it.
    """

    groups: tuple[LayerGroup, ...]
    stream: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """Full names of the layers."""
        return tuple(name for group in self.groups for name in group.names)


@dataclass(frozen=True)
class EncoderLayer:
    """One layer of the encoder.

    Attributes:
        name: full name of its module.
        attention: full name of the module in it that holds the inputs of attention.
        stages: in the order of the data.
    """

    name: str
    attention: str
    stages: tuple[Stage, ...]


def encoder_layers(model: Any, groups: Sequence[LayerGroup]) -> list[EncoderLayer]:
    """The encoder's layers with the groups that are factored in order.

    Empty where nothing is to be gained or the order is not known: all groups only round, an architecture
    without a table, two encoders in one model, layers whose weights are used more than once (ALBERT).
    """
    architecture = _architecture(model)
    if architecture is None or all(isinstance(group.spec, ROUNDING) for group in groups):
        return []
    numbered = _numbered_layers(model, architecture)
    depth = getattr(_config(model), architecture.keys[3], len(numbered))
    if len(numbered) != depth:
        return []
    attention = architecture.names.attention_inputs[0].rpartition(".")[0]
    return [
        EncoderLayer(name, f"{name}.{attention}", _stages(name, groups, architecture)) for name in numbered
    ]


def _config(model: nn.Module) -> Any:
    configs = (getattr(module, "config", None) for module in model.modules())
    return next((config for config in configs if hasattr(config, "model_type")), None)


def _architecture(model: nn.Module) -> Architecture | None:
    return ARCHITECTURES.get(getattr(_config(model), "model_type", ""))


def _numbered_layers(model: nn.Module, architecture: Architecture) -> list[str]:
    """Full names of the encoder's layers by their number; none where there are two encoders."""
    block = re.escape(architecture.block.rstrip(".")).replace(r"\{i\}", r"(\d+)")
    numbers: dict[str, dict[int, str]] = {}
    for name, _ in model.named_modules():
        match = re.fullmatch(rf"(|.*\.){block}", name)
        if match is not None:
            numbers.setdefault(match[1], {})[int(match[2])] = name
    if len(numbers) != 1:
        return []
    ((_, layers),) = numbers.items()
    return [layers[number] for number in sorted(layers)]


def _stages(layer: str, groups: Sequence[LayerGroup], architecture: Architecture) -> tuple[Stage, ...]:
    names, gated = architecture.names, architecture.gated_names
    out_stream, down_stream = architecture.streams
    roles: Mapping[tuple[str, ...], str | None] = {
        names.attention_inputs: None,
        (names.out,): f"{layer}.{out_stream}",
        (*names.feed_forward_inputs, *(gated.feed_forward_inputs if gated else ())): None,
        (names.down,): f"{layer}.{down_stream}",
    }
    stages = []
    for modules, stream in roles.items():
        members = tuple(
            group
            for group in groups
            if group.spec.weighting in MENDED
            and all(n.removeprefix(f"{layer}.") in modules for n in group.names)
        )
        if members:
            stages.append(Stage(members, stream))
    return tuple(stages)
