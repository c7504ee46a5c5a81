"""What calibration texts say about each linear layer: second moments of its inputs, Fisher information.

For a layer ``y = W x``: ``moment = E[x x^T]`` over real tokens, and ``fisher[o, c] = E[(sum_t g_to
x_tc)^2]`` over texts, with ``g`` the gradient at ``y`` of a random projection of the model's output: the
diagonal of the Gauss-Newton matrix of any squared error on that output. It needs no labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from leanmatch.compression.decode import as_array
from leanmatch.errors import UsageError
from leanmatch.factorization import ErrorMetric
from leanmatch.models.adapter import tokenize, transformer_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

OUTPUTS = ("sentence_embedding", "logits", "start_logits", "end_logits", "last_hidden_state")


@dataclass
class Calibration:
    """What calibration texts say, by layer name.

    Attributes:
        moments: second moments of the layer's inputs, float32 ``(n, n)``.
        fisher: Fisher information of its weight, float32 ``(m, n)``; empty where it was not asked for.
        tokens: tokens seen.
        reads: how often the texts read each row of a table, int64 ``(m,)``.
    """

    moments: dict[str, Tensor] = field(default_factory=dict)
    fisher: dict[str, Tensor] = field(default_factory=dict)
    tokens: int = 0
    reads: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def metric(self, names: Sequence[str], weighting: str) -> ErrorMetric:
        """The error that solvers minimize for layers with the same inputs, one above the other.

        Args:
            names: of the layers.
            weighting: one of :data:`leanmatch.compression.layer_specs.WEIGHTINGS`.
        """
        if weighting == "none":
            return ErrorMetric()
        moments, fisher = self.moments.get(names[0]), None
        if weighting == "fisher" and names[0] in self.fisher:
            fisher = torch.cat([self.fisher[name] for name in names])
        return ErrorMetric(
            moments=None if moments is None else as_array(moments.double()),
            fisher=None if fisher is None else as_array(fisher.double()),
        )


def calibrate(
    model: nn.Module,
    layers: Mapping[str, nn.Linear],
    batches: Iterable[Mapping[str, Any]],
    *,
    fisher: bool = False,
    seed: int = 0,
) -> Calibration:
    """Run the model on tokenized texts and gather the statistics of some of its linear layers.

    Args:
        model: a Hugging Face model or a SentenceTransformer; put back in the mode it was in.
        layers: the layers by name.
        batches: feature dicts with ``input_ids`` and ``attention_mask``; small ones where Fisher information
            is wanted, because gradients are squared once a batch.
        fisher: gather Fisher information too (a backward pass a batch).
        seed: of the random projections.
    """
    calibration = Calibration()
    mask: list[Tensor] = []

    def listen(name: str) -> Any:
        def hook(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().float()
            real = mask[0]
            x = x[real] if x.shape[:2] == real.shape else x.reshape(-1, x.shape[-1])
            moment = x.T @ x
            calibration.moments[name] = calibration.moments.get(name, 0) + moment

        return hook

    handles = [layer.register_forward_pre_hook(listen(name)) for name, layer in layers.items()]
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    parameters = {name: layer.weight for name, layer in layers.items()}
    learned = {id(weight): weight.requires_grad for weight in parameters.values()}
    try:
        if fisher:
            for weight in parameters.values():
                weight.requires_grad_(True)
        for batch in batches:
            features = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            mask[:] = [features["attention_mask"].bool()]
            calibration.tokens += int(mask[0].sum())
            with torch.set_grad_enabled(fisher):
                outputs = run(model, features)
            if fisher:
                _add_fisher(calibration, parameters, outputs, generator)
    finally:
        for handle in handles:
            handle.remove()
        for weight in parameters.values():
            weight.requires_grad_(learned[id(weight)])
        model.train(was_training)
    if not calibration.tokens:
        raise UsageError("there is no calibration text", remedy="give at least a few dozen texts")
    calibration.moments = {name: moment / calibration.tokens for name, moment in calibration.moments.items()}
    return calibration


def run(model: nn.Module, features: Mapping[str, Any]) -> Any:
    """The model's output: a SentenceTransformer takes a dict, a Hugging Face model keyword arguments."""
    return model(dict(features)) if hasattr(model, "encode") else model(**features)


def output_tensors(outputs: Any) -> list[Tensor]:
    """A model's main outputs: embeddings or logits, or hidden states where it has neither."""
    tensors = [outputs[name] for name in OUTPUTS if name in outputs and outputs[name] is not None]
    return tensors[: 2 if "start_logits" in outputs else 1]


def _add_fisher(
    calibration: Calibration, parameters: Mapping[str, Tensor], outputs: Any, generator: torch.Generator
) -> None:
    total: Any = 0
    for output in output_tensors(outputs):
        probe = torch.randn(output.shape, generator=generator).to(output)
        total = total + (probe * output).sum()
    gradients = torch.autograd.grad(total, list(parameters.values()), allow_unused=True)
    for name, gradient in zip(parameters, gradients, strict=True):
        if gradient is not None:
            calibration.fisher[name] = calibration.fisher.get(name, 0) + gradient.float() ** 2


def text_batches(
    model: Any, texts: Sequence[str], *, tokenizer: Any = None, batch_size: int = 32, max_length: int = 128
) -> Iterator[dict[str, Any]]:
    """Tokenized batches of texts, by length so that they hold little padding.

    Raises:
        UsageError: the model is no SentenceTransformer and no tokenizer is given.
    """
    ordered = sorted(texts, key=len)
    for start in range(0, len(ordered), batch_size):
        part = list(ordered[start : start + batch_size])
        yield tokenize(model, part, tokenizer=tokenizer, max_length=max_length)


def word_table(model: Any) -> Any:
    """The table of word embeddings; None for a model that does not say which table it is."""
    inner = transformer_of(model) if hasattr(model, "encode") else model
    return inner.get_input_embeddings() if hasattr(inner, "get_input_embeddings") else None


def word_tables(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Those of the full names of modules under which :func:`word_table` stands."""
    words = word_table(model)
    return [name for name in names if words is not None and model.get_submodule(name) is words]


def count_tokens(model: Any, texts: Sequence[str], *, tokenizer: Any = None) -> NDArray[np.int64] | None:
    """How often each token occurs in texts, int64 ``(tokens,)``; None for a model without a table of words.

    Raises:
        UsageError: the model is no SentenceTransformer and no tokenizer is given.
    """
    table = word_table(model)
    if table is None:
        return None
    counts = np.zeros(len(table.weight), np.int64)
    for features in text_batches(model, texts, tokenizer=tokenizer, batch_size=256):
        ids = features["input_ids"][features["attention_mask"].bool()]
        counts += np.bincount(ids.cpu().numpy(), minlength=len(counts))
    return counts
