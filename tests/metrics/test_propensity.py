"""Propensity-scored precision: against a literal slow version of Jain et al. (2016), and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from leanmatch.errors import DataError, UsageError
from leanmatch.metrics.ranking.propensity import LabelCounts, inverse_propensities, propensity_scored
from leanmatch.metrics.ranking.retrieval import Judgements


def slow_psp(rankings, relevant, counts, *, n, k, a, b):
    """Sum over points of ``1/k sum_(l in rank_k(y^)) y_l / p_l``, by the same for the best ranking."""

    def propensity(label):
        c = (math.log(n) - 1) * (b + 1) ** a
        return 1 / (1 + c * math.exp(-a * math.log(counts[label] + b)))

    def gain(ranking, labels):
        return sum(1 / propensity(label) for label in ranking[:k] if label in labels) / k

    best = [sorted(labels, key=propensity) for labels in relevant]
    got = sum(gain(r, labels) for r, labels in zip(rankings, relevant, strict=True))
    return got / sum(gain(r, labels) for r, labels in zip(best, relevant, strict=True))


@pytest.mark.parametrize(("a", "b"), [(0.55, 1.5), (0.6, 2.6)])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_equals_the_published_definition(k, a, b):
    rng = np.random.default_rng(k)
    counts = rng.geometric(0.2, 30) - 1
    ranking = np.argsort(rng.random((25, 30)), axis=1)[:, :8]
    relevant = [set(rng.choice(30, rng.integers(1, 7), replace=False).tolist()) for _ in range(25)]
    pairs = np.array([(q, item) for q, labels in enumerate(relevant) for item in labels])
    inverse = inverse_propensities(counts, 200, a=a, b=b)
    assert np.ptp(inverse) > 1, "equal propensities would make this plain precision"
    gained, best = propensity_scored(ranking, Judgements(25, pairs[:, 0], pairs[:, 1]), inverse, k)
    want = slow_psp(ranking.tolist(), relevant, counts, n=200, k=k, a=a, b=b)
    assert 0 < want < 1
    assert gained.sum() / best.sum() == pytest.approx(want, rel=1e-12)


def test_by_hand():
    # N = e^2: C = (B + 1)^A; an item with N_l = 1 has 1/p = 1 + 2.5^.55 * 2.5^-.55 = 2.
    inverse = inverse_propensities([1, 10**12], math.e**2, a=0.55, b=1.5)
    assert inverse == pytest.approx([2, 1], abs=1e-6)
    both = Judgements(1, np.array([0, 0]), np.array([0, 1]))
    for ranking, want in (([1, 0], 1 / 2), ([0, 1], 1)):
        gained, best = propensity_scored(np.array([ranking]), both, inverse, 1)
        assert gained / best == pytest.approx(want, abs=1e-6)


def test_relevant_items_that_are_no_candidates_count_in_the_best():
    lost = Judgements(1, np.array([0, 0]), np.array([0, 5]))
    inverse = np.array([2.0, 1, 1, 1, 1, 4.0])
    gained, best = propensity_scored(np.array([[0, 1, 2]]), lost, inverse, 1)
    assert (gained.item(), best.item()) == (2.0, 4.0)


def test_counts_ignore_repeated_pairs():
    counts = LabelCounts.from_pairs(["a", "a", "b", "c"], ["x", "x", "x", "y"])
    assert (dict(counts.counts), counts.queries) == ({"x": 2, "y": 1}, 3)


def test_refuses_too_few_training_queries_and_bad_constants():
    with pytest.raises(DataError, match="2 training queries"):
        LabelCounts({}, 2)
    with pytest.raises(UsageError, match="A=0"):
        inverse_propensities([1], 10, a=0, b=1)
