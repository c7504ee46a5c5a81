"""Metrics of labelled pairs, weighted, so that bootstrap resamples cost no sort.

References: McClish: Analyzing a portion of the ROC curve, 1989 (the standardization); the values are those of
scikit-learn's ``roc_auc_score``, ``roc_auc_score(max_fpr=...)`` and ``average_precision_score``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leanmatch.errors import DataError
from leanmatch.metrics.names import PAIR_METRICS

MAX_FALSE_POSITIVE_RATE = 0.05


class Curve(NamedTuple):
    """Counts along falling scores, one column a distinct score; all of shape ``(rows, steps)``, float64.

    ``hits`` and ``misses``: positives and negatives at each step; ``tp`` and ``fp``: their running sums.
    """

    hits: NDArray[np.float64]
    misses: NDArray[np.float64]
    tp: NDArray[np.float64]
    fp: NDArray[np.float64]


class RankedPairs:
    """Scored and labelled pairs, sorted once by falling score; equal scores form one step of the curve.

    Args:
        scores: shape ``(pairs,)``, finite.
        labels: shape ``(pairs,)``, 0 or 1, both present.
        units: shape ``(pairs,)``, to which resampled unit each pair belongs; each its own where left out.

    Raises:
        DataError: shapes differ, a score is not finite, a label is neither 0 nor 1, or one label is missing.
    """

    def __init__(self, scores: ArrayLike, labels: ArrayLike, units: NDArray[np.int64] | None = None) -> None:
        scores_n, labels_n = np.asarray(scores, np.float64), np.asarray(labels)
        _check(scores_n, labels_n)
        order = np.argsort(-scores_n, kind="stable")
        falling = scores_n[order]
        self._units = order if units is None else units[order]
        self._positive = (labels_n[order] == 1).astype(np.float64)
        self._starts = np.flatnonzero(np.append(True, falling[1:] != falling[:-1]))
        self._tied = len(self._starts) < len(order)

    def metrics(
        self, names: Sequence[str], weights: NDArray[np.float64] | None = None
    ) -> NDArray[np.float64]:
        """Values of the metrics, shape ``(rows, len(names))``; a row for each row of weights.

        Args:
            names: of :data:`leanmatch.metrics.names.PAIR_METRICS`.
            weights: shape ``(rows, units)``, how often each unit counts; once where left out.

        A row of weights without a positive or without a negative gives NaN.
        """
        counts = np.ones((1, len(self._units))) if weights is None else weights[:, self._units]
        hits = counts * self._positive
        misses = counts - hits
        if self._tied:
            hits = np.add.reduceat(hits, self._starts, axis=1)
            misses = np.add.reduceat(misses, self._starts, axis=1)
        curve = Curve(hits, misses, np.cumsum(hits, axis=1), np.cumsum(misses, axis=1))
        usable = (curve.tp[:, -1] > 0) & (curve.fp[:, -1] > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            values = np.stack([CURVE_METRICS[name](curve) for name in names], axis=1)
        return np.where(usable[:, None], values, np.nan)


def pair_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """All pair metrics at once, in 0..1.

    ``AUC@0.05`` is the area up to a false positive rate of 0.05, standardized as McClish does: 0.5 for
    chance, 1 for a perfect order.

    >>> pair_metrics([0.9, 0.8, 0.1], [1, 0, 0])["AUC"]
    1.0

    Raises:
        DataError: as :class:`RankedPairs`.
    """
    values = RankedPairs(scores, labels).metrics(list(PAIR_METRICS))[0]
    return {name: float(value) for name, value in zip(PAIR_METRICS, values, strict=True)}


def _check(scores: NDArray[np.float64], labels: NDArray[np.generic]) -> None:
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise DataError(
            f"scores have shape {scores.shape}, labels {labels.shape}",
            remedy="give one of each for each pair",
        )
    if not np.isfinite(scores).all():
        position = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise DataError("a score is not finite", line=position + 1, value=float(scores[position]))
    distinct_labels = set(np.unique(labels).tolist())
    if distinct_labels != {0, 1}:
        raise DataError(
            f"pair metrics need labels 0 and 1, the labels found are {sorted(distinct_labels)}",
            remedy="give positives (1) and negatives (0); without negatives use retrieval metrics",
        )


def _auc(curve: Curve) -> NDArray[np.float64]:
    """Each negative meets the positives above it, and half of those at its own score."""
    met = np.einsum("ij,ij->i", curve.misses, curve.tp) - np.einsum("ij,ij->i", curve.misses, curve.hits) / 2
    return np.asarray(met / (curve.tp[:, -1] * curve.fp[:, -1]))


def _partial_auc(curve: Curve) -> NDArray[np.float64]:
    """Trapezoids up to the limit, the last one cut; then McClish's standardization."""
    limit = MAX_FALSE_POSITIVE_RATE * curve.fp[:, -1:]
    steps = min(curve.fp.shape[1], int((curve.fp < limit).sum(axis=1).max(initial=0)) + 1)
    hits, misses, tp, fp = (array[:, :steps] for array in curve)
    width = np.clip(limit - (fp - misses), 0.0, misses)
    share = np.divide(width, misses, out=np.ones_like(width), where=misses > 0)
    area = np.einsum("ij,ij->i", width, tp - hits + hits * share / 2)
    rate = area / (curve.tp[:, -1] * curve.fp[:, -1])
    least, most = MAX_FALSE_POSITIVE_RATE**2 / 2, MAX_FALSE_POSITIVE_RATE
    return np.asarray(0.5 * (1 + (rate - least) / (most - least)))


def _average_precision(curve: Curve) -> NDArray[np.float64]:
    seen = curve.tp + curve.fp
    precision = np.divide(curve.tp, seen, out=np.zeros_like(seen), where=seen > 0)
    return np.asarray(np.einsum("ij,ij->i", curve.hits, precision) / curve.tp[:, -1])


CURVE_METRICS: dict[str, Callable[[Curve], NDArray[np.float64]]] = {
    "AUC": _auc,
    "AUC@0.05": _partial_auc,
    "AP": _average_precision,
}
