"""Names of sentence-transformers that moved between versions 5.1 and 6.2, in one place."""

from __future__ import annotations

import importlib
from typing import Any


def _find(name: str, *modules: str) -> Any:
    """``name`` from the first of the modules that this version has."""
    for module in modules:
        try:
            return getattr(importlib.import_module(f"sentence_transformers.{module}"), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"sentence-transformers has no {name} in any of {', '.join(modules)}")


BatchSamplers = _find("BatchSamplers", "base.sampler", "training_args")
Evaluator = _find("SentenceEvaluator", "sentence_transformer.evaluation", "evaluation")
MultipleNegativesRankingLoss = _find("MultipleNegativesRankingLoss", "sentence_transformer.losses", "losses")

__all__ = ["BatchSamplers", "Evaluator", "MultipleNegativesRankingLoss"]
