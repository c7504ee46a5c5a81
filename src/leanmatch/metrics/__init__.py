"""Ranking and pair metrics, bootstrap intervals, slices: what a matcher does in and out of distribution."""

from __future__ import annotations

from leanmatch.metrics.evaluate import choose_rows, evaluate
from leanmatch.metrics.names import DEFAULT_METRICS, PAIR_METRICS, RETRIEVAL_FAMILIES
from leanmatch.metrics.options import EvaluationOptions
from leanmatch.metrics.pairs import pair_metrics
from leanmatch.metrics.ranking.fusion import Ranking
from leanmatch.metrics.ranking.propensity import PROPENSITY_CONSTANTS, LabelCounts
from leanmatch.metrics.ranking.quick import RetrievalProbe, per_query_scores, retrieval_score
from leanmatch.metrics.ranking.search import Exclusions, Neighbours, top_k
from leanmatch.metrics.results import Evaluation, MetricResult, SliceResult

__all__ = [
    "DEFAULT_METRICS",
    "PAIR_METRICS",
    "PROPENSITY_CONSTANTS",
    "RETRIEVAL_FAMILIES",
    "Evaluation",
    "EvaluationOptions",
    "Exclusions",
    "LabelCounts",
    "MetricResult",
    "Neighbours",
    "Ranking",
    "RetrievalProbe",
    "SliceResult",
    "choose_rows",
    "evaluate",
    "pair_metrics",
    "per_query_scores",
    "retrieval_score",
    "top_k",
]
