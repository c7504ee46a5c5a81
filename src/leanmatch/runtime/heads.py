"""Dense, LayerNorm and Normalize modules behind the pooling, always in float32: they cost next to nothing."""

from __future__ import annotations

from typing import Any

import numpy as np

from leanmatch import native
from leanmatch.errors import ModelError
from leanmatch.runtime.modules import HeadFolder, Layout
from leanmatch.runtime.weights import STOCK_FILE, Floats, Weights, open_safetensors, read_tensor

NORM_EPS = 1e-5
"""``torch.nn.LayerNorm``'s default, which sentence-transformers' LayerNorm module has."""


def build_heads(layout: Layout, compressed: Weights | None, level: str) -> list[dict[str, Any]]:
    """The field ``post`` of ``_native.Encoder``.

    Args:
        layout: the folder's modules.
        compressed: the weights of a compressed model, which hold those of the heads too; None for a stock
            folder, where each module has a file of its own.
        level: instruction-set level.

    Raises:
        ModelError: weights that are missing or damaged.
        UnsupportedError: weights that are not in safetensors.
    """
    return [_build(head, compressed, level) for head in layout.heads]


def _build(head: HeadFolder, compressed: Weights | None, level: str) -> dict[str, Any]:
    if head.kind == "normalize":
        return {"kind": "normalize"}
    if head.kind == "layer_norm":
        norm = _tensor(head, compressed, "norm.weight"), _tensor(head, compressed, "norm.bias"), NORM_EPS
        return {"kind": "layer_norm", "norm": norm}
    weight = _tensor(head, compressed, "linear.weight")
    bias = _tensor(head, compressed, "linear.bias") if head.bias else None
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise ModelError(f"{head.folder}: linear.weight of {weight.shape} does not fit its bias")
    layer = native.load().linear.dense_f32(level, weight, bias)
    return {"kind": "dense", "layer": [(0, layer, None)], "activation": head.activation}


def _tensor(head: HeadFolder, compressed: Weights | None, name: str) -> Floats:
    if compressed is not None:
        module, _, last = f"module{head.number}.{name}".rpartition(".")
        if last == "weight" and compressed.has(f"{module}.weight") and module.endswith("linear"):
            return np.ascontiguousarray(compressed.matrix(module).dense())
        tensor = compressed.vector(f"{module}.{last}")
        if tensor is None:
            raise ModelError(f"the compressed model lacks {module}.{last}", remedy="compress the model again")
        return tensor
    path = head.folder / STOCK_FILE
    with open_safetensors(path) as file:
        if name not in file.keys():  # noqa: SIM118  (no mapping: a file that lists its tensors)
            raise ModelError(f"{path} lacks {name}", remedy="save or copy the folder again")
        return read_tensor(path, file, name)
