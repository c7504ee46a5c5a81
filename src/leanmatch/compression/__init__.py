"""Compression of models: specification, modules, conversion, straight-through factorization, distillation."""

from __future__ import annotations

from typing import Any

from leanmatch.lazy import find_name

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
    return find_name(__name__, _HOMES, name, purpose="compression")
