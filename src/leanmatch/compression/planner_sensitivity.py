"""How much harm each candidate does on its own: the outputs' change when only that group is compressed.

Two candidates of each group are measured: the model runs on some texts with only that group compressed, and
``harm = mean(1 - cos)`` between its outputs and the dense model's. The others follow from their own relative
error on the calibration texts, on the line through the two in logarithms: ``harm = c error^a``, ``a`` between
0.5 and 2.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from leanmatch.compression.calibration import Calibration, calibrate, output_tensors, run, text_batches
from leanmatch.compression.convert import Conversion, factorize
from leanmatch.compression.planner_candidates import Group
from leanmatch.compression.spec import CompressionSpec, LayerSpec, Rule, Stack
from leanmatch.errors import ModelError
from leanmatch.files import write_json

ROUNDS = 2
"""Alternations of the factorizations that are only measured."""
PROBE_TEXTS = 96
CALIBRATION_TEXTS = 512
SAVE_EVERY = 10
LEAST_ERROR = 1e-9
SLOPES = (0.5, 2.0)


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
        self._batches = list(text_batches(model, texts[:PROBE_TEXTS], tokenizer=tokenizer, batch_size=48))
        self._known: dict[str, float] = json.loads(self.file.read_text()) if self.file.exists() else {}
        self._target = self._outputs()
        if not all(bool(torch.isfinite(part).all()) for part in self._target):
            raise ModelError("the model gives NaN or infinite numbers", remedy="its weights are damaged")

    def measure(
        self, groups: Sequence[Group], calibration: Calibration, *, progress: bool = True
    ) -> list[list[float]]:
        """Harm of each group's candidates, in their order."""
        harms = []
        with tqdm(
            total=sum(len(group.candidates) for group in groups),
            desc="measuring layers",
            disable=not progress,
        ) as bar:
            for group in groups:
                errors = []
                for candidate in group.candidates:
                    errors.append(self._error(group, candidate.spec, calibration))
                    bar.update()
                anchors = anchors_of(errors)
                measured = {place: self._harm(group, place, calibration) for place in anchors}
                harms.append(on_a_line(errors, measured))
                write_json(self.file, self._known)
        return harms

    def _error(self, group: Group, spec: LayerSpec, calibration: Calibration) -> float:
        """Relative squared error of the layer's outputs (of a table: of its rows)."""
        key = "error " + _key(group, spec)
        if key not in self._known:
            with self._compressed(group, spec, calibration) as conversion:
                found = [
                    one.output_error if one.output_error is not None else one.error
                    for one in conversion.layers
                ]
            self._known[key] = sum(found) / len(found)
            if len(self._known) % SAVE_EVERY == 0:
                write_json(self.file, self._known)
        return self._known[key]

    def _harm(self, group: Group, place: int, calibration: Calibration) -> float:
        spec = group.candidates[place].spec
        key = "harm " + _key(group, spec)
        if key not in self._known:
            with self._compressed(group, spec, calibration):
                outputs = self._outputs()
            pairs = zip(self._target, outputs, strict=True)
            lost = [1 - torch.nn.functional.cosine_similarity(one, two, dim=1) for one, two in pairs]
            harm = float(torch.cat(lost).mean())
            self._known[key] = max(0.0, harm) if math.isfinite(harm) else 2.0  # as bad as can be
        return self._known[key]

    @contextmanager
    def _compressed(self, group: Group, spec: LayerSpec, calibration: Calibration) -> Iterator[Conversion]:
        """The model with only this group compressed; dense again afterwards."""
        places = _places(self.model, [self.model.get_submodule(name) for name in group.names])
        try:
            yield factorize(self.model, group_spec([(group, spec)]), calibration=calibration, rounds=ROUNDS)
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


def anchors_of(errors: Sequence[float]) -> list[int]:
    """The candidates that are measured: the one with the largest error, and the median one.

    >>> anchors_of([0.4, 0.1, 0.2])
    [0, 2]
    """
    order = sorted(range(len(errors)), key=lambda place: -errors[place])
    return list(dict.fromkeys([order[0], order[len(order) // 2]]))


def on_a_line(errors: Sequence[float], measured: Mapping[int, float]) -> list[float]:
    """Harm of all candidates from the measured ones: ``c error^a`` through them, ``a`` within :data:`SLOPES`.

    >>> [round(harm, 3) for harm in on_a_line([0.4, 0.1, 0.2], {0: 0.08, 2: 0.04})]
    [0.08, 0.02, 0.04]
    """
    logs = [math.log(max(error, LEAST_ERROR)) for error in errors]
    points = [(logs[place], math.log(max(harm, LEAST_ERROR))) for place, harm in measured.items()]
    slope = 1.0
    if len(points) == 2 and abs(points[0][0] - points[1][0]) > 1e-6:
        slope = (points[0][1] - points[1][1]) / (points[0][0] - points[1][0])
        slope = min(max(slope, SLOPES[0]), SLOPES[1])
    x, y = points[-1]
    return [measured.get(place, math.exp(y + slope * (log - x))) for place, log in enumerate(logs)]


def calibration_of(
    model: Any, groups: Sequence[Group], texts: Sequence[str], *, tokenizer: Any = None, fisher: bool = False
) -> Calibration:
    """Statistics of all groups' linear layers on up to :data:`CALIBRATION_TEXTS` texts."""
    names = [name for group in groups if not group.embedding for name in group.names]
    layers = {name: model.get_submodule(name) for name in names}
    size = 8 if fisher else 64
    batches = text_batches(model, texts[:CALIBRATION_TEXTS], tokenizer=tokenizer, batch_size=size)
    shown = tqdm(
        batches, desc="calibrating", unit="batch", total=-(-min(len(texts), CALIBRATION_TEXTS) // size)
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
