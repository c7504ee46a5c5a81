"""Dense, LayerNorm and Normalize modules behind the pooling, always in float32: they cost next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from leanmatch import native
from leanmatch.errors import ModelError
from leanmatch.runtime.modules import HeadFolder, Layout
from leanmatch.runtime.weights import STOCK_FILE, Floats, Weights, open_safetensors, read_tensor

NORM_EPS = 1e-5
"""``torch.nn.LayerNorm``'s default, which sentence-transformers' LayerNorm module has."""


PackDense: TypeAlias = Callable[[Floats, "Floats | None"], Any]
"""Weight and bias of a Dense module to the packed layer, in float32."""


def build_heads(
    layout: Layout, compressed: Weights | None, level: str, pack: PackDense | None = None
) -> list[dict[str, Any]]:
    """The field ``post`` of ``_native.Encoder``.

    Args:
        layout: the folder's modules.
        compressed: the weights of a compressed model, which hold those of the heads too; None for a stock
            folder, where each module has a file of its own.
        level: instruction-set level.
        pack: packs a Dense module; None for the native kernels.

    Raises:
        ModelError: weights that are missing or damaged.
        UnsupportedError: weights that are not in safetensors.
    """

    def pack_native(weight: Floats, bias: Floats | None) -> Any:
        return native.load().linear.dense_f32(level, weight, bias)

    return [_build(head, compressed, pack or pack_native) for head in layout.heads]


def _build(head: HeadFolder, compressed: Weights | None, pack: PackDense) -> dict[str, Any]:
    if head.kind == "normalize":
        return {"kind": "normalize"}
    if head.kind == "layer_norm":
        norm = _tensor(head, compressed, "norm.weight"), _tensor(head, compressed, "norm.bias"), NORM_EPS
        return {"kind": "layer_norm", "norm": norm}
    weight = _tensor(head, compressed, "linear.weight")
    bias = _tensor(head, compressed, "linear.bias") if head.bias else None
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise ModelError(f"{head.folder}: linear.weight of {weight.shape} does not fit its bias")
    return {"kind": "dense", "layer": [(0, pack(weight, bias), None)], "activation": head.activation}


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
