"""How much harm each candidate does on its own: the outputs' change when only that group is compressed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from leanmatch.compression.calibration import Calibration, calibrate, output_tensors, run, text_batches
from leanmatch.compression.convert import factorize
from leanmatch.compression.planner_candidates import Group
from leanmatch.compression.spec import CompressionSpec, LayerSpec, Rule, Stack
from leanmatch.errors import ModelError
from leanmatch.files import write_json

ROUNDS = 3
"""Alternations of the factorizations that are only measured."""
PROBE_TEXTS = 128
CALIBRATION_TEXTS = 1024
SAVE_EVERY = 10


class Sensitivity:
    """Measures harm, one candidate of one group at a time; continues what a killed run measured.

    The harm of a candidate is the mean over texts of ``1 - cos`` between the outputs of the dense model and of one in
    which only that group is compressed, without any training.

    Args:
        model: the dense model; the same when :meth:`measure` returns.
        texts: of the domain.
        tokenizer: for models that are no ``SentenceTransformer``.
        folder: where measurements are kept.
    """

    def __init__(self, model: Any, texts: Sequence[str], folder: Path, *, tokenizer: Any = None) -> None:
        self.model, self.file = model, folder / "sensitivity.json"
        self._batches = list(text_batches(model, texts[:PROBE_TEXTS], tokenizer=tokenizer, batch_size=64))
        self._known: dict[str, float] = json.loads(self.file.read_text()) if self.file.exists() else {}
        self._target = self._outputs()
        bad = sum(int((~torch.isfinite(part)).any()) for part in self._target)
        if bad:
            raise ModelError("the model gives NaN or infinite numbers", remedy="its weights are damaged")

    def measure(
        self, groups: Sequence[Group], calibration: Calibration, *, progress: bool = True
    ) -> list[list[float]]:
        """Harm of each group's candidates, in their order."""
        todo = [(group, place) for group in groups for place in range(len(group.candidates))]
        todo = [(group, place) for group, place in todo if _key(group, group.candidates[place].spec) not in self._known]
        for count, (group, place) in enumerate(tqdm(todo, desc="measuring layers", unit="choice", disable=not progress), 1):
            spec = group.candidates[place].spec
            self._known[_key(group, spec)] = self._harm(group, spec, calibration)
            if count % SAVE_EVERY == 0 or count == len(todo):
                write_json(self.file, self._known)
        return [[self._known[_key(group, one.spec)] for one in group.candidates] for group in groups]

    def _harm(self, group: Group, spec: LayerSpec, calibration: Calibration) -> float:
        before = {name: self.model.get_submodule(name) for name in group.names}
        places = _places(self.model, before.values())
        try:
            factorize(self.model, group_spec([(group, spec)]), calibration=calibration, rounds=ROUNDS)
            outputs = self._outputs()
        finally:
            for parent, name, module in places:
                setattr(parent, name, module)
        pairs = zip(self._target, outputs, strict=True)
        lost = [1 - torch.nn.functional.cosine_similarity(one, two, dim=1) for one, two in pairs]
        harm = float(torch.cat(lost).mean())
        return max(0.0, harm) if harm == harm else 2.0  # NaN: as bad as can be

    @torch.no_grad()
    def _outputs(self) -> list[torch.Tensor]:
        was = self.model.training
        self.model.eval()
        found = []
        for batch in self._batches:
            outputs = output_tensors(run(self.model, batch))
            rows = [_rows(one, batch["attention_mask"]) for one in outputs]
            found.append(torch.cat(rows, dim=1))
        self.model.train(was)
        return found


def calibration_of(
    model: Any, groups: Sequence[Group], texts: Sequence[str], *, tokenizer: Any = None, fisher: bool = False
) -> Calibration:
    """Statistics of all groups' linear layers on up to :data:`CALIBRATION_TEXTS` texts."""
    names = [name for group in groups if not group.embedding for name in group.names]
    layers = {name: model.get_submodule(name) for name in names}
    size = 8 if fisher else 64
    batches = text_batches(model, texts[:CALIBRATION_TEXTS], tokenizer=tokenizer, batch_size=size)
    shown = tqdm(batches, desc="calibrating", unit="batch", total=-(-min(len(texts), CALIBRATION_TEXTS) // size))
    return calibrate(model, layers, shown, fisher=fisher)


def group_spec(chosen: Sequence[tuple[Group, LayerSpec]]) -> CompressionSpec:
    """The specification that gives each group its spec and leaves all other layers."""
    rules = tuple(Rule(_literal(name), spec) for group, spec in chosen for name in group.names)
    stacks = tuple(
        Stack(_literal(group.names[0].rpartition(".")[0]), tuple(name.rpartition(".")[2] for name in group.names))
        for group, spec in chosen
        if len(group.names) > 1 and spec.method == "dense-sparse"
    )
    return CompressionSpec(rules, stacks)


def _literal(name: str) -> str:
    """A pattern that matches this name only."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _key(group: Group, spec: LayerSpec) -> str:
    return f"{group.name} {json.dumps(spec.to_json(), sort_keys=True)}"


def _places(model: Any, modules: Any) -> list[tuple[Any, str, Any]]:
    """Wherever the modules stand, or others that share their weight: parent, name, module."""
    weights = {id(module.weight) for module in modules}
    return [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if id(getattr(child, "weight", None)) in weights
    ]


def _rows(output: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """One row a text; of hidden states the mean over real tokens."""
    if output.ndim == 3:
        weights = mask.unsqueeze(-1).to(output.dtype)
        return (output * weights).sum(1) / weights.sum(1).clamp_min(1)
    return output.masked_fill(~mask.bool(), 0) if output.shape == mask.shape else output


