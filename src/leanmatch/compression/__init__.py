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
    "STF": "leanmatch.compression.stf.factorizer",
    "STFSchedule": "leanmatch.compression.stf.factorizer",
    "model_cost": "costs",
    "CompressedLayer": "leanmatch.compression.layers",
    "CompressionSpec": "spec",
    "Conversion": "convert",
    "FactoredEmbedding": "leanmatch.compression.layers",
    "FactoredLinear": "leanmatch.compression.layers",
    "LayerSpec": "spec",
    "LowRankLinear": "leanmatch.compression.layers",
    "QuantizedEmbedding": "leanmatch.compression.layers",
    "QuantizedLinear": "leanmatch.compression.layers",
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
