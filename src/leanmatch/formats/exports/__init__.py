"""Compressed models for other programs: stock folders with dense weights, ONNX. Each is compared at save."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanmatch.lazy import find_name

if TYPE_CHECKING:
    from leanmatch.formats.exports.dense import densify as densify
    from leanmatch.formats.exports.onnx_file import export_onnx as export_onnx
    from leanmatch.formats.exports.stock import SavedExport as SavedExport
    from leanmatch.formats.exports.stock import export_model as export_model

_HOMES = {
    "SavedExport": "stock",
    "densify": "dense",
    "export_model": "stock",
    "export_onnx": "leanmatch.formats.exports.onnx_file",
}
__all__ = ["SavedExport", "densify", "export_model", "export_onnx"]


def __getattr__(name: str) -> Any:
    return find_name(__name__, _HOMES, name)
