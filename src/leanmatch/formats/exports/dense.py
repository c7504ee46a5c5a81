"""Compressed layers back to stock ones: any library can use them, nothing is saved any more."""

from __future__ import annotations

import copy
from typing import Any

from leanmatch.formats.artifact.modules import replace_modules


def densify(model: Any) -> Any:
    """A copy of a model whose compressed layers are stock ones of ``torch.nn`` again.

    Layers that share one compressed module share one stock module.
    """
    import torch

    from leanmatch.compression import compressed_layers

    dense = copy.deepcopy(model)
    replaced: dict[int, Any] = {}
    with torch.no_grad():
        for layer in compressed_layers(dense).values():
            new = _stock_layer(layer)
            new.train(layer.training)
            replaced[id(layer)] = new
    replace_modules(dense, replaced)
    return dense


def _stock_layer(layer: Any) -> Any:
    import torch
    from torch import nn

    device = next(iter((*layer.buffers(), *layer.parameters()))).device
    weight = torch.from_numpy(layer.to_factors().dense().copy())
    rows, columns = weight.shape
    if hasattr(layer, "num_embeddings"):
        if hasattr(layer, "mode"):
            bag = nn.EmbeddingBag(rows, columns, mode=layer.mode)
            bag.weight.copy_(weight)
            return bag.to(device)
        table = nn.Embedding(rows, columns, padding_idx=layer.padding_idx)
        table.weight.copy_(weight)
        return table.to(device)
    linear = nn.Linear(columns, rows, bias=layer.bias is not None)
    linear.weight.copy_(weight)
    if layer.bias is not None:
        linear.bias.copy_(layer.bias)
    return linear.to(device)
