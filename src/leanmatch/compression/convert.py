"""Turn a model's layers into compressed ones, in place, and back into what an artifact stores.

::

    factorize(model, default_spec(model), calibration_texts=texts)
    ...                     # train as before, with STF(model, ...) or without
    finalize(model)
"""

from __future__ import annotations

import copy
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from tqdm.auto import tqdm

from leanmatch.compression.calibration import Calibration, calibrate, text_batches
from leanmatch.compression.fitting.fit import Effort, fit_group
from leanmatch.compression.fitting.workers import beside_one_another
from leanmatch.compression.layers import CompressedLayer
from leanmatch.compression.matrices import FactoredMatrix
from leanmatch.compression.spec import FOR_EMBEDDINGS, CompressionSpec, LayerSpec
from leanmatch.errors import ModelError, UsageError

if TYPE_CHECKING:
    from torch import Tensor


Factored = MutableMapping[tuple[tuple[str, ...], LayerSpec, int, int], list[CompressedLayer]]
"""Stand-ins by the layers' names, their spec, rounds and seed."""


@dataclass(frozen=True)
class LayerReport:
    """One layer that was replaced.

    Attributes:
        name: full name of the module.
        spec: how.
        shape: ``(m, n)``.
        error: ``|W - W^|^2 / |W|^2``, before any training, values not yet rounded.
        output_error: the same of the layer's outputs on the calibration texts; None without them.
    """

    name: str
    spec: LayerSpec
    shape: tuple[int, int]
    error: float
    output_error: float | None


@dataclass(frozen=True)
class Conversion:
    """What :func:`factorize` did.

    Attributes:
        layers: one report a replaced module.
        calibration: statistics that were used, empty without calibration texts.
    """

    layers: tuple[LayerReport, ...]
    calibration: Calibration

    @property
    def mean_error(self) -> float:
        """Mean relative squared error over the layers."""
        return sum(layer.error for layer in self.layers) / max(1, len(self.layers))


def plan_layers(model: nn.Module, spec: CompressionSpec) -> dict[str, tuple[nn.Module, LayerSpec]]:
    """The modules that the spec compresses, by full name, in the model's order; shared ones once.

    Raises:
        UsageError: a rule that no layer matches, a method that does not fit the layer.
        ModelError: blocks that do not divide a layer's inputs, weights that a replaced module shares with
            another kind of module.
    """
    planned: dict[str, tuple[nn.Module, LayerSpec]] = {}
    matched: set[LayerSpec] = set()
    for name, module in model.named_modules():
        layer = spec.layer(name)
        if layer is None or not isinstance(module, nn.Linear | nn.Embedding):
            continue
        matched.add(layer)
        if layer.method == "dense":
            continue
        _check_fit(name, module, layer)
        planned[name] = (module, layer)
    for rule in spec.rules:
        if rule.layer not in matched:
            raise UsageError(
                f"no linear or embedding layer matches the pattern {rule.pattern!r}",
                remedy=f"names look like {_example(model)!r}",
            )
    _check_ties(model, planned)
    return planned


def factorize(
    model: nn.Module,
    spec: CompressionSpec,
    *,
    calibration_texts: Sequence[str] | None = None,
    tokenizer: Any = None,
    calibration: Calibration | None = None,
    rounds: int = 15,
    seed: int = 0,
    progress: bool = False,
    cache: Factored | None = None,
) -> Conversion:
    """Replace layers by compressed ones, in place. A module that is used twice stays one module.

    Args:
        model: any torch model with ``nn.Linear`` and ``nn.Embedding`` layers.
        spec: which layers, and how; :func:`leanmatch.compression.default_spec` makes one.
        calibration_texts: a few hundred texts of the domain: factors then minimize the error of each layer's
            outputs on them, which is much better than plain Frobenius error.
        tokenizer: for models that are no SentenceTransformer.
        calibration: statistics gathered before, instead of texts.
        rounds: alternations of pursuit and atoms; below 10 it is a quick first look (no sweeps, see
            :class:`~leanmatch.factorization.DenseSparseOptions`).
        seed: of the first atoms and of Fisher probes.
        progress: a bar on stderr.
        cache: factors of earlier calls with the same model and calibration; new ones are added.

    Raises:
        UsageError, ModelError: see :func:`plan_layers`; a weighting that needs texts, without texts.
    """
    planned = plan_layers(model, spec)
    linear = {name: module for name, (module, _) in planned.items() if isinstance(module, nn.Linear)}
    wanted = {planned[name][1].weighting for name in linear}
    known = calibration is not None or calibration_texts is not None
    if not known and wanted & {"activation", "fisher"}:
        raise UsageError(
            f"weighting {sorted(wanted & {'activation', 'fisher'})} needs calibration texts",
            remedy="factorize(..., calibration_texts=texts), or weighting 'auto' or 'none'",
        )
    if calibration is None and calibration_texts is not None and linear and wanted != {"none"}:
        fisher = "fisher" in wanted
        batches = text_batches(model, calibration_texts, tokenizer=tokenizer, batch_size=8 if fisher else 64)
        calibration = calibrate(model, linear, batches, fisher=fisher, seed=seed)
    calibration = calibration or Calibration()
    groups = _groups(planned, spec)
    effort = Effort(rounds, seed, None if len(groups) == 1 else 1)

    def fit(names: tuple[str, ...]) -> list[CompressedLayer]:
        layer = planned[names[0]][1]
        key = (names, layer, rounds, seed)
        if cache is not None and key in cache:
            return copy.deepcopy(cache[key])
        modules = {name: planned[name][0] for name in names}
        stack = spec.stack(names[0]) if len(names) > 1 else None
        made = fit_group(modules, layer, calibration.of(names), effort, stack=stack and stack[0])
        if cache is not None:
            cache[key] = copy.deepcopy(made)
        return made

    reports: list[LayerReport] = []
    replaced: dict[int, nn.Module] = {}
    fitted = beside_one_another(fit, groups)
    pairs = zip(groups, fitted, strict=True)
    shown = tqdm(pairs, "factorizing", len(groups), unit=" layers", disable=not progress)
    for names, made in shown:
        for name, new in zip(names, made, strict=True):
            old, layer = planned[name]
            new.train(old.training)
            weight = cast("Tensor", old.weight)
            errors = relative_errors(weight, new, calibration.moments.get(name))
            reports.append(LayerReport(name, layer, (weight.shape[0], weight.shape[1]), *errors))
            replaced[id(old)] = new
    _replace(model, replaced)
    return Conversion(tuple(reports), calibration)


def finalize(model: nn.Module) -> nn.Module:
    """Replace trained factors by what an artifact stores, in place: integer codes, frozen supports, no
    evidence.

    The outputs do not change by it. Layers whose specification keeps floats keep parameters.

    Raises:
        ModelError: the model has no compressed layer, or weights are not finite.
    """
    layers = compressed_layers(model)
    if not layers:
        raise ModelError("the model has no compressed layer", remedy="call factorize(model, spec) first")
    atoms: dict[int, FactoredMatrix] = {}
    for layer in layers.values():
        before = layer.factors
        shared = (
            id(before.atoms)
            if isinstance(before, FactoredMatrix) and before.stack and not before.finalized
            else 0
        )
        layer.finalize_()
        after = layer.factors
        if not shared or not isinstance(after, FactoredMatrix):
            continue
        first = atoms.setdefault(shared, after)
        if first is not after:
            share_atoms(first, after)
    return model


def share_atoms(first: FactoredMatrix, other: FactoredMatrix) -> None:
    """Let two matrices of a stack hold one and the same tensor of atoms, not two equal ones."""
    for name in ("atoms", "atoms_q", "atoms_scale"):
        if hasattr(first, name):
            setattr(other, name, getattr(first, name))


def compressed_layers(model: nn.Module) -> dict[str, CompressedLayer]:
    """The compressed layers by full name; a shared one once."""
    return {name: module for name, module in model.named_modules() if isinstance(module, CompressedLayer)}


def _groups(planned: dict[str, tuple[nn.Module, LayerSpec]], spec: CompressionSpec) -> list[tuple[str, ...]]:
    """Names that are factored together: the members of a stack, every other layer alone."""
    groups: list[tuple[str, ...]] = []
    done: set[str] = set()
    for name, (module, layer) in planned.items():
        if name in done:
            continue
        group: tuple[str, ...] = (name,)
        found = spec.stack(name)
        if found is not None and layer.method == "dense-sparse" and isinstance(module, nn.Linear):
            parent, children = found
            members = tuple(f"{parent}.{child}" for child in children)
            unlike = [m for m in members if m not in planned or planned[m][1] != layer]
            if unlike:
                raise UsageError(
                    f"the stack at {parent!r} needs one layer spec for all (differs: {', '.join(unlike)})",
                    remedy="give them one rule, or leave the stack out",
                )
            group = members
        done.update(group)
        groups.append(group)
    return groups


def _check_fit(name: str, module: nn.Linear | nn.Embedding, layer: LayerSpec) -> None:
    rows, columns = module.weight.shape
    if isinstance(module, nn.Embedding) and layer.method not in FOR_EMBEDDINGS:
        raise UsageError(
            f"method {layer.method!r} is not for embeddings ({name})",
            remedy=f"one of {', '.join(FOR_EMBEDDINGS)}",
        )
    width = {"dense-sparse": layer.block, "nm": layer.block, "int": layer.group or columns}.get(layer.method)
    if width and columns % width:
        raise ModelError(
            f"{name} has {columns} inputs, which blocks of {width} do not divide",
            remedy=f"use a width that divides {columns}",
        )
    if layer.method == "low-rank" and layer.rank is not None and layer.rank > min(rows, columns):
        raise ModelError(f"{name} is {rows} x {columns}: its rank cannot be {layer.rank}")


def _check_ties(model: nn.Module, planned: dict[str, tuple[nn.Module, LayerSpec]]) -> None:
    chosen = {id(module.weight): name for name, (module, _) in planned.items()}
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            other = chosen.get(id(parameter))
            if other is None or name in planned or module is planned[other][0]:
                continue
            if type(module) is not type(planned[other][0]):
                raise ModelError(
                    f"{other} shares its weight with {name}, a {type(module).__name__}",
                    remedy="leave it out: a rule with method 'dense' before the others",
                )


def _replace(model: nn.Module, replaced: dict[int, nn.Module]) -> None:
    """Put new modules wherever the old ones stand, or modules that share their weight."""
    by_weight: dict[int, nn.Module] = {}
    for module in list(model.modules()):
        new = replaced.get(id(module))
        if new is not None:
            by_weight[id(module.weight)] = new
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            new = replaced.get(id(child))
            if new is None and isinstance(child, nn.Linear | nn.Embedding):
                new = by_weight.get(id(child.weight))
            if new is not None:
                setattr(parent, name, new)


def relative_errors(
    weight: Tensor, made: CompressedLayer, moment: Tensor | None
) -> tuple[float, float | None]:
    """Of the weight, ``|E|^2 / |W|^2``, and of the outputs, ``tr(E H E^T) / tr(W H W^T)``, given ``H``."""
    with torch.no_grad():
        full = weight.float()
        left = full - made.factors.weight()
        error = float(left.square().sum() / full.square().sum().clamp_min(1e-30))
        if moment is None:
            return error, None
        lost = ((left @ moment) * left).sum()
        return error, float(lost / ((full @ moment) * full).sum().clamp_min(1e-30))


def _example(model: nn.Module) -> str:
    return next(
        (name for name, module in model.named_modules() if isinstance(module, nn.Linear)), "(no linear layer)"
    )
