"""Compressed models for other programs: stock folders with dense weights, ONNX. Each is compared at save."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leanmatch.formats.exports.dense import densify as densify
    from leanmatch.formats.exports.onnxfile import export_onnx as export_onnx
    from leanmatch.formats.exports.stock import SavedExport as SavedExport
    from leanmatch.formats.exports.stock import export_model as export_model

_HOMES = {
    "SavedExport": "stock",
    "densify": "dense",
    "export_model": "stock",
    "export_onnx": "onnxfile",
}
__all__ = ["SavedExport", "densify", "export_model", "export_onnx"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
