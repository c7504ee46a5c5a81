"""From vectors to metrics with intervals: what happens to one slice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from leanmatch.metrics.bootstrap import (
    interval,
    ratio_influence,
    resample_counts,
    resampled_ratios,
)
from leanmatch.metrics.encoding import SideVectors
from leanmatch.metrics.names import RetrievalMetric
from leanmatch.metrics.options import EvaluationOptions
from leanmatch.metrics.pairs import RankedPairs
from leanmatch.metrics.ranking.candidates import Identities
from leanmatch.metrics.ranking.propensity import propensity_scored
from leanmatch.metrics.ranking.retrieval import per_query
from leanmatch.metrics.ranking.search import Neighbours
from leanmatch.metrics.ranking.tasks import RetrievalTask
from leanmatch.metrics.results import MetricResult, judge, verdict_sentence

Search = Callable[[RetrievalTask, SideVectors, int], Neighbours]
"""The best candidates of a slice to a depth."""


class Measurement:
    """Collects the results of one slice; ``results`` by metric name."""

    def __init__(self, options: EvaluationOptions, name: str, against_name: str) -> None:
        self.options, self.name, self.against_name = options, name, against_name
        self.results: dict[str, MetricResult] = {}

    def add(
        self,
        metric: str,
        values: Sequence[float],
        samples: NDArray[np.float64],
        influence: NDArray[np.float64] | None,
        units: str,
    ) -> None:
        """Add a metric of one or two models.

        Args:
            metric: its name.
            values: of the model, and of the base where there is one.
            samples: bootstrap samples of both, shape ``(resamples, models)``.
            influence: of each unit, shape ``(units, models)``, or None for percentile intervals.
            units: what was resampled, for the sentence.
        """
        confidence = self.options.confidence
        own = None if influence is None else influence[:, 0]
        low, high = interval(samples[:, 0], values[0], confidence=confidence, influence=own)
        if len(values) == 1:
            self.results[metric] = MetricResult(metric, float(values[0]), low, high)
            return
        difference = float(values[0] - values[1])
        both = None if influence is None else influence[:, 0] - influence[:, 1]
        bounds = interval(samples[:, 0] - samples[:, 1], difference, confidence=confidence, influence=both)
        sentence = verdict_sentence(
            metric,
            difference,
            bounds,
            name=self.name,
            against=self.against_name,
            confidence=confidence,
            units=units,
        )
        base = float(values[1])
        self.results[metric] = MetricResult(
            metric, float(values[0]), low, high, base, difference, *bounds, judge(bounds), sentence
        )


def measure_retrieval(
    measurement: Measurement,
    task: RetrievalTask,
    models: Sequence[SideVectors],
    metrics: Sequence[RetrievalMetric],
    inverse: NDArray[np.float64] | None,
    searches: Sequence[Search | None] | None = None,
) -> None:
    """Search with each model, compute the metrics, add them with intervals over queries.

    ``searches``: for each model how it searches, None for its vectors alone.
    """
    parts = [
        retrieval_values(task, vectors, metrics, inverse, search)
        for vectors, search in zip(models, searches or [None] * len(models), strict=True)
    ]
    numerators = np.hstack([numerator for numerator, _ in parts])
    denominators = np.hstack([denominator for _, denominator in parts])
    options = measurement.options
    samples = resampled_ratios(numerators, denominators, resamples=options.resamples, seed=options.seed)
    influence = ratio_influence(numerators, denominators)
    values = numerators.sum(axis=0) / denominators.sum(axis=0)
    for column, metric in enumerate(metrics):
        places = np.arange(len(models)) * len(metrics) + column
        units = f"{task.judgements.n_queries:,} queries"
        measurement.add(str(metric), values[places].tolist(), samples[:, places], influence[:, places], units)


def retrieval_values(
    task: RetrievalTask,
    vectors: SideVectors,
    metrics: Sequence[RetrievalMetric],
    inverse: NDArray[np.float64] | None = None,
    search: Search | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numerators and denominators of the metrics for each query, shapes ``(queries, metrics)``.

    A metric is the ratio of their sums; but for PSP the denominators are 1 and the numerators the query's
    values.

    Args:
        task: the slice.
        vectors: one row a distinct text.
        metrics: which.
        inverse: inverse propensities by identity; needed for PSP alone.
        search: how candidates are ranked; None for inner products alone.
    """
    depth = max(metric.k for metric in metrics)
    neighbours = task.search(vectors, depth) if search is None else search(task, vectors, depth)
    plain = [column for column, metric in enumerate(metrics) if metric.family != "PSP"]
    numerators = np.zeros((task.judgements.n_queries, len(metrics)))
    denominators = np.ones_like(numerators)
    numerators[:, plain] = per_query(
        neighbours.indices, task.judgements, [metrics[column] for column in plain]
    )
    if inverse is not None:
        weights = inverse[task.items]
        for column, metric in enumerate(metrics):
            if metric.family == "PSP":
                numerators[:, column], denominators[:, column] = propensity_scored(
                    neighbours.indices, task.judgements, weights, metric.k
                )
    return numerators, denominators


def measure_pairs(
    measurement: Measurement,
    identities: Identities,
    rows: NDArray[np.int64],
    *,
    labels: NDArray[np.int8],
    models: Sequence[SideVectors],
    metrics: Sequence[str],
) -> None:
    """Score the labelled pairs with each model; intervals over anchors, each drawn with all its pairs."""
    left, right = identities.anchor_texts[rows], identities.positive_texts[rows]
    _, anchors = np.unique(identities.queries[rows], return_inverse=True)
    ranked = [RankedPairs(vectors.pair_scores(left, right), labels[rows], anchors) for vectors in models]
    options, units = measurement.options, int(anchors.max()) + 1
    values = np.stack([pairs.metrics(metrics, np.ones((1, units)))[0] for pairs in ranked])
    blocks = [
        np.stack([pairs.metrics(metrics, counts) for pairs in ranked])
        for counts in resample_counts(units, options.resamples, options.seed)
    ]
    samples = np.concatenate(blocks, axis=1)
    described = f"{len(rows):,} pairs of {units:,} anchors"
    for column, metric in enumerate(metrics):
        measurement.add(metric, values[:, column].tolist(), samples[:, :, column].T, None, described)
