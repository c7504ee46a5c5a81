"""Metrics of labelled pairs, weighted, so that bootstrap resamples cost no sort.

References: McClish: Analyzing a portion of the ROC curve, 1989 (the standardization); the values are those of
scikit-learn's ``roc_auc_score``, ``roc_auc_score(max_fpr=...)`` and ``average_precision_score``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leanmatch.errors import DataError
from leanmatch.metrics.names import PAIR_METRICS

MAX_FALSE_POSITIVE_RATE = 0.05


class RankedPairs:
    """Scored and labelled pairs, sorted once by falling score; equal scores form one step of the curve.

    Args:
        scores: shape ``(pairs,)``, finite.
        labels: shape ``(pairs,)``, 0 or 1, both present.

    Raises:
        DataError: shapes differ, a score is not finite, a label is neither 0 nor 1, or one label is missing.
    """

    def __init__(self, scores: ArrayLike, labels: ArrayLike) -> None:
        scores_n, labels_n = np.asarray(scores, np.float64), np.asarray(labels)
        _check(scores_n, labels_n)
        self.order = np.argsort(-scores_n, kind="stable")
        falling = scores_n[self.order]
        self._positive = (labels_n[self.order] == 1).astype(np.float64)
        self._ends = np.flatnonzero(np.append(falling[1:] != falling[:-1], True))

    def metrics(self, names: Sequence[str], weights: ArrayLike | None = None) -> NDArray[np.float64]:
        """Values of the metrics, shape ``(rows, len(names))``; a row for each row of weights.

        Args:
            names: of :data:`leanmatch.metrics.names.PAIR_METRICS`.
            weights: shape ``(rows, pairs)``, how often each pair counts; once where left out.

        A row of weights without a positive or without a negative gives NaN.
        """
        counts = np.ones((1, len(self.order))) if weights is None else np.asarray(weights, np.float64)
        counts = counts[:, self.order]
        hits = counts * self._positive
        true_positives = np.cumsum(hits, axis=1)[:, self._ends]
        false_positives = np.cumsum(counts - hits, axis=1)[:, self._ends]
        values = [CURVE_METRICS[name](true_positives, false_positives) for name in names]
        usable = (true_positives[:, -1] > 0) & (false_positives[:, -1] > 0)
        return np.where(usable[:, None], np.stack(values, axis=1), np.nan)


def pair_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """All pair metrics at once, in 0..1.

    ``AUC@0.05`` is the area up to a false positive rate of 0.05, standardized as McClish does: 0.5 for chance, 1
    for a perfect order.

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
            f"scores have shape {scores.shape}, labels {labels.shape}", remedy="give one of each for each pair"
        )
    if not np.isfinite(scores).all():
        position = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise DataError("a score is not finite", line=position + 1, value=float(scores[position]))
    found = set(np.unique(labels).tolist())
    if found != {0, 1}:
        raise DataError(
            f"pair metrics need labels 0 and 1, the labels found are {sorted(found)}",
            remedy="give positives (1) and negatives (0); without negatives use retrieval metrics",
        )


def _curve(tp: NDArray[np.float64], fp: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True and false positive rates from (0, 0) on, shape ``(rows, steps + 1)``."""
    zeros = np.zeros((len(tp), 1))
    with np.errstate(invalid="ignore"):
        return np.hstack([zeros, tp / tp[:, -1:]]), np.hstack([zeros, fp / fp[:, -1:]])


def _auc(tp: NDArray[np.float64], fp: NDArray[np.float64]) -> NDArray[np.float64]:
    tpr, fpr = _curve(tp, fp)
    return np.asarray(np.trapezoid(tpr, fpr, axis=1))


def _partial_auc(tp: NDArray[np.float64], fp: NDArray[np.float64]) -> NDArray[np.float64]:
    tpr, fpr = _curve(tp, fp)
    limit = MAX_FALSE_POSITIVE_RATE
    left, right = fpr[:, :-1], fpr[:, 1:]
    low, high = tpr[:, :-1], tpr[:, 1:]
    cut = np.clip(right, None, limit)
    width = np.clip(cut - left, 0.0, None)
    with np.errstate(invalid="ignore", divide="ignore"):
        at_cut = low + (high - low) * np.where(right > left, width / (right - left), 1.0)
    area = (width * (low + at_cut) / 2).sum(axis=1)
    least, most = limit**2 / 2, limit
    return np.asarray(0.5 * (1 + (area - least) / (most - least)))


def _average_precision(tp: NDArray[np.float64], fp: NDArray[np.float64]) -> NDArray[np.float64]:
    gained = np.diff(tp, axis=1, prepend=0.0)
    seen = tp + fp
    precision = np.divide(tp, seen, out=np.zeros_like(tp), where=seen > 0)
    with np.errstate(invalid="ignore"):
        return np.asarray((gained * precision).sum(axis=1) / tp[:, -1])


CURVE_METRICS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    "AUC": _auc,
    "AUC@0.05": _partial_auc,
    "AP": _average_precision,
}
