"""How much harm each candidate does on its own: the outputs' change when only that group is compressed.

``harm = mean(1 - cos)`` between the model's outputs on some texts with only that group compressed and the
dense model's. It is measured for one candidate of each group and is taken to be in proportion to the layer's
own relative error for the others: both are squares of a small change. (Measured on MiniLM, for two
candidates whose errors differ by a factor of 4: ``harm ~ error^a`` with a median ``a`` of 1.03; 23 of 24
layers between 0.90 and 1.20.)

The errors of all candidates come from a few rounds without compensation. How much of it compensation takes
away is measured on the one candidate, and is much the same for all.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from leanmatch.compression.calibration import Calibration, calibrate, output_tensors, run, text_batches
from leanmatch.compression.convert import relative_errors
from leanmatch.compression.fitting.fit import Effort, fit_group
from leanmatch.compression.fitting.workers import beside_one_another
from leanmatch.compression.layers import CompressedLayer
from leanmatch.compression.matrices import FactoredMatrix
from leanmatch.compression.planner.candidates import Group
from leanmatch.compression.spec import VALUE_BITS, CompressionSpec, LayerSpec, Rule, Stack
from leanmatch.errors import ModelError
from leanmatch.files import write_json

ROUNDS = 2
"""Alternations of the factorizations that are only measured."""
PROBE_TEXTS = 64
CALIBRATION_TEXTS = 512
LEAST_ERROR = 1e-9


@dataclass(frozen=True)
class Trial:
    """A group's candidates on their own.

    Attributes:
        errors: relative squared error of each candidate's outputs (of a table: of its rows).
        middle: the place of the one whose harm is measured.
        layers: its stand-ins; empty where the harm is known.
    """

    errors: list[float]
    middle: int
    layers: list[CompressedLayer]


class Sensitivity:
    """Measures harm, one group at a time; continues what a killed run measured.

    Args:
        model: the dense model; the same when :meth:`measure` returns.
        texts: of the domain.
        folder: where measurements are kept.
        tokenizer: for models that are no ``SentenceTransformer``.

    Raises:
        ModelError: the model's outputs are not finite.
    """

    def __init__(self, model: Any, texts: Sequence[str], folder: Path, *, tokenizer: Any = None) -> None:
        self.model, self.file = model, folder / "sensitivity.json"
        self._modules = dict(model.named_modules())
        self._batches = list(text_batches(model, texts[:PROBE_TEXTS], tokenizer=tokenizer, batch_size=16))
        self._known: dict[str, float] = json.loads(self.file.read_text()) if self.file.exists() else {}
        self._target = self._outputs()
        if not all(bool(torch.isfinite(part).all()) for part in self._target):
            raise ModelError("the model gives NaN or infinite numbers", remedy="its weights are damaged")

    def measure(
        self, groups: Sequence[Group], calibration: Calibration, *, progress: bool = True
    ) -> list[list[float]]:
        """Harm of each group's candidates, in their order; 0 where there is no choice."""
        asked = [group for group in groups if len(group.candidates) > 1]
        trials = beside_one_another(lambda group: self._try(group, calibration.of(group.names)), asked)
        found = {}
        pairs = zip(asked, trials, strict=True)
        for group, trial in tqdm(pairs, "measuring layers", len(asked), unit=" trials", disable=not progress):
            key = _key("harm", group, trial.middle)
            if key not in self._known:
                self._known[key] = self._harm(group, trial.layers)
            for place, error in enumerate(trial.errors):
                self._known[_key("error", group, place)] = error
            write_json(self.file, self._known)
            found[group.name] = in_proportion(trial.errors, trial.middle, self._known[key])
        return [found.get(group.name, [0.0]) for group in groups]

    def _try(self, group: Group, calibration: Calibration) -> Trial:
        """The errors of all candidates; candidates that differ in rounding only are factored once."""
        places = range(len(group.candidates))
        known = [self._known.get(_key("error", group, place)) for place in places]
        if None not in known:  # saved when the harm was measured, too
            middle = next(place for place in places if _key("harm", group, place) in self._known)
            return Trial([error for error in known if error is not None], middle, [])
        made: dict[LayerSpec, list[CompressedLayer]] = {}
        exact, rounded = [], []
        for candidate in group.candidates:
            plain = unrounded(replace(candidate.spec, compensate=False))
            if plain not in made:
                made[plain] = self._fit(group, plain, calibration)
            rounded.append(self._error(group, _with_bits(made[plain], candidate.spec), calibration))
            exact.append(rounded[-1])
            if plain != replace(candidate.spec, compensate=False):
                exact[-1] = self._error(group, made[plain], calibration)
        middle = middle_of(rounded)
        layers = self._fit(group, group.candidates[middle].spec, calibration)
        finest = _with_bits(layers, unrounded(group.candidates[middle].spec))
        better = self._error(group, finest, calibration) / max(exact[middle], LEAST_ERROR)
        share = [better if _factored(candidate.spec) else 1.0 for candidate in group.candidates]
        errors = [
            part * error + max(0.0, both - error)
            for part, error, both in zip(share, exact, rounded, strict=True)
        ]
        return Trial(errors, middle, layers)

    def _fit(self, group: Group, spec: LayerSpec, calibration: Calibration) -> list[CompressedLayer]:
        modules = {name: self._modules[name] for name in group.names}
        effort = Effort(rounds=ROUNDS, threads=1)
        if len(modules) > 1 and spec.method == "dense-sparse":
            parent = group.names[0].rpartition(".")[0]
            return fit_group(modules, spec, calibration, effort, stack=parent)
        alone = [fit_group({name: one}, spec, calibration, effort) for name, one in modules.items()]
        return [layer for (layer,) in alone]

    def _error(self, group: Group, layers: Sequence[CompressedLayer], calibration: Calibration) -> float:
        found = [
            relative_errors(self._modules[name].weight, layer, calibration.moments.get(name))
            for name, layer in zip(group.names, layers, strict=True)
        ]
        return sum(error if output is None else output for error, output in found) / len(found)

    def _harm(self, group: Group, layers: Sequence[CompressedLayer]) -> float:
        """``mean(1 - cos)`` of the outputs with only this group compressed."""
        with self._in_place(group, layers):
            outputs = self._outputs()
        pairs = zip(self._target, outputs, strict=True)
        lost = [1 - torch.nn.functional.cosine_similarity(one, two, dim=1) for one, two in pairs]
        harm = float(torch.cat(lost).mean())
        return max(0.0, harm) if math.isfinite(harm) else 2.0  # as bad as can be

    @contextmanager
    def _in_place(self, group: Group, layers: Sequence[CompressedLayer]) -> Iterator[None]:
        """The model with stand-ins for this group; dense again afterwards."""
        new = {id(self._modules[name].weight): layer for name, layer in zip(group.names, layers, strict=True)}
        places = _places(self.model, [self._modules[name] for name in group.names])
        try:
            for parent, name, module in places:
                setattr(parent, name, new[id(module.weight)])
            yield
        finally:
            for parent, name, module in places:
                setattr(parent, name, module)

    @torch.no_grad()
    def _outputs(self) -> list[torch.Tensor]:
        was = self.model.training
        self.model.eval()
        found = []
        device = next(self.model.parameters()).device
        for one in self._batches:
            batch = {name: value.to(device) if hasattr(value, "to") else value for name, value in one.items()}
            outputs = output_tensors(run(self.model, batch))
            rows = [_rows(output, batch["attention_mask"]) for output in outputs]
            found.append(torch.cat(rows, dim=1))
        self.model.train(was)
        return found


def middle_of(errors: Sequence[float]) -> int:
    """The candidate with the median error: the one that is measured.

    >>> middle_of([0.4, 0.1, 0.2])
    2
    """
    return sorted(range(len(errors)), key=lambda place: -errors[place])[len(errors) // 2]


def in_proportion(errors: Sequence[float], place: int, harm: float) -> list[float]:
    """Harm of all candidates from that of one.

    >>> in_proportion([0.4, 0.1, 0.2], 2, 0.04)
    [0.08, 0.02, 0.04]
    """
    return [harm * error / max(errors[place], LEAST_ERROR) for error in errors]


def calibration_of(
    model: Any, groups: Sequence[Group], texts: Sequence[str], *, tokenizer: Any = None, fisher: bool = False
) -> Calibration:
    """Statistics of all groups' linear layers on up to :data:`CALIBRATION_TEXTS` texts."""
    names = [name for group in groups if not group.embedding for name in group.names]
    layers = {name: model.get_submodule(name) for name in names}
    size = 8 if fisher else 64
    batches = text_batches(model, texts[:CALIBRATION_TEXTS], tokenizer=tokenizer, batch_size=size)
    shown = tqdm(
        batches, desc="calibrating", unit=" batches", total=-(-min(len(texts), CALIBRATION_TEXTS) // size)
    )
    return calibrate(model, layers, shown, fisher=fisher)


def group_spec(chosen: Sequence[tuple[Group, LayerSpec]]) -> CompressionSpec:
    """The specification that gives each group its spec and leaves all other layers."""
    rules = tuple(Rule(_literal(name), spec) for group, spec in chosen for name in group.names)
    stacks = tuple(
        Stack(
            _literal(group.names[0].rpartition(".")[0]),
            tuple(name.rpartition(".")[2] for name in group.names),
        )
        for group, spec in chosen
        if len(group.names) > 1 and spec.method == "dense-sparse"
    )
    return CompressionSpec(rules, stacks)


def _literal(name: str) -> str:
    """A pattern that matches this name only."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def unrounded(spec: LayerSpec) -> LayerSpec:
    """The spec with the most bits of values: what is factored once for all that differ in bits only.

    >>> unrounded(LayerSpec(nonzeros=3, value_bits=4)) == LayerSpec(nonzeros=3)
    True
    """
    rounded = spec.method in ("dense-sparse", "nm") and spec.value_bits is not None
    return replace(spec, value_bits=max(VALUE_BITS)) if rounded else spec


def _factored(spec: LayerSpec) -> bool:
    """Whether its solver compensates."""
    return spec.method == "dense-sparse" and spec.compensate


def _with_bits(layers: Sequence[CompressedLayer], spec: LayerSpec) -> list[CompressedLayer]:
    """The same factors rounded as another spec says; other layers as they are."""
    made = [copy.deepcopy(layer) if isinstance(layer.factors, FactoredMatrix) else layer for layer in layers]
    for layer in made:
        if isinstance(layer.factors, FactoredMatrix):
            layer.factors.value_bits = spec.value_bits
    return made


def _key(what: str, group: Group, place: int) -> str:
    return f"{what} {group.name} {json.dumps(group.candidates[place].spec.to_json(), sort_keys=True)}"


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
