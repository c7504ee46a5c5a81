"""A model as a function of tensors: what an exporter traces, and what its graph is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from leanmatch.formats.artifact.outputs import most_tokens
from leanmatch.formats.exports.source import Source
from leanmatch.models.adapter import tokenize

MATCHER_INPUTS = ("input_ids", "attention_mask")
"""Inputs of every matcher; others only where they are not all zeros (never seen so far)."""
MATCHER_OUTPUT = "sentence_embedding"
EXAMPLES = ("usb c dock with two hdmi ports", "How do I mount an external drive on startup?")


class MatcherGraph(torch.nn.Module):
    """A sentence encoder with all of its modules: token ids and mask to vectors.

    Args:
        model: a ``SentenceTransformer`` with stock layers.
        names: names of the inputs, in their order.
    """

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(list(model))
        self.names = tuple(names)

    def forward(self, *tensors: Any) -> Any:
        """Vectors ``(batch, dimension)`` of ids and mask ``(batch, length)``."""
        features = dict(zip(self.names, tensors, strict=True))
        for part in self.parts:
            features = part(features)
        return features[MATCHER_OUTPUT]


class StaticGraph(torch.nn.Module):
    """A static encoder: the mean of the rows of the tokens, and the modules behind it.

    Args:
        model: a ``SentenceTransformer`` that begins with a ``StaticEmbedding`` with a stock table.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(model[0].embedding.weight.detach().clone(), requires_grad=False)
        self.parts = torch.nn.ModuleList(list(model)[1:])

    def forward(self, ids: Any, mask: Any) -> Any:
        """As :class:`MatcherGraph`; a text without a token is zeros."""
        weights = mask.to(self.table.dtype)
        rows = torch.nn.functional.embedding(ids, self.table) * weights.unsqueeze(-1)
        vectors = rows.sum(1) / weights.sum(1, keepdim=True).clamp(min=1.0)
        features = {MATCHER_OUTPUT: vectors}
        for part in self.parts:
            features = part(features)
        return features[MATCHER_OUTPUT]


class PlainGraph(torch.nn.Module):
    """A transformers model: its inputs to all of its tensors.

    Args:
        model: with stock layers.
        names: names of the inputs, in their order.
    """

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)

    def forward(self, *tensors: Any) -> Any:
        """A tuple of every output that is a tensor."""
        outputs = self.model(**dict(zip(self.names, tensors, strict=True)))
        return tuple(value for value in outputs.to_tuple() if isinstance(value, torch.Tensor))


def graph_of(source: Source, features: Mapping[str, Any]) -> torch.nn.Module:
    """The function to trace for features of :func:`inputs_of`."""
    graph: torch.nn.Module
    if not source.is_matcher:
        graph = PlainGraph(source.dense, tuple(features))
    elif source.inner is None:
        graph = StaticGraph(source.dense)
    else:
        graph = MatcherGraph(source.dense, tuple(features))
    return graph.eval()


def inputs_of(source: Source, texts: Sequence[str]) -> dict[str, Any]:
    """Tensors that the graph takes for texts, by name: int64 ``(batch, length)``."""
    if not source.is_matcher:
        limit = most_tokens(source.model, source.tokenizer)
        features = tokenize(source.model, texts, tokenizer=source.tokenizer, max_length=limit)
        return {name: value for name, value in features.items() if isinstance(value, torch.Tensor)}
    if source.inner is None:
        encoded = source.tokenizer.encode_batch(list(texts), add_special_tokens=False)
        length = max(1, *(len(one.ids) for one in encoded))
        ids = torch.tensor([one.ids + [0] * (length - len(one.ids)) for one in encoded])
        mask = torch.tensor([[1] * len(one.ids) + [0] * (length - len(one.ids)) for one in encoded])
        return dict(zip(MATCHER_INPUTS, (ids, mask), strict=True))
    features = {
        name: value
        for name, value in tokenize(source.model, texts).items()
        if isinstance(value, torch.Tensor) and value.ndim == 2
    }
    others = [name for name in features if name not in MATCHER_INPUTS and bool(features[name].any())]
    return {name: features[name] for name in (*MATCHER_INPUTS, *others)}


def outputs_of(source: Source, texts: Sequence[str]) -> list[Any]:
    """What the model itself computes for texts: an array an output, ``(batch, ...)``."""
    with torch.no_grad():
        if source.is_matcher:
            return [source.model(tokenize(source.model, texts))[MATCHER_OUTPUT].numpy()]
        outputs = source.model(**inputs_of(source, texts))
        return [value.numpy() for value in outputs.to_tuple() if isinstance(value, torch.Tensor)]
