"""Compression of models: specification, modules, conversion, straight-through factorization, distillation."""

from __future__ import annotations

import importlib
from typing import Any

from leanmatch.errors import MissingExtraError

_HOMES = {
    "Calibration": "calibration",
    "CompressedCheckpoints": "trainers",
    "DistillationWeights": "distillation",
    "Distilled": "distillation",
    "ModelCost": "costs",
    "STF": "stf",
    "STFSchedule": "stf",
    "model_cost": "costs",
    "CompressedLayer": "modules",
    "CompressionSpec": "spec",
    "Conversion": "convert",
    "FactoredEmbedding": "modules",
    "FactoredLinear": "modules",
    "LayerSpec": "spec",
    "LowRankLinear": "modules",
    "QuantizedEmbedding": "modules",
    "QuantizedLinear": "modules",
    "Rule": "spec",
    "Stack": "spec",
    "compressed_layers": "convert",
    "default_spec": "patterns",
    "factorize": "convert",
    "finalize": "convert",
}
__all__ = [*_HOMES]  # noqa: PLE0604  (the keys are strings)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name in ("torch", "sentence_transformers", "transformers"):
            raise MissingExtraError(error.name, "train", "compression") from error
        raise
