"""The planner's parts: the knapsack against brute force, costs against the artifact's bytes, quality."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmatch.compression import DenseSparseSpec, LayerSpec, LowRankSpec, PruningSpec, RoundingSpec
from leanmatch.compression.planner.allocation import NoChoiceError, allocate, least, total
from leanmatch.compression.planner.budget import Budget
from leanmatch.compression.planner.candidates import LINEAR_CANDIDATES, TABLE_CANDIDATES
from leanmatch.compression.planner.quality import Quality, compare
from leanmatch.compression.planner.sensitivity import in_proportion, middle_of
from leanmatch.compression.planner.tasks import Matching
from leanmatch.data import PairTable
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
@settings(max_examples=100, deadline=None)
def test_the_knapsack_is_optimal(groups, budget):
    losses = [[float(loss) for loss, _ in group] for group in groups]
    costs = {"size": [[cost for _, cost in group] for group in groups]}
    if sum(min(cost) for cost in costs["size"]) > budget:
        with pytest.raises(NoChoiceError):
            allocate(losses, costs, {"size": budget})
        return
    picks = allocate(losses, costs, {"size": budget})
    assert total(costs["size"], picks) <= budget
    assert total(losses, picks) == brute_force(losses, costs["size"], budget)


@given(groups=choices, limits=st.tuples(st.integers(1, 90), st.integers(1, 200)))
@settings(max_examples=60, deadline=None)
def test_two_limits_at_once(groups, limits):
    losses = [[float(loss) for loss, _ in group] for group in groups]
    costs = {
        "size": [[cost for _, cost in group] for group in groups],
        "faster": [[(7 * loss + 3 * cost) % 41 for loss, cost in group] for group in groups],
    }
    asked = dict(zip(costs, limits, strict=True))
    best = math.inf
    for picks in itertools.product(*(range(len(group)) for group in losses)):
        if all(total(costs[name], picks) <= asked[name] for name in costs):
            best = min(best, total(losses, picks))
    if best == math.inf:
        with pytest.raises(NoChoiceError):
            allocate(losses, costs, asked)
        return
    picks = allocate(losses, costs, asked)
    assert all(total(costs[name], picks) <= asked[name] for name in costs)
    assert total(losses, picks) == best


def test_the_least_of_one_cost_within_the_others():
    costs = {"size": [[10, 20, 30]] * 4, "macs": [[5000, 2000, 1000]] * 4}
    assert least(costs, "size", {"size": 1, "macs": 10_000}) == 80, "four of 2,000, or others no cheaper"
    assert least(costs, "macs", {"size": 40, "macs": 1}) == 20_000
    assert least(costs, "size", {"size": 1, "macs": 3999}) is None


def test_costs_far_above_the_unit_keep_their_limit():
    """The solver counts in floats: a limit in bytes holds to the byte."""
    rng = np.random.default_rng(0)
    costs = {"size": rng.integers(10**8, 10**9, (20, 6)).tolist()}
    losses = rng.random((20, 6)).tolist()
    limit = int(total(costs["size"], [0] * 20))
    assert total(costs["size"], allocate(losses, costs, {"size": limit})) <= limit


def test_harm_is_in_proportion_to_the_error():
    errors = [0.4, 0.05, 0.2, 0.1, 0.0]
    assert middle_of(errors) == 3
    np.testing.assert_allclose(in_proportion(errors, 3, 0.01), [0.04, 0.005, 0.02, 0.01, 0.0])
    assert in_proportion([0.0, 0.0], 1, 0.1) == [0.0, 0.0], "nothing is divided by 0"
    assert in_proportion([0.3], 0, 0.1) == pytest.approx([0.1])


@pytest.mark.parametrize(
    "spec",
    [
        *sorted({s for specs in LINEAR_CANDIDATES.values() for s in specs if not s.misfit(96, 192)}, key=str),
        *(spec for spec in TABLE_CANDIDATES if isinstance(spec, RoundingSpec) and spec.bits < 4),
    ],
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
    "bad",
    [
        {"keep": 0.0},
        {"keep": 1.1},
        {"size": 0},
        {"macs": 1.0},
        {"macs": math.inf},
        {"faster": 1.0},
        {"faster": math.nan},
    ],
)
def test_budgets_out_of_range(bad):
    with pytest.raises(UsageError):
        Budget(**bad)


def quality(kept, low, high, queries=131, evidence=None):
    return Quality("MRR@10", 0.5, 0.5 * kept, kept, low, high, queries, evidence)


def test_a_verdict_needs_the_whole_interval():
    assert quality(1.0, 0.991, 1.01).verdict(0.99) == "shown"
    assert quality(0.978, 0.946, 1.010).verdict(0.99) == "not shown"
    assert quality(0.95, 0.92, 0.98).verdict(0.99) == "missed"
    assert "131" not in quality(0.978, 0.946, 1.010).verdict_sentence(0.99)
    assert "queries would decide" in quality(0.978, 0.946, 1.010).verdict_sentence(0.99)


def test_a_slice_that_keeps_less_is_named_though_the_whole_keeps_enough():
    dense = np.full(1000, 0.5)
    compressed = dense.copy()
    hard = np.zeros(1000, bool)
    hard[:40] = True
    compressed[hard] *= np.random.default_rng(0).uniform(0.8, 0.9, 40)
    slices = {"site=hard": hard, "site=easy": ~hard}
    whole = compare("MRR@10", dense, compressed, slices=slices)
    assert whole.kept > 0.993 and whole.low > 0.99, "on all queries together it is shown"
    assert whole.verdict(0.99) == "missed" and whole.reaches == whole.slices[0]["high"] < 0.9
    assert whole.verdict_sentence(0.99).startswith(
        "99.0% asked for: missed on site=hard, whose interval ends"
    )
    assert [part["slice"] for part in whole.below(0.99)] == ["site=hard"]
    part = whole.slices[0]
    assert part["queries"] == 40 and part["kept"] == pytest.approx(compressed[:40].mean() / 0.5)
    first, second, remedy = whole.slice_sentences(0.99)
    assert first.startswith("site=hard: 8") and first.endswith("on 40 queries, below 99.0%")
    assert second == "site=easy: 100.0% kept (100.0% to 100.0%) on 960 queries"
    assert "site=hard keeps less" in remedy and "Remedy" in remedy
    assert len(whole.slice_sentences(0.8)) == 2
    assert Quality(**json.loads(json.dumps(whole.to_json()))).below(0.99)


def test_a_slice_of_few_queries_leaves_the_verdict_open_but_does_not_miss():
    """100 queries, one of which fell from rank 1 to 10: the interval of that slice holds 0.995."""
    dense = np.ones(2100)
    compressed = dense.copy()
    compressed[0] = 0.1
    few = np.arange(2100) < 100
    found = compare("MRR@10", dense, compressed, slices={"site=few": few, "site=many": ~few})
    assert found.low > 0.995 and found.slices[0]["kept"] == pytest.approx(0.991)
    assert found.verdict(0.995) == "not shown" and found.reaches >= 0.995 and not found.below(0.995)
    sentence = found.verdict_sentence(0.995)
    assert sentence.startswith("99.5% asked for: not shown on site=few; shown on all queries together")


def test_intervals_of_many_slices_hold_at_once():
    """Of 40 slices of a model that keeps everything, 95% intervals call about one worse by chance."""
    rng = np.random.default_rng(3)
    dense = rng.uniform(0.2, 1.0, 8000)
    compressed = dense + rng.permuted(np.tile([0.1, -0.1], 4000))
    slices = {f"site={number}": np.arange(8000) % 40 == number for number in range(40)}
    together = compare("MRR@10", dense, compressed, slices=slices)
    alone = [compare("MRR@10", dense[mask], compressed[mask]) for mask in slices.values()]
    assert any(part.high < 1 for part in alone), "one by one"
    assert not together.below(1.0)
    pairs = zip(together.slices, alone, strict=True)
    widths = [(part["high"] - part["low"]) / (own.high - own.low) for part, own in pairs]
    assert np.median(widths) == pytest.approx(3.23 / 1.96, rel=0.05), "1 - 0.05/40 is at 3.23 standard errors"


def test_the_agreement_on_a_slice_narrows_its_interval():
    slices = {"site=a": np.arange(200) < 100}
    dense = np.random.default_rng(0).uniform(0.2, 1.0, 200)
    compressed = dense * np.random.default_rng(1).uniform(0.9, 1.1, 200)
    agreed = {"kept": 0.97, "low": 0.5, "high": 1.5, "texts": 400}
    plain = compare("MRR@10", dense, compressed, agreed, slices).slices[0]
    near = {"site=a": {"kept": 0.995, "low": 0.994, "high": 0.996}}
    found = compare("MRR@10", dense, compressed, {**agreed, "slices": near}, slices)
    assert found.slices[0] == plain | near["site=a"] and plain["kept"] != 0.995
    assert "slices" not in found.evidence
    wide = {"site=a": {"kept": 0.9, "low": 0.1, "high": 1.9}}
    assert compare("MRR@10", dense, compressed, {**agreed, "slices": wide}, slices).slices[0] == plain


def test_a_slice_in_which_the_dense_model_never_scores_is_left_out():
    dense = np.zeros(100)
    dense[50:] = 1.0
    slices = {"site=nothing": np.arange(100) < 50}
    assert compare("MRR@10", dense, dense, slices=slices).slices == []


def test_held_out_queries_are_sliced_by_columns_of_few_values():
    rows = 80
    table = PairTable.from_columns(
        {
            "anchor": [f"question {row}" for row in range(rows)],
            "positive": [f"answer {row}" for row in range(rows)],
            "site": ["a" if row < 45 else "b" for row in range(rows)],
            "rare": ["x" if row < 5 else "y" for row in range(rows)],
            "only": ["same"] * rows,
        }
    )
    slices = Matching(["one text", "another"], table).slices
    assert {name: int(queries.sum()) for name, queries in slices.items()} == {
        "site=a": 45,
        "site=b": 35,
        "rare=y": 75,
    }


def test_the_narrower_interval_counts_and_says_so():
    agreed = {"kept": 0.995, "low": 0.991, "high": 0.998, "texts": 262}
    both = quality(0.978, 0.946, 1.010, evidence=agreed)
    assert both.estimate == (0.995, 0.991, 0.998) and both.verdict(0.99) == "shown"
    assert "262 texts" in both.sentence() and "97.8% kept" in both.sentence()
    wide = quality(0.99, 0.985, 0.995, evidence={**agreed, "low": 0.9})
    assert wide.estimate == (0.99, 0.985, 0.995)


def test_queries_to_decide_grow_with_the_square():
    assert quality(0.97, 0.95, 0.99, queries=100).queries_to_decide(0.99) == 100
    assert quality(0.98, 0.96, 1.00, queries=100).queries_to_decide(0.99) == 400
    assert quality(0.99, 0.97, 1.01).queries_to_decide(0.99) is None
