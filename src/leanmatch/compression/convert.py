"""Turn a model's layers into compressed ones, in place, and back into what an artifact stores.

::

    factorize(model, default_spec(model), calibration_texts=texts)
    ...                     # train as before, with STF(model, ...) or without
    finalize(model)

The way of a weight matrix, each step in a file of its own::

    factorize              convert.py                                which layers, and which together
    factor_in_order        sequential/solve.py                       encoder layers, each mending those before
    Calibration.metric     calibration.py                            the error that counts for any other layer
    fit_layers             fitting/fit.py                            one function for each method
    dense_sparse_factors   factorization/dense_sparse_solver.py      the solver; others in baselines/
    compensated            factorization/compensation.py             blocks one after another
    learn                  factorization/dictionary.py               pursuit and atom updates in turn
    FactoredMatrix         matrices.py                               the factors as parameters
    FactoredLinear         layers.py                                 the layer that takes the place
"""

from __future__ import annotations

import copy
from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn
from tqdm.auto import tqdm

from leanmatch.compression.calibration import (
    Calibration,
    calibrate,
    count_tokens,
    text_batches,
    word_tables,
)
from leanmatch.compression.fitting.fit import Effort, fit_layers
from leanmatch.compression.fitting.workers import in_parallel
from leanmatch.compression.layer_specs import LAYER_SPECS, DenseSparseSpec, DenseSpec, LayerSpec
from leanmatch.compression.layers import CompressedLayer
from leanmatch.compression.matrices import FactoredMatrix
from leanmatch.compression.sequential.order import EncoderLayer, LayerGroup, encoder_layers
from leanmatch.compression.sequential.solve import factor_in_order
from leanmatch.compression.spec import CompressionSpec
from leanmatch.errors import ModelError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


PlannedLayers: TypeAlias = dict[str, tuple[nn.Linear | nn.Embedding, LayerSpec]]
"""Full name to the dense layer and how it is compressed."""
Factored: TypeAlias = MutableMapping[tuple[tuple[str, ...], LayerSpec, int, int], list[CompressedLayer]]
"""Stand-ins by the layers' names, their spec, iterations and seed."""


@dataclass(frozen=True)
class LayerReport:
    """One layer that was replaced.

    Attributes:
        name: full name of the module.
        spec: how.
        shape: ``(m, n)``.
        error: ``|W - W^|^2 / |W|^2``, before any training, values not yet rounded.
        output_error: the same of the layer's outputs on the calibration texts, of those wanted where the
            layer was factored in order; None without them.
        in_order: the layer was factored on the compressed model's own inputs, against the dense model's
            outputs.
    """

    name: str
    spec: LayerSpec
    shape: tuple[int, int]
    error: float
    output_error: float | None
    in_order: bool = False


@dataclass(frozen=True)
class Conversion:
    """What :func:`factorize` did.

    Attributes:
        layers: one report a replaced module.
        calibration: statistics of layers that were factored each alone; empty where there are none.
    """

    layers: tuple[LayerReport, ...]
    calibration: Calibration

    @property
    def mean_error(self) -> float:
        """Mean relative squared error over the layers."""
        return sum(layer.error for layer in self.layers) / max(1, len(self.layers))


def plan_layers(model: nn.Module, spec: CompressionSpec) -> PlannedLayers:
    """The modules that the spec compresses, by full name, in the model's order; shared ones once.

    Raises:
        UsageError: a rule that no layer matches, a method that does not fit the layer.
        ModelError: blocks that do not divide a layer's inputs, weights that a replaced module shares with
            another kind of module.
    """
    planned: PlannedLayers = {}
    matched: set[LayerSpec] = set()
    for name, module in model.named_modules():
        layer = spec.layer(name)
        if layer is None or not isinstance(module, nn.Linear | nn.Embedding):
            continue
        matched.add(layer)
        if isinstance(layer, DenseSpec):
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
    iterations: int = 15,
    seed: int = 0,
    progress: bool = False,
    folder: Path | None = None,
    cache: Factored | None = None,
    token_counts: NDArray[np.int64] | None = None,
) -> Conversion:
    """Replace layers by compressed ones, in place. A module that is used twice stays one module.

    With texts, the encoder's linear layers are factored *in order*: each on the inputs that the compressed
    model has by then, against the dense model's outputs (:mod:`leanmatch.compression.sequential.solve`);
    their biases change with them. Embeddings, layers outside the encoder, weightings ``none`` and ``fisher``,
    and models whose order is not known (ALBERT shares layers; architectures of your own) are factored each
    layer alone, in the metric of the dense model's inputs where there are texts.

    Args:
        model: any torch model with ``nn.Linear`` and ``nn.Embedding`` layers.
        spec: which layers, and how; :func:`leanmatch.compression.default_spec` makes one.
        calibration_texts: of the domain, in random order; 3,000 short ones do, up to some 49,000 tokens are
            used.
        tokenizer: for models that are no SentenceTransformer.
        calibration: statistics gathered before, instead of texts: every layer is then factored alone.
        iterations: of pursuit and atom updates; below 10 it is a quick first look (no sweeps, see
            :class:`~leanmatch.factorization.DenseSparseOptions`).
        seed: of the first atoms and of Fisher probes.
        progress: a bar on stderr.
        folder: keeps the factors of layers in order; after an interruption the same call goes on from there,
            to the same bits.
        token_counts: how often each token occurs in the domain, int64 ``(tokens,)``; None counts the tokens
            of ``calibration_texts``.

    Raises:
        UsageError, ModelError: see :func:`plan_layers`; a weighting that needs texts, without texts; a text
            that is no string.
        FormatError: the folder holds factors of another run.
    """
    for place, text in enumerate(calibration_texts or ()):
        if not isinstance(text, str):
            raise UsageError(
                f"calibration_texts[{place}] is {text!r}, not a string",
                remedy="join the two texts of a pair with the tokenizer's separator (sep_token)",
            )
    planned = plan_layers(model, spec)
    groups = _groups(planned, spec)
    ordered: list[EncoderLayer] = []
    if calibration is None and calibration_texts is not None:
        ordered = encoder_layers(model, groups)
    names = {name for layer in ordered for stage in layer.stages for name in stage.names}
    alone = [group for group in groups if not names.issuperset(group.names)]
    if calibration is None:
        own = {name: planned[name] for group in alone for name in group.names}
        calibration = _calibrate(model, own, calibration_texts, tokenizer, seed)
    reads = _reads(model, planned, token_counts, calibration_texts, tokenizer) or calibration.reads
    effort = Effort(iterations, seed, threads=None if len(alone) == 1 else 1)

    def fit(group: LayerGroup) -> list[CompressedLayer]:
        key = (group.names, group.spec, iterations, seed)
        if cache is not None and key in cache:
            return copy.deepcopy(cache[key])
        modules = [planned[name][0] for name in group.names]
        metric = calibration.metric(group.names, group.spec.weighting)
        counts = reads.get(group.names[0])
        layers = fit_layers(modules, group.spec, metric, effort, stack=group.stack, counts=counts)
        if cache is not None:
            cache[key] = copy.deepcopy(layers)
        return layers

    stand_ins: dict[str, CompressedLayer] = {}
    pairs = zip(alone, in_parallel(fit, alone), strict=True)
    for group, layers in tqdm(pairs, "factorizing", len(alone), unit=" layers", disable=not progress):
        stand_ins |= zip(group.names, layers, strict=True)
    output_errors: dict[str, float] = {}
    if any(layer.stages for layer in ordered):
        solved = factor_in_order(
            model,
            ordered,
            calibration_texts or (),
            Effort(iterations, seed),
            stand_ins=stand_ins,
            tokenizer=tokenizer,
            folder=folder,
            progress=progress,
        )
        stand_ins |= {name: entry.layer for name, entry in solved.items()}
        output_errors = {name: entry.output_error for name, entry in solved.items()}
    reports: list[LayerReport] = []
    replaced: dict[int, nn.Module] = {}
    for name, (old, layer_spec) in planned.items():
        new = stand_ins[name]
        new.train(old.training)
        moment = calibration.moments.get(name)
        error, output_error = relative_errors(old.weight, new, moment, reads.get(name))
        shape = (len(old.weight), old.weight.shape[1])
        output_error = output_errors.get(name, output_error)
        reports.append(LayerReport(name, layer_spec, shape, error, output_error, name in output_errors))
        replaced[id(old)] = new
    _replace(model, replaced)
    return Conversion(tuple(reports), calibration)


def _reads(
    model: nn.Module,
    planned: PlannedLayers,
    counts: NDArray[np.int64] | None,
    texts: Sequence[str] | None,
    tokenizer: Any,
) -> dict[str, NDArray[np.int64]]:
    """How often each row of the table of words is read, if that table is planned and the texts are known."""
    names = word_tables(model, planned)
    if not names or (counts is None and texts is None):
        return {}
    if counts is None:
        counts = count_tokens(model, texts or (), tokenizer=tokenizer)
    assert counts is not None
    rows = len(planned[names[0]][0].weight)
    if len(counts) != rows:
        raise UsageError(
            f"token_counts has {len(counts)} entries, the table of words {rows} rows",
            remedy="count the ids of the model's own tokenizer (np.bincount with minlength)",
        )
    return dict.fromkeys(names, counts)


def _calibrate(
    model: nn.Module, planned: PlannedLayers, texts: Sequence[str] | None, tokenizer: Any, seed: int
) -> Calibration:
    """What the texts say about the layers whose solvers ask for it; nothing without texts."""
    linear = {name: module for name, (module, _) in planned.items() if isinstance(module, nn.Linear)}
    weightings = {planned[name][1].weighting for name in linear}
    if texts is None:
        missing = sorted(weightings & {"activation", "fisher"})
        if missing:
            raise UsageError(
                f"weighting {missing} needs calibration texts",
                remedy="factorize(..., calibration_texts=texts), or weighting 'auto' or 'none'",
            )
        return Calibration()
    if weightings <= {"none"}:
        return Calibration()
    fisher = "fisher" in weightings
    batches = text_batches(model, texts, tokenizer=tokenizer, batch_size=8 if fisher else 64)
    return calibrate(model, linear, batches, fisher=fisher, seed=seed)


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


def reopen(model: nn.Module) -> nn.Module:
    """Undo :func:`finalize`, in place: integer codes become parameters that training can move.

    Supports, scales of odd codes, and bits stay. Until a parameter moves, the outputs are those of the codes,
    and :func:`finalize` gives the same codes again.

    Raises:
        ModelError: the model has no compressed layer.
    """
    layers = compressed_layers(model)
    if not layers:
        raise ModelError("the model has no compressed layer", remedy="call factorize(model, spec) first")
    stacks: dict[str, FactoredMatrix] = {}
    for layer in layers.values():
        layer.reopen_()
        matrix = layer.factors
        if isinstance(matrix, FactoredMatrix) and matrix.stack is not None:
            first = stacks.setdefault(matrix.stack, matrix)
            if first is not matrix:
                share_atoms(first, matrix)
    return model


def share_atoms(first: FactoredMatrix, other: FactoredMatrix) -> None:
    """Let two matrices of a stack hold one and the same tensor of atoms, not two equal ones."""
    for name in ("atoms", "atoms_q", "atoms_scale"):
        if hasattr(first, name):
            setattr(other, name, getattr(first, name))


def compressed_layers(model: nn.Module) -> dict[str, CompressedLayer]:
    """The compressed layers by full name; a shared one once."""
    return {name: module for name, module in model.named_modules() if isinstance(module, CompressedLayer)}


def _groups(planned: PlannedLayers, spec: CompressionSpec) -> list[LayerGroup]:
    """The members of a stack together, every other layer alone."""
    groups: list[LayerGroup] = []
    grouped: set[str] = set()
    for name, (module, layer) in planned.items():
        if name in grouped:
            continue
        stack = spec.stack(name)
        if stack is not None and isinstance(layer, DenseSparseSpec) and isinstance(module, nn.Linear):
            parent, children = stack
            members = tuple(f"{parent}.{child}" for child in children)
            unlike = [member for member in members if member not in planned or planned[member][1] != layer]
            if unlike:
                raise UsageError(
                    f"the stack at {parent!r} needs one layer spec for all (differs: {', '.join(unlike)})",
                    remedy="give them one rule, or leave the stack out",
                )
            groups.append(LayerGroup(members, layer, parent))
        else:
            groups.append(LayerGroup((name,), layer, None))
        grouped.update(groups[-1].names)
    return groups


def _check_fit(name: str, module: nn.Linear | nn.Embedding, layer: LayerSpec) -> None:
    if isinstance(module, nn.Embedding) and not layer.for_embeddings:
        valid = ", ".join(method for method, kind in LAYER_SPECS.items() if kind.for_embeddings)
        raise UsageError(f"method {layer.method!r} is not for embeddings ({name})", remedy=f"one of {valid}")
    rows, columns = module.weight.shape
    misfit = layer.misfit(rows, columns)
    if misfit is not None:
        raise ModelError(
            f"{name} is {rows} x {columns}: {misfit}",
            remedy="use sizes that fit, or leave it out: a rule with method 'dense' before the others",
        )


def _check_ties(model: nn.Module, planned: PlannedLayers) -> None:
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
    weight: Tensor, layer: CompressedLayer, moment: Tensor | None, reads: NDArray[np.int64] | None = None
) -> tuple[float, float | None]:
    """Relative squared errors of the weight, ``|E|^2 / |W|^2``, and of the outputs.

    The outputs' error of a linear layer is ``tr(E H E^T) / tr(W H W^T)``, given ``H``. That of a table is the
    mean over all reads, ``sum_t c_t |E_t|^2 / sum_t c_t |W_t|^2``, where ``reads`` holds the counts ``c``.
    """
    with torch.no_grad():
        full = weight.float()
        lost = full - layer.factors.weight()
        error = float(lost.square().sum() / full.square().sum().clamp_min(1e-30))
        if reads is not None and reads.any():
            each = torch.from_numpy(reads).to(full)[:, None]
            return error, float((each * lost.square()).sum() / (each * full.square()).sum().clamp_min(1e-30))
        if moment is None:
            return error, None
        output_error = ((lost @ moment) * lost).sum()
        return error, float(output_error / ((full @ moment) * full).sum().clamp_min(1e-30))


def _example(model: nn.Module) -> str:
    return next(
        (name for name, module in model.named_modules() if isinstance(module, nn.Linear)), "(no linear layer)"
    )
