"""Fewer layers: which encoder layers of a transformer can go, and the model without them.

An encoder layer is dropped whole; what is left is healed by distillation
(:mod:`leanmatch.compression.planner.states`) before its layers are factored. Encoder layers are ranked
greedily by the harm of the model without them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from leanmatch.compression.patterns import model_type
from leanmatch.errors import ModelError
from leanmatch.models.architectures import ARCHITECTURES, Architecture

KEEPING = ("albert", "t5", "mt5")
"""Architectures that keep all their layers: those of ALBERT share weights, the first one of T5 holds the
relative positions of all. So do families whose layers differ by number (windows, a bare first layer)."""
MOST_DROPPED = 0.67
"""At most this share of the encoder layers is dropped."""


@dataclass(frozen=True)
class Depth:
    """Some encoder layers dropped.

    Attributes:
        dropped: their numbers.
        harm: ``mean(1 - cos)`` of the model without them, before it is healed.
    """

    dropped: tuple[int, ...] = ()
    harm: float = 0.0


def architecture_of(model: Any) -> Architecture | None:
    """The model's architecture; None where none is known."""
    try:
        return ARCHITECTURES[model_type(model)]
    except ModelError:
        return None


def can_drop(model: Any) -> bool:
    """Whether encoder layers of this model may be left out."""
    architecture = architecture_of(model)
    if architecture is None or model_type(model) in KEEPING:
        return False
    return architecture.local_theta is None and not architecture.bare_start


def layer_number(name: str, architecture: Architecture) -> int | None:
    """The encoder layer that a module belongs to; None for one outside.

    >>> layer_number("0.auto_model.encoder.layer.3.output.dense", ARCHITECTURES["bert"])
    3
    """
    found = _pattern(architecture).search(name)
    return None if found is None else int(found[1])


def renumbered(name: str, architecture: Architecture, kept: Sequence[int]) -> str:
    """The module's name in the model with the ``kept`` encoder layers only.

    >>> renumbered("encoder.layer.3.output.dense", ARCHITECTURES["bert"], [0, 3])
    'encoder.layer.1.output.dense'
    """
    found = _pattern(architecture).search(name)
    if found is None:
        return name
    return name[: found.start(1)] + str(list(kept).index(int(found[1]))) + name[found.end(1) :]


def inside_transformer(name: str, architecture: Architecture) -> str:
    """The module's name inside the transformer, whatever holds that.

    >>> inside_transformer("0.auto_model.encoder.layer.3.output.dense", ARCHITECTURES["bert"])
    'encoder.layer.3.output.dense'
    """
    found = _pattern(architecture).search(name)
    if found is not None:
        return name[found.start(1) - len(architecture.block.partition("{i}")[0]) :]
    tables = (architecture.words, architecture.positions, architecture.projection)
    return next((table for table in tables if table and name.endswith(table)), name)


def encoder_layer_count(model: Any) -> int:
    """How many encoder layers the model has; 0 where its architecture is not known."""
    architecture = architecture_of(model)
    return 0 if architecture is None else len(_home(model, architecture)[2])


def without_layers(model: Any, dropped: Sequence[int]) -> Any:
    """A copy of the model without some encoder layers; its configuration says so.

    Raises:
        ModelError: an architecture whose encoder layers cannot be dropped.
    """
    architecture = architecture_of(model)
    if architecture is None or not can_drop(model):
        raise ModelError(f"the encoder layers of a {type(model).__name__} cannot be dropped")
    with lacking(model, dropped):
        lean = copy.deepcopy(model)
    left = len(_home(lean, architecture)[2])
    for module in lean.modules():
        if hasattr(getattr(module, "config", None), architecture.keys[3]):
            setattr(module.config, architecture.keys[3], left)
    return lean


@contextmanager
def lacking(model: Any, dropped: Sequence[int]) -> Iterator[None]:
    """The model without some encoder layers for a while; it is whole again afterwards."""
    architecture = architecture_of(model)
    if architecture is None or not dropped:
        yield
        return
    parent, name, blocks = _home(model, architecture)
    left = nn.ModuleList(block for number, block in enumerate(blocks) if number not in set(dropped))
    try:
        setattr(parent, name, left)
        yield
    finally:
        setattr(parent, name, blocks)


def _home(model: Any, architecture: Architecture) -> tuple[nn.Module, str, nn.ModuleList]:
    """The module that holds the encoder layers, their name in it, and the layers."""
    path = architecture.block.partition(".{i}")[0]
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and (name == path or name.endswith(f".{path}")):
            parent, _, last = name.rpartition(".")
            return model.get_submodule(parent), last, module
    raise ModelError(f"a {type(model).__name__} holds no encoder layers at {path}")


def _pattern(architecture: Architecture) -> re.Pattern[str]:
    before, _, _ = architecture.block.partition("{i}")
    return re.compile(rf"(?:^|\.){re.escape(before)}(\d+)\.")
