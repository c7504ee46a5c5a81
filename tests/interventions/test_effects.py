"""The mathematics of effects, against loops that read as the definitions."""

from __future__ import annotations

import pytest
import torch

from leanmatch.errors import UsageError
from leanmatch.interventions import drift, effects, relative_drift

N, C, M = 3, 2, 4


@pytest.fixture
def scores():
    torch.manual_seed(0)
    return [torch.rand(shape, dtype=torch.float64) for shape in ((N, M), (N, C, M), (N, M), (N, C, M))]


@pytest.mark.parametrize("kind", ["effect", "score", "one-sided"])
def test_drift_agrees_with_the_definition(kind, scores):
    s, after, s0, after0 = scores
    result = drift(kind, s, after, s0, after0)
    for i in range(N):
        for c in range(C):
            for j in range(M):
                ti, ti0 = s[i, j] - after[i, c, j], s0[i, j] - after0[i, c, j]
                expected = {
                    "effect": (ti - ti0) ** 2,
                    "score": (after[i, c, j] - after0[i, c, j]) ** 2,
                    "one-sided": max(0.0, abs(ti) - abs(ti0)) ** 2,
                }[kind]
                assert result[i, c, j] == pytest.approx(float(expected), abs=1e-12)
    assert result.sum() > 0, "the set-up must bite"


def test_a_uniform_shift_of_scores_costs_nothing_in_effect_matching_but_does_in_score_matching(scores):
    s, after, *_ = scores
    assert drift("effect", s + 0.3, after + 0.3, s, after).abs().max() < 1e-12
    assert drift("score", s + 0.3, after + 0.3, s, after).min() > 0.08


def test_one_sided_lets_effects_shrink(scores):
    s, after, *_ = scores
    halved = s[:, None] - 0.5 * effects(s, after)
    assert drift("one-sided", s, halved, s, after).abs().max() < 1e-12


def test_relative_drift_has_no_unit(scores):
    s, after, s0, after0 = scores
    one = relative_drift(drift("effect", s, after, s0, after0), effects(s0, after0))
    scaled = [10 * x for x in scores]
    ten = relative_drift(drift("effect", *scaled), effects(scaled[2], scaled[3]))
    assert float(one) == pytest.approx(float(ten))
    assert float(relative_drift(effects(s0, after0) ** 2, effects(s0, after0))) == pytest.approx(1.0)


def test_unknown_drift(scores):
    with pytest.raises(UsageError, match="one of effect, score, one-sided"):
        drift("cosine", *scores)
