"""The planner's parts: the knapsack against brute force, costs against the artifact's bytes, quality."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmatch.compression import DenseSparseSpec, LayerSpec, LowRankSpec, PruningSpec, RoundingSpec
from leanmatch.compression.planner.allocation import allocate
from leanmatch.compression.planner.candidates import LINEAR_CANDIDATES, Candidate, Group
from leanmatch.compression.planner.plan import Budget, pick_candidates
from leanmatch.compression.planner.quality import compare
from leanmatch.compression.planner.sensitivity import in_proportion, middle_of
from leanmatch.errors import UsageError
from leanmatch.metrics.bootstrap import interval, ratio_influence, resampled_ratios


def brute_force(losses, costs, budget):
    """The least loss of all choices within the budget."""
    best = math.inf
    for picks in itertools.product(*(range(len(group)) for group in losses)):
        if sum(cost[pick] for cost, pick in zip(costs, picks, strict=True)) <= budget:
            best = min(best, sum(loss[pick] for loss, pick in zip(losses, picks, strict=True)))
    return best


choices = st.lists(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), min_size=1, max_size=4),
    min_size=1,
    max_size=5,
)


@given(groups=choices, budget=st.integers(0, 120))
@settings(max_examples=200, deadline=None)
def test_the_knapsack_is_optimal_where_costs_lie_on_the_grid(groups, budget):
    losses = [[float(loss) for loss, _ in group] for group in groups]
    costs = [[cost for _, cost in group] for group in groups]
    if sum(min(cost) for cost in costs) > budget:
        with pytest.raises(UsageError, match="below the least that is possible"):
            allocate(losses, costs, budget)
        return
    picks = allocate(losses, costs, budget)
    assert sum(cost[pick] for cost, pick in zip(costs, picks, strict=True)) <= budget
    assert sum(loss[pick] for loss, pick in zip(losses, picks, strict=True)) == brute_force(
        losses, costs, budget
    )


@given(groups=choices, budget=st.integers(1, 120), grid=st.integers(5, 40))
@settings(max_examples=100, deadline=None)
def test_a_coarse_grid_never_exceeds_the_budget(groups, budget, grid):
    losses = [[float(loss) for loss, _ in group] for group in groups]
    costs = [[cost for _, cost in group] for group in groups]
    if sum(min(cost) for cost in costs) <= budget:
        picks = allocate(losses, costs, budget, grid=grid)
        assert sum(cost[pick] for cost, pick in zip(costs, picks, strict=True)) <= budget


def group(name, shape, options, embedding=False):
    return Group(
        (name,), shape, embedding, tuple(Candidate(DenseSparseSpec(nonzeros=k), b, m) for k, b, m in options)
    )


def test_both_limits_are_met():
    # bytes and multiply-adds disagree on what is cheap
    groups = [group(str(i), (100, 100), [(1, 10, 5000), (2, 20, 2000), (3, 30, 1000)]) for i in range(4)]
    harm = [[1.0, 2.0, 3.0]] * 4
    assert pick_candidates(groups, harm, size=40) == [0, 0, 0, 0]
    picks = pick_candidates(groups, harm, size=80, macs=4.0)
    assert sum((5000, 2000, 1000)[pick] for pick in picks) <= 10_000
    assert sum((10, 20, 30)[pick] for pick in picks) <= 80
    with pytest.raises(UsageError, match="no choice of layers has at most 40 bytes"):
        pick_candidates(groups, harm, size=40, macs=4.0)
    with pytest.raises(UsageError, match="below the least"):
        pick_candidates(groups, harm, macs=100.0)


def test_the_smaller_of_two_equally_harmless_choices_is_taken():
    groups = [group("a", (100, 100), [(1, 900, 10), (2, 500, 10)])]
    assert pick_candidates(groups, [[0.0, 0.0]], macs=2.0) == [1]


def test_harm_is_in_proportion_to_the_error():
    errors = [0.4, 0.05, 0.2, 0.1, 0.0]
    assert middle_of(errors) == 3
    np.testing.assert_allclose(in_proportion(errors, 3, 0.01), [0.04, 0.005, 0.02, 0.01, 0.0])
    assert in_proportion([0.0, 0.0], 1, 0.1) == [0.0, 0.0], "nothing is divided by 0"
    assert in_proportion([0.3], 0, 0.1) == pytest.approx([0.1])


@pytest.mark.parametrize(
    "spec", sorted({spec for specs in LINEAR_CANDIDATES.values() for spec in specs}, key=str)
)
def test_costs_are_those_of_the_artifact(spec):
    """The bytes that the planner counts are those that the artifact stores (all scales fit float16 here)."""
    import torch

    from leanmatch.compression import CompressionSpec, Rule, factorize, finalize
    from leanmatch.formats.artifact.forms import encode

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(192, 96))
    cost = spec.cost(96, 192)
    calm = LayerSpec.from_json({**spec.to_json(), "weighting": "none"})
    factorize(model, CompressionSpec((Rule("0", calm),)), iterations=1)
    finalize(model)
    factors = model[0].to_factors()
    _, tensors = encode(factors)
    assert cost.bytes == sum(array.nbytes for array in tensors.values())
    assert cost == factors.cost()


@pytest.mark.parametrize(
    ("spec", "misfit"),
    [
        (DenseSparseSpec(block=16), "blocks of 16 do not divide its 40 inputs"),
        (PruningSpec(block=16), "blocks of 16 do not divide its 40 inputs"),
        (RoundingSpec(group=32), "blocks of 32 do not divide its 40 inputs"),
        (LowRankSpec(rank=9), "its rank cannot be 9"),
        (DenseSparseSpec(block=8), None),
        (LowRankSpec(ratio=1.0), None),
    ],
)
def test_specs_say_why_they_do_not_fit(spec, misfit):
    assert spec.misfit(8, 40) == misfit


def test_quality_pairs_the_queries():
    dense = np.random.default_rng(0).random(400)
    same = compare("MRR@10", dense, dense)
    assert (same.kept, same.low, same.high) == (1.0, 1.0, 1.0)
    half = compare("MRR@10", dense, dense * np.random.default_rng(1).random(400))
    assert 0.4 < half.low < half.kept < half.high < 0.6 and half.queries == 400
    assert "held-out queries" in half.sentence()


def test_the_interval_is_that_of_the_metrics():
    """Skewed scores, of which BCa and percentile intervals differ."""
    rng = np.random.default_rng(2)
    dense, compressed = rng.random(60) ** 6, rng.random(60) ** 9
    quality = compare("MRR@10", dense, compressed)
    both = compressed[:, None], dense[:, None]
    samples = resampled_ratios(*both, resamples=2000, seed=0)[:, 0]
    expected = interval(samples, quality.kept, confidence=0.95, influence=ratio_influence(*both)[:, 0])
    assert (quality.low, quality.high) == expected
    assert quality.high != pytest.approx(np.quantile(samples, 0.975), rel=1e-3)


def test_queries_that_the_dense_model_never_answers_are_no_error():
    quality = compare("MRR@10", np.array([1.0, 0.0, 0.0]), np.array([0.5, 0.0, 0.0]))
    assert (quality.kept, quality.low, quality.high) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    "bad", [{"keep": 0.0}, {"keep": 1.1}, {"size": 0}, {"macs": 1.0}, {"macs": math.inf}]
)
def test_budgets_out_of_range(bad):
    with pytest.raises(UsageError):
        Budget(**bad)
