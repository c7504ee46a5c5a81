"""leanmatch: text matchers that are robust out of distribution and lean enough for plain CPUs.

The public names are loaded when they are first used, so that ``import leanmatch`` stays instant.
"""

from __future__ import annotations

from typing import Any

from leanmatch.lazy import find_name

__version__ = "0.1.0"

_EXPORTS = {
    "DataError": "leanmatch.errors",
    "DiagnoseOptions": "leanmatch.report",
    "Diagnosis": "leanmatch.report",
    "EvaluationOptions": "leanmatch.metrics",
    "FormatError": "leanmatch.errors",
    "ITVReg": "leanmatch.training",
    "ItemTable": "leanmatch.data",
    "LeanmatchError": "leanmatch.errors",
    "MaskingLoss": "leanmatch.training",
    "MissingExtraError": "leanmatch.errors",
    "ModelError": "leanmatch.errors",
    "OutReg": "leanmatch.training",
    "PairTable": "leanmatch.data",
    "PlainLoss": "leanmatch.training",
    "Recommender": "leanmatch.index",
    "RegularizerOptions": "leanmatch.training",
    "ScheduleOptions": "leanmatch.training",
    "SplitOptions": "leanmatch.data",
    "TokenImportance": "leanmatch.interventions",
    "TrainOptions": "leanmatch.training",
    "UsageError": "leanmatch.errors",
    "diagnose": "leanmatch.report",
    "evaluate": "leanmatch.metrics",
    "fit": "leanmatch.training",
    "importance": "leanmatch.interventions",
    "load": "leanmatch.runtime",
    "load_encoder": "leanmatch.formats",
    "load_matcher": "leanmatch.formats",
    "read_items": "leanmatch.data",
    "read_pairs": "leanmatch.data",
    "save_matcher": "leanmatch.formats",
    "split_pairs": "leanmatch.data",
}
"""Public name to the module that defines it."""

__all__ = ["__version__", *_EXPORTS]  # noqa: PLE0604  (the keys are strings)


def __getattr__(name: str) -> Any:
    value = globals()[name] = find_name(__name__, _EXPORTS, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
