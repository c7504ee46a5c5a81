"""Pair metrics: against scikit-learn, plain and weighted, with and without ties."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.errors import DataError
from leanmatch.metrics.names import PAIR_METRICS
from leanmatch.metrics.pairs import RankedPairs, pair_metrics

NAMES = list(PAIR_METRICS)


def oracle(scores, labels, weights=None):
    metrics = pytest.importorskip("sklearn.metrics")
    return [
        metrics.roc_auc_score(labels, scores, sample_weight=weights),
        metrics.roc_auc_score(labels, scores, max_fpr=0.05, sample_weight=weights),
        metrics.average_precision_score(labels, scores, sample_weight=weights),
    ]


@pytest.mark.parametrize("digits", [0, 1, 2, 9])
@pytest.mark.parametrize("n", [2, 7, 61, 1500])
def test_equals_scikit_learn(n, digits):
    rng = np.random.default_rng(n + digits)
    labels = rng.integers(0, 2, n)
    labels[:2] = [0, 1]
    scores = np.round(rng.random(n) + 0.4 * labels, digits)
    assert list(pair_metrics(scores, labels).values()) == pytest.approx(oracle(scores, labels), abs=1e-12)
    weights = rng.integers(0, 4, n).astype(float)
    weights[:2] = 1
    got = RankedPairs(scores, labels).metrics(NAMES, weights[None])[0]
    assert got == pytest.approx(oracle(scores, labels, weights), abs=1e-12)


def test_units_share_a_weight():
    scores, labels = np.array([0.9, 0.8, 0.3, 0.2]), np.array([1, 0, 1, 0])
    got = RankedPairs(scores, labels, np.array([0, 0, 1, 1])).metrics(NAMES, np.array([[2.0, 1.0]]))
    want = RankedPairs(scores, labels).metrics(NAMES, np.array([[2.0, 2, 1, 1]]))
    assert np.array_equal(got, want)
    assert not np.allclose(want, RankedPairs(scores, labels).metrics(NAMES))


def test_perfect_reversed_and_constant():
    assert list(pair_metrics([3, 2, 1, 0], [1, 1, 0, 0]).values()) == [1, 1, 1]
    assert pair_metrics([0, 1], [1, 0])["AUC"] == 0
    constant = pair_metrics([1] * 10, [1] * 5 + [0] * 5)
    assert constant == pytest.approx({"AUC": 0.5, "AUC@0.05": 0.5, "AP": 0.5})


def test_resamples_of_one_class_are_nan():
    ranked = RankedPairs([2, 1], [1, 0])
    assert np.isnan(ranked.metrics(NAMES, np.array([[2.0, 0], [0, 2], [1, 1]]))).all(axis=1).tolist() == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1, 2], [1], "shape"),
        ([1, float("nan")], [1, 0], "not finite"),
        ([1, 2], [1, 1], r"labels found are \[1\]"),
        ([1, 2], [2, 0], r"\[0, 2\]"),
        ([], [], r"labels found are \[\]"),
    ],
)
def test_refused(scores, labels, message):
    with pytest.raises(DataError, match=message):
        pair_metrics(scores, labels)
