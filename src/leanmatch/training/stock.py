"""Names of sentence-transformers that moved between versions 5.1 and 6.2, in one place."""

from __future__ import annotations

from typing import Any

Evaluator: Any
try:  # 5.4 and later
    from sentence_transformers.base.evaluation import BaseEvaluator as Evaluator
    from sentence_transformers.base.sampler import BatchSamplers
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
except ImportError:
    from sentence_transformers.evaluation import SentenceEvaluator as Evaluator
    from sentence_transformers.losses import MultipleNegativesRankingLoss
    from sentence_transformers.training_args import BatchSamplers

__all__ = ["BatchSamplers", "Evaluator", "MultipleNegativesRankingLoss"]
