"""Factors of finished groups in files, so that a killed run goes on where it was, to the same bits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from leanmatch.compression.fitting.fit import Effort, fit_layers
from leanmatch.compression.layers import CompressedLayer
from leanmatch.compression.matrices import FactoredMatrix
from leanmatch.compression.sequential.order import LayerGroup
from leanmatch.errors import FormatError
from leanmatch.factorization import ErrorMetric
from leanmatch.files import atomic_file

if TYPE_CHECKING:
    from torch import Tensor

Kept: TypeAlias = tuple[list[CompressedLayer], float]
"""A group's stand-ins and their output error."""


@dataclass(frozen=True)
class GroupFile:
    """Where one group's factors are kept.

    Attributes:
        path: the file; None keeps nothing.
        key: digest of what the factors depend on: the group's weights and specification, effort, texts, and
            all groups before it. A file with another key belongs to another run.
    """

    path: Path | None
    key: str

    def load(self, group: LayerGroup, modules: Sequence[nn.Linear], effort: Effort) -> Kept | None:
        """What :meth:`save` kept; None where it has to be found.

        Raises:
            FormatError: the file is of another run, or damaged.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            with safe_open(self.path, framework="pt") as stored:
                notes = stored.metadata() or {}
                state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise FormatError(f"{self.path} is damaged: {error}", remedy="delete it") from error
        if notes.get("key") != self.key:
            raise FormatError(
                f"{self.path} holds factors of another run: other weights, texts or options",
                remedy="give another folder, or empty this one",
            )
        quick = Effort(0, effort.seed, effort.threads)
        layers = fit_layers(modules, group.spec, ErrorMetric(), quick, stack=group.stack)
        for number, layer in enumerate(layers):
            if isinstance(layer.factors, FactoredMatrix):
                layer.factors.metric = state.pop(f"{number}/metric")
            prefix = f"{number}/"
            own = {n.removeprefix(prefix): value for n, value in state.items() if n.startswith(prefix)}
            layer.load_state_dict(own)
        return layers, float(notes["error"])

    def save(self, layers: Sequence[CompressedLayer], error: float) -> None:
        """Keep the stand-ins that :meth:`load` did not find, atomically."""
        if self.path is None:
            return
        state: dict[str, Tensor] = {}
        for number, layer in enumerate(layers):
            parts = layer.state_dict()
            if isinstance(layer.factors, FactoredMatrix):
                parts["metric"] = layer.factors.metric_or_identity()
            state |= {f"{number}/{n}": v.detach().cpu().clone().contiguous() for n, v in parts.items()}
        with atomic_file(self.path) as temporary:
            save_file(state, temporary, {"key": self.key, "error": repr(error)})


def group_files(
    folder: Path | None,
    origin: str,
    groups: Sequence[tuple[LayerGroup, Sequence[nn.Linear]]],
    effort: Effort,
) -> list[GroupFile]:
    """The files of groups in the order of the data.

    Args:
        folder: where the files are; None keeps nothing.
        origin: what all groups depend on.
        groups: with their dense layers.
        effort: of the solvers.
    """
    files, key = [], origin
    for number, (group, modules) in enumerate(groups):
        key = _digest(key, group, modules, effort)
        files.append(GroupFile(None if folder is None else folder / f"group-{number:03d}.safetensors", key))
    return files


def digest_of_batches(batches: Sequence[Mapping[str, Tensor]]) -> str:
    """A digest of all token ids."""
    digest = hashlib.sha256()
    for batch in batches:
        ids = batch["input_ids"]
        digest.update(repr(tuple(ids.shape)).encode())
        digest.update(ids.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(before: str, group: LayerGroup, modules: Sequence[nn.Module], effort: Effort) -> str:
    identity = [before, list(group.names), group.spec.to_json(), effort.iterations, effort.seed]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode())
    for module in modules:
        for value in module.parameters():
            digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
