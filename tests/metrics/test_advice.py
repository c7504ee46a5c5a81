"""What to do now, from what an evaluation found."""

from __future__ import annotations

import pytest

from leanmatch.metrics.advice import advice, warnings
from leanmatch.metrics.bootstrap import Interval
from leanmatch.metrics.results import Evaluation, MetricResult, SliceResult, judge, verdict_sentence


def part(kind, difference, half, queries=400, name=None):
    bounds = Interval(difference - half, difference + half)
    sentence = verdict_sentence(
        "MRR@10", difference, bounds, name="m", against="base", confidence=0.95, units=f"{queries} queries"
    )
    result = MetricResult(
        *("MRR@10", 0.5 + difference, 0.4, 0.6, 0.5, difference, bounds.low, bounds.high),
        judge(bounds),
        sentence,
    )
    return SliceResult(name or kind, kind, queries, queries, 900, 0, {"MRR@10": result})


def evaluation(*parts):
    slices = {one.name: one for one in parts}
    return Evaluation("m", "base", "x.csv", "test rows", False, "all", 0.95, slices, (), {})


IN_BETTER = part("in distribution", 0.05, 0.02)


def test_a_loss_out_of_distribution_is_loud_and_comes_with_ways_out():
    found = evaluation(IN_BETTER, part("out of distribution", -0.03, 0.01))
    (loud,) = warnings(found)
    assert loud.startswith("WARNING: out of distribution: m is worse than base by 3.0 points of MRR@10")
    (first,) = advice(found, average=1.2, steps=50)
    assert (
        "--target FILE" in first
        and "--average 0.6" in first
        and "--max-steps 25" in first
        and "add training pairs" in first
    )
    assert "--average 0.5" in advice(found)[0]


def test_a_loss_in_distribution():
    found = evaluation(part("in distribution", -0.03, 0.01), part("out of distribution", 0.0, 0.02))
    assert len(warnings(found)) == 1 and "do not use it" in advice(found)[0]


def test_a_loss_on_one_group():
    found = evaluation(
        IN_BETTER, part("out of distribution", 0.03, 0.01), part("column value", -0.1, 0.02, name="shop=A")
    )
    assert any("It lost on shop=A" in line and "--hold-out shop=A" in line for line in advice(found))


@pytest.mark.parametrize(
    ("queries", "half", "wanted"), [(400, 0.03, "3,600"), (100, 0.05, "2,500"), (50, 0.012, "200")]
)
def test_nothing_significant_says_how_many_pairs_would_be(queries, half, wanted):
    found = evaluation(part("overall", 0.001, half, queries))
    assert not warnings(found)
    line = advice(found)[0]
    assert "Nothing is significant" in line and f"about {wanted} test pairs" in line


def test_few_queries_with_a_narrow_interval_claim_nothing():
    line = advice(evaluation(part("overall", 0.0, 0.0, 155)))[0]
    assert line.endswith("155 queries are few: give at least 200 test pairs.")


def test_a_result_that_is_the_base_is_called_so():
    (line,) = advice(evaluation(part("overall", 0.0, 0.0, 155)), average=0.0, steps=22)
    assert line.startswith("The result is the base model itself") and "--max-steps 11" in line


def test_all_rows_together_are_not_named_beside_their_parts():
    lines = advice(
        evaluation(part("overall", 0.04, 0.01), IN_BETTER, part("out of distribution", 0.03, 0.01))
    )
    assert lines[0].startswith("It gained in distribution and out of distribution and lost nowhere")


def test_rows_that_are_all_out_of_distribution_are_so():
    import dataclasses

    twin = dataclasses.replace(part("out of distribution", -0.03, 0.01), same_as="overall")
    found = evaluation(part("overall", -0.03, 0.01), twin)
    assert len(warnings(found)) == 1 and "It lost out of distribution" in advice(found)[0]
    assert not any("No row is out of distribution" in line for line in advice(found))


def test_gains_alone_lead_on_and_what_was_not_seen_is_told():
    lines = advice(evaluation(IN_BETTER, part("out of distribution", 0.001, 0.02)))
    assert "compress it" in lines[0] and "No difference was seen out of distribution" in lines[1]
    assert any("nothing is known of new categories" in line for line in advice(evaluation(IN_BETTER)))
