"""Measures the harm of each candidate: how much the outputs change when only its group is compressed.

``harm = mean(1 - cos)`` between the model's outputs on some texts with only that group compressed and the
dense model's. It is measured for one candidate of each group and is taken to be in proportion to the layer's
own relative error for the others: both are squares of a small change. (Measured on MiniLM, for two
candidates whose errors differ by a factor of 4: ``harm ~ error^a`` with a median ``a`` of 1.03; 23 of 24
layers between 0.90 and 1.20.)

The errors of all candidates come from a few iterations without compensation. How much compensation lowers
them is measured on the one candidate, and is much the same for all.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from leanmatch.compression.calibration import (
    Calibration,
    calibrate,
    output_tensors,
    run,
    text_batches,
    word_tables,
)
from leanmatch.compression.convert import relative_errors
from leanmatch.compression.fitting.fit import Effort, fit_layers
from leanmatch.compression.fitting.workers import in_parallel
from leanmatch.compression.layer_specs import DenseSparseSpec, LayerSpec, PruningSpec
from leanmatch.compression.layers import CompressedLayer
from leanmatch.compression.matrices import FactoredMatrix
from leanmatch.compression.planner.candidates import Group
from leanmatch.compression.planner.depth import (
    MOST_DROPPED,
    Depth,
    can_drop,
    encoder_layer_count,
    lacking,
)
from leanmatch.compression.spec import CompressionSpec, Rule, Stack
from leanmatch.errors import ModelError
from leanmatch.factorization import ErrorMetric
from leanmatch.factorization.dense_sparse import VALUE_BITS
from leanmatch.files import write_json

ITERATIONS = 2
"""Iterations of the factorizations that are only measured."""
PROBE_TEXTS, PROBE_BATCH = 64, 16
DEPTH_TEXTS = 16
"""Texts on which the next block to drop is chosen; there are as many choices as blocks squared."""
CALIBRATION_TEXTS = 512
LEAST_ERROR = 1e-9


@dataclass(frozen=True)
class Trial:
    """A group's candidates on their own.

    Attributes:
        errors: relative squared error of each candidate's outputs (of a table: of its rows).
        middle: the number of the one whose harm is measured.
        layers: its stand-ins; empty where the harm is known.
    """

    errors: list[float]
    middle: int
    layers: list[CompressedLayer]


class Sensitivity:
    """Measures harm, one group at a time, and resumes after an interruption.

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
        self._batches = list(
            text_batches(model, texts[:PROBE_TEXTS], tokenizer=tokenizer, batch_size=PROBE_BATCH)
        )
        self._measured: dict[str, float] = json.loads(self.file.read_text()) if self.file.exists() else {}
        self._target = self._outputs()
        if not all(bool(torch.isfinite(part).all()) for part in self._target):
            raise ModelError("the model gives NaN or infinite numbers", remedy="its weights are damaged")

    def measure(
        self, groups: Sequence[Group], calibration: Calibration, *, progress: bool = True
    ) -> list[list[float]]:
        """Harm of each group's candidates, in their order; 0 where there is no choice."""
        asked = [group for group in groups if len(group.candidates) > 1]
        trials = in_parallel(lambda group: self._try(group, calibration), asked)
        harm: dict[str, list[float]] = {}
        pairs = zip(asked, trials, strict=True)
        for group, trial in tqdm(pairs, "measuring layers", len(asked), unit=" trials", disable=not progress):
            key = _key("harm", group, trial.middle)
            if key not in self._measured:
                self._measured[key] = self._harm(group, trial.layers)
            for number, error in enumerate(trial.errors):
                self._measured[_key("error", group, number)] = error
            write_json(self.file, self._measured)
            harm[group.name] = in_proportion(trial.errors, trial.middle, self._measured[key])
        return [harm.get(group.name, [0.0]) for group in groups]

    def depths(self, *, progress: bool = True) -> list[Depth]:
        """Nothing dropped, then one block more each time: that whose loss does the least harm, measured on
        :data:`DEPTH_TEXTS` texts; each depth's harm is measured on all."""
        count = encoder_layer_count(self.model) if can_drop(self.model) else 0
        depths = [Depth()]
        most = int(MOST_DROPPED * count)
        for _ in tqdm(range(most), "measuring depth", unit=" blocks", disable=not progress or not most):
            gone = depths[-1].dropped
            key = f"without {gone}"
            if key not in self._measured:
                left = [number for number in range(count) if number not in gone]
                few = DEPTH_TEXTS // PROBE_BATCH
                best = min(left, key=lambda number: self._harm_without((*gone, number), few))
                self._measured |= {key: best, f"{key} harm": self._harm_without((*gone, best), None)}
                write_json(self.file, self._measured)
            depths.append(Depth((*gone, int(self._measured[key])), self._measured[f"{key} harm"]))
        return depths

    def _harm_without(self, dropped: Sequence[int], batches: int | None) -> float:
        with lacking(self.model, dropped):
            return self._lost(self._outputs(batches))

    def _try(self, group: Group, calibration: Calibration) -> Trial:
        """The errors of all candidates; candidates that differ in rounding only are factored once."""
        numbers = range(len(group.candidates))
        errors_before = [self._measured.get(_key("error", group, number)) for number in numbers]
        if None not in errors_before:  # saved when the harm was measured, too
            middle = next(number for number in numbers if _key("harm", group, number) in self._measured)
            return Trial([error for error in errors_before if error is not None], middle, [])
        metric = cache(calibration.metric)
        fitted: dict[LayerSpec, list[CompressedLayer]] = {}
        exact, rounded = [], []
        for candidate in group.candidates:
            quick = uncompensated(candidate.spec)
            plain = unrounded(quick)
            if plain not in fitted:
                fitted[plain] = self._fit(group, plain, metric, calibration.reads)
            rounded.append(self._error(group, _with_bits(fitted[plain], candidate.spec), calibration))
            exact.append(rounded[-1] if plain == quick else self._error(group, fitted[plain], calibration))
        middle = middle_of(rounded)
        layers = self._fit(group, group.candidates[middle].spec, metric, calibration.reads)
        finest = _with_bits(layers, unrounded(group.candidates[middle].spec))
        better = self._error(group, finest, calibration) / max(exact[middle], LEAST_ERROR)
        share = [
            1.0 if candidate.spec == uncompensated(candidate.spec) else better
            for candidate in group.candidates
        ]
        errors = [
            part * error + max(0.0, both - error)
            for part, error, both in zip(share, exact, rounded, strict=True)
        ]
        return Trial(errors, middle, layers)

    def _fit(
        self,
        group: Group,
        spec: LayerSpec,
        metric: Callable[[tuple[str, ...], str], ErrorMetric],
        reads: Mapping[str, NDArray[np.int64]],
    ) -> list[CompressedLayer]:
        effort = Effort(iterations=ITERATIONS, threads=1)
        if len(group.names) > 1 and isinstance(spec, DenseSparseSpec):
            modules = [self._modules[name] for name in group.names]
            parent = group.names[0].rpartition(".")[0]
            return fit_layers(modules, spec, metric(group.names, spec.weighting), effort, stack=parent)
        alone = [
            fit_layers(
                [self._modules[name]], spec, metric((name,), spec.weighting), effort, counts=reads.get(name)
            )
            for name in group.names
        ]
        return [layer for (layer,) in alone]

    def _error(self, group: Group, layers: Sequence[CompressedLayer], calibration: Calibration) -> float:
        errors = [
            relative_errors(
                self._modules[name].weight, layer, calibration.moments.get(name), calibration.reads.get(name)
            )
            for name, layer in zip(group.names, layers, strict=True)
        ]
        return sum(error if output is None else output for error, output in errors) / len(errors)

    def _harm(self, group: Group, layers: Sequence[CompressedLayer]) -> float:
        """``mean(1 - cos)`` of the outputs with only this group compressed."""
        with self._in_place(group, layers):
            return self._lost(self._outputs())

    def _lost(self, outputs: Sequence[torch.Tensor]) -> float:
        pairs = zip(self._target[: len(outputs)], outputs, strict=True)
        lost = [1 - torch.nn.functional.cosine_similarity(dense, changed, dim=1) for dense, changed in pairs]
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
    def _outputs(self, batches: int | None = None) -> list[torch.Tensor]:
        was = self.model.training
        self.model.eval()
        outputs_by_batch = []
        device = next(self.model.parameters()).device
        for features in self._batches[:batches]:
            batch = {
                name: value.to(device) if hasattr(value, "to") else value for name, value in features.items()
            }
            outputs = output_tensors(run(self.model, batch))
            rows = [_rows(output, batch["attention_mask"]) for output in outputs]
            outputs_by_batch.append(torch.cat(rows, dim=1))
        self.model.train(was)
        return outputs_by_batch


def middle_of(errors: Sequence[float]) -> int:
    """The candidate with the median error: the one that is measured.

    >>> middle_of([0.4, 0.1, 0.2])
    2
    """
    return sorted(range(len(errors)), key=lambda number: -errors[number])[len(errors) // 2]


def in_proportion(errors: Sequence[float], measured: int, harm: float) -> list[float]:
    """Harm of all candidates from that of one.

    >>> in_proportion([0.4, 0.1, 0.2], 2, 0.04)
    [0.08, 0.02, 0.04]
    """
    return [harm * error / max(errors[measured], LEAST_ERROR) for error in errors]


def calibration_of(
    model: Any,
    groups: Sequence[Group],
    texts: Sequence[str],
    *,
    tokenizer: Any = None,
    fisher: bool = False,
    token_counts: NDArray[np.int64] | None = None,
) -> Calibration:
    """Statistics of all groups' linear layers on up to :data:`CALIBRATION_TEXTS` texts.

    ``token_counts`` says how often each row of the table of words is read.
    """
    names = [name for group in groups if not group.embedding for name in group.names]
    layers = {name: model.get_submodule(name) for name in names}
    size = 8 if fisher else 64
    batches = text_batches(model, texts[:CALIBRATION_TEXTS], tokenizer=tokenizer, batch_size=size)
    shown = tqdm(
        batches, desc="calibrating", unit=" batches", total=-(-min(len(texts), CALIBRATION_TEXTS) // size)
    )
    calibration = calibrate(model, layers, shown, fisher=fisher)
    if token_counts is not None:
        tables = [name for group in groups if group.embedding for name in group.names]
        calibration.reads = dict.fromkeys(word_tables(model, tables), token_counts)
    return calibration


def group_spec(chosen: Sequence[tuple[Group, LayerSpec]]) -> CompressionSpec:
    """The specification that gives each group its spec and leaves all other layers."""
    rules = tuple(Rule(_literal(name), spec) for group, spec in chosen for name in group.names)
    stacks = tuple(
        Stack(
            _literal(group.names[0].rpartition(".")[0]),
            tuple(name.rpartition(".")[2] for name in group.names),
        )
        for group, spec in chosen
        if len(group.names) > 1 and isinstance(spec, DenseSparseSpec)
    )
    return CompressionSpec(rules, stacks)


def _literal(name: str) -> str:
    """A pattern that matches this name only."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def unrounded(spec: LayerSpec) -> LayerSpec:
    """The spec with the most bits of values: what is factored once for all that differ in bits only.

    >>> unrounded(DenseSparseSpec(nonzeros=3, value_bits=4)) == DenseSparseSpec(nonzeros=3)
    True
    """
    if isinstance(spec, DenseSparseSpec | PruningSpec) and spec.value_bits is not None:
        return replace(spec, value_bits=max(VALUE_BITS))
    return spec


def uncompensated(spec: LayerSpec) -> LayerSpec:
    """The spec whose blocks are solved each for itself, which is quicker."""
    return replace(spec, compensate=False) if isinstance(spec, DenseSparseSpec) else spec


def _with_bits(layers: Sequence[CompressedLayer], spec: LayerSpec) -> list[CompressedLayer]:
    """The same factors rounded as another spec says; other layers as they are."""
    if not isinstance(spec, DenseSparseSpec | PruningSpec):
        return list(layers)
    rounded = [copy.deepcopy(layer) for layer in layers]
    for layer in rounded:
        assert isinstance(layer.factors, FactoredMatrix)
        layer.factors.value_bits = spec.value_bits
    return rounded


def _key(what: str, group: Group, number: int) -> str:
    what = f"{what} of what is read," if group.embedding else what
    return f"{what} {group.name} {json.dumps(group.candidates[number].spec.to_json(), sort_keys=True)}"


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
