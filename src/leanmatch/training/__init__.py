"""Training: losses (contrastive, ITVReg and its rivals), :func:`fit`, and the choice of a recipe.

Importing this package is cheap: torch and sentence-transformers come with the first name that needs them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanmatch.lazy import find_name
from leanmatch.training.options import RegularizerOptions, ScheduleOptions, TrainOptions

if TYPE_CHECKING:
    from leanmatch.training.losses import DistillationLoss, ITVReg, MaskingLoss, OutReg, PlainLoss
    from leanmatch.training.recipe import TrainResult, fit
    from leanmatch.training.selection.evaluator import PairTableEvaluator

_LAZY = {
    "DistillationLoss": "losses",
    "ITVReg": "losses",
    "MaskingLoss": "losses",
    "OutReg": "losses",
    "PairTableEvaluator": "leanmatch.training.selection.evaluator",
    "PlainLoss": "losses",
    "TrainResult": "recipe",
    "fit": "recipe",
}

__all__ = [
    "DistillationLoss",
    "ITVReg",
    "MaskingLoss",
    "OutReg",
    "PairTableEvaluator",
    "PlainLoss",
    "RegularizerOptions",
    "ScheduleOptions",
    "TrainOptions",
    "TrainResult",
    "fit",
]


def __getattr__(name: str) -> Any:
    return find_name(__name__, _LAZY, name, purpose="training")
