"""First factors in the order of the data, on the compressed model's own inputs, against the dense model's
outputs.

For each group of layers in turn, with ``X`` the inputs that the compressed model has there by now and ``Y``
the outputs that the dense model has:

1. where the outputs are added to the residual stream, ``Y`` also gets what the compressed model's stream
lacks;
2. ``W_t = W + (Y - W X) X^T / N (H + 0.1 mean(diag H) I)^-1`` with centered ``X`` and ``Y`` and ``H = X X^T /
   N`` (:func:`leanmatch.factorization.outputs.wanted_weight`);
3. the layer's solver approximates ``W_t`` in the metric ``H``; supports, atoms and values are free;
4. the bias becomes the mean error that is left.

So each layer mends the errors of those before it, where factors of each layer alone let them pile up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import nn
from tqdm.auto import tqdm

from leanmatch.compression.decode import as_array, float_array
from leanmatch.compression.fitting.fit import Effort, fit_layers
from leanmatch.compression.fitting.workers import in_parallel
from leanmatch.compression.layers import CompressedLayer, CompressedLinear
from leanmatch.compression.sequential.checkpoints import (
    GroupFile,
    Kept,
    digest_of_batches,
    group_files,
)
from leanmatch.compression.sequential.order import EncoderLayer, LayerGroup, Stage
from leanmatch.compression.sequential.replay import Replay
from leanmatch.errors import UsageError
from leanmatch.factorization import ErrorMetric
from leanmatch.factorization.outputs import Centered, OutputMoments, wanted_weight
from leanmatch.memory import return_freed
from leanmatch.models.adapter import evaluation_mode, tokenize

if TYPE_CHECKING:
    from torch import Tensor

MOST_TOKENS, LEAST_TOKENS = 196_608, 49_152
"""Bounds of the number of tokens that layers are fitted on; between them :data:`MEMORY_BYTES` decides. Texts
beyond the number are left out."""
MEMORY_BYTES = 2**32
"""Memory for the hidden states and outputs of one encoder layer, for all tokens and both models."""
BYTES_A_FLOAT = 3
"""Bytes that each input and each output of a linear layer takes for a token: a peak, measured on MiniLM in
bfloat16."""
BATCH_TOKENS = 4096
"""Of one pass, padding included; a longer text passes alone."""
MOST_LENGTH = 128
"""Tokens of a text, for models that are no SentenceTransformer."""


@dataclass(frozen=True)
class SolvedLayer:
    """A layer's stand-in, and the share of its wanted outputs (of its whole group's) that it misses."""

    layer: CompressedLayer
    output_error: float


def factor_in_order(
    model: Any,
    layers: Sequence[EncoderLayer],
    texts: Sequence[str],
    effort: Effort,
    *,
    stand_ins: Mapping[str, CompressedLayer],
    tokenizer: Any = None,
    folder: Path | None = None,
    progress: bool = False,
) -> dict[str, SolvedLayer]:
    """Stand-ins of all layers of all stages, by full name. The model stays as it is.

    Args:
        model: the dense model.
        layers: :func:`leanmatch.compression.sequential.order.encoder_layers`.
        texts: of the domain, in random order; at most :func:`most_tokens` tokens of them are used.
        effort: of each group's solver.
        stand_ins: of what is compressed otherwise (tables), by full name.
        tokenizer: for models that are no SentenceTransformer.
        folder: keeps the factors of finished groups; the same call goes on from there to the same bits.
        progress: a bar on stderr.

    Raises:
        UsageError: no text.
        FormatError: the folder belongs to another run.
        DataError: the model gives NaN or infinite numbers.
    """
    stages = [stage for layer in layers for stage in layer.stages]
    modules = {name: model.get_submodule(name) for stage in stages for name in stage.names}
    linear = [[modules[n] for stage in layer.stages for n in stage.names] for layer in layers]
    most = min(most_tokens(own) for own in linear if own)
    batches = token_batches(model, texts, most, tokenizer=tokenizer)
    groups = [(group, [modules[n] for n in group.names]) for stage in stages for group in stage.groups]
    files = group_files(folder, digest_of_batches(batches), groups, effort)
    kept = [file.load(group, own, effort) for file, (group, own) in zip(files, groups, strict=True)]
    solved: dict[str, SolvedLayer] = {}
    whole = [(group, entry) for (group, _), entry in zip(groups, kept, strict=True) if entry is not None]
    if len(whole) == len(groups):  # no text has to pass the models
        for group, entry in whole:
            solved |= _named(group, entry)
        return solved
    pending = iter(zip(files, kept, strict=True))
    last = max(number for number, layer in enumerate(layers) if layer.stages)
    replay = Replay(model, layers, batches, stand_ins)
    with (
        evaluation_mode(model),
        threadpool_limits(limits=torch.get_num_threads(), user_api="blas"),
        tqdm(total=len(groups), desc="factorizing", unit=" groups", disable=not progress) as bar,
    ):
        for number, layer in enumerate(layers[: last + 1]):
            replay.enter(number)
            for stage in layer.stages:
                of_stage = _solve_stage(replay, stage, modules, effort, [next(pending) for _ in stage.groups])
                replay.settle(stage, {name: entry.layer for name, entry in of_stage.items()})
                solved |= of_stage
                return_freed()  # outputs of a stage that no later one needs: hundreds of megabytes
                bar.update(len(stage.groups))
            if number < last:
                replay.leave()
    return solved


def _solve_stage(
    replay: Replay,
    stage: Stage,
    modules: Mapping[str, nn.Linear],
    effort: Effort,
    pending: Sequence[tuple[GroupFile, Kept | None]],
) -> dict[str, SolvedLayer]:
    layers = {name: modules[name] for name in stage.names}
    members = [[modules[name] for name in group.names] for group in stage.groups]
    outputs = _gather(replay, stage, list(layers.values()), counted=any(kept is None for _, kept in pending))

    def solve(number: int) -> Kept:
        file, kept = pending[number]
        if kept is None:
            assert outputs is not None
            first = sum(len(module.weight) for own in members[:number] for module in own)
            rows = slice(first, first + sum(len(module.weight) for module in members[number]))
            own_effort = effort if len(members) == 1 else replace(effort, threads=1)
            kept = solve_group(stage.groups[number], members[number], outputs.rows(rows), own_effort)
            file.save(*kept)
        return kept

    solved: dict[str, SolvedLayer] = {}
    for group, entry in zip(stage.groups, in_parallel(solve, range(len(members))), strict=True):
        solved |= _named(group, entry)
    return solved


def _named(group: LayerGroup, entry: Kept) -> dict[str, SolvedLayer]:
    stand_ins, error = entry
    return {name: SolvedLayer(layer, error) for name, layer in zip(group.names, stand_ins, strict=True)}


def _gather(replay: Replay, stage: Stage, modules: Sequence[nn.Linear], *, counted: bool) -> Centered | None:
    """Reach the stage with all batches; the moments of inputs and wanted outputs, where they are needed."""
    centered = all(module.bias is not None for module in modules)
    moments = OutputMoments(centered=centered)
    for row in range(len(replay.masks)):
        x, wanted = replay.reach(stage, row)
        if not counted:
            continue
        if not centered:  # biases stay, the weight alone is fitted
            wanted = wanted - torch.cat([_bias_or_zeros(module) for module in modules])
        moments.add(float_array(x.cpu()), float_array(wanted.cpu()))
    return moments.finish() if counted else None


def solve_group(
    group: LayerGroup, modules: Sequence[nn.Linear], outputs: Centered, effort: Effort
) -> tuple[list[CompressedLayer], float]:
    """Stand-ins of layers that are compressed together, with their biases, and their output error.

    Args:
        group: how.
        modules: the dense layers.
        outputs: moments of inputs and wanted outputs, of the layers one above the other.
        effort: of the solver.
    """
    dense = torch.cat([module.weight.detach().float() for module in modules])
    target = torch.from_numpy(wanted_weight(as_array(dense), outputs)).to(dense.device)
    metric = ErrorMetric(moments=outputs.moments)
    layers = fit_layers(modules, group.spec, metric, effort, stack=group.stack, target=target)
    with torch.no_grad():
        weight = as_array(torch.cat([layer.factors.weight() for layer in layers]))
        bias = torch.from_numpy(outputs.bias(weight).astype(np.float32))
        begin = 0
        for layer, module in zip(layers, modules, strict=True):
            assert isinstance(layer, CompressedLinear)
            end = begin + len(module.weight)
            if outputs.centered and layer.bias is not None:
                layer.bias.copy_(bias[begin:end])
            begin = end
    return layers, outputs.error(weight)


def _bias_or_zeros(module: nn.Linear) -> Tensor:
    return torch.zeros(len(module.weight)) if module.bias is None else module.bias.detach().float()


def most_tokens(layer: Sequence[nn.Linear]) -> int:
    """How many tokens to fit on, so that what an encoder layer of these linear layers keeps fits in memory.

    >>> most_tokens([nn.Linear(384, 1536), nn.Linear(1536, 384)]), most_tokens([nn.Linear(9000, 9000)] * 4)
    (196608, 49152)
    """
    floats = sum(module.in_features + module.out_features for module in layer)
    return min(MOST_TOKENS, max(LEAST_TOKENS, MEMORY_BYTES // max(1, BYTES_A_FLOAT * floats)))


def token_batches(
    model: Any, texts: Sequence[str], most: int, *, tokenizer: Any = None
) -> list[dict[str, Any]]:
    """Tokenized batches of the first texts, up to ``most`` tokens, by length so that they hold little
    padding.

    Raises:
        UsageError: no text.
    """
    lengths: list[int] = []
    for begin in range(0, len(texts), 256):
        part = tokenize(model, texts[begin : begin + 256], tokenizer=tokenizer, max_length=MOST_LENGTH)
        lengths += part["attention_mask"].sum(dim=1).tolist()
        if sum(lengths) >= most:
            break
    within = int((np.cumsum(lengths) <= most).sum()) if lengths else 0
    order = sorted(range(min(max(1, within), len(lengths))), key=lambda row: lengths[row])
    if not order:
        raise UsageError("there is no calibration text", remedy="give at least a few dozen texts")
    batches: list[list[int]] = [[]]
    for row in order:
        if batches[-1] and lengths[row] * (len(batches[-1]) + 1) > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(row)
    return [
        tokenize(model, [texts[row] for row in rows], tokenizer=tokenizer, max_length=MOST_LENGTH)
        for rows in batches
    ]
