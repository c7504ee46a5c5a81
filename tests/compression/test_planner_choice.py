"""Plans from a table of times: budgets, the nearest to an impossible one, less depth, and the menu."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from compression_models import tiny_encoder, token_batch

from leanmatch.compression import DenseSparseSpec, LowRankSpec, RoundingSpec
from leanmatch.compression.planner import menu as menus
from leanmatch.compression.planner.budget import Budget
from leanmatch.compression.planner.candidates import Candidate, Group, groups_of
from leanmatch.compression.planner.choice import Choices
from leanmatch.compression.planner.clock import WORKLOADS, workload
from leanmatch.compression.planner.depth import (
    Depth,
    can_drop,
    encoder_layer_count,
    lacking,
    without_layers,
)
from leanmatch.compression.planner.plan import planned_layers
from leanmatch.compression.planner.quality import Quality
from leanmatch.errors import ModelError, UsageError
from leanmatch.models.architectures import ARCHITECTURES

B8, B16, B32 = (DenseSparseSpec(block=block, nonzeros=4) for block in (8, 16, 32))
INT8 = RoundingSpec()
FORMS = {  # bytes, multiply-adds, seconds, harm: b8 is smaller than int8, and slower
    B8: (900, 500, 1.2, 0.002),
    B16: (500, 300, 0.6, 0.01),
    B32: (300, 200, 0.3, 0.04),
    INT8: (1000, 1000, 1.0, 0.0001),
}


DEPTHS = (Depth(), Depth((2,), 0.1), Depth((2, 1), 0.3))


class TableClock:
    """A clock with a table of its own: a second for int8 of a layer, half for what is between layers."""

    workload = WORKLOADS["bulk"]
    machine = {"cpu": "Abacus", "level": "beads", "spread": 0.0, "noisy": False}  # noqa: RUF012

    def __init__(self, table=None):
        self.table = table or {spec: seconds for spec, (_, _, seconds, _) in FORMS.items()}
        self.asked = []

    def layer_seconds(self, options):
        self.asked += options
        return [self.table.get(spec, 9.0) for _, spec in options]

    def rest_seconds(self, encoder_layers, linear):
        assert all(len(shapes) >= 1 for shapes in linear)
        return 0.5 * encoder_layers

    def faster(self, specs, encoder_layers):
        return 1.0


def group(block):
    options = tuple(Candidate(spec, *costs[:3]) for spec, costs in FORMS.items())
    name = f"encoder.layer.{block}.output.dense"
    return Group((name,), (40, 25), False, options, ((40, 25),))


def choices(clock=None, depths=DEPTHS, **more):
    harm = [[costs[3] for costs in FORMS.values()]] * 4
    return Choices(
        groups=[group(block) for block in range(4)],
        harm=harm,
        depths=depths,
        other_bytes={len(depth.dropped): 100 - 10 * len(depth.dropped) for depth in depths},
        architecture=ARCHITECTURES["bert"],
        encoder_layers=4,
        clock=clock or TableClock(),
        **more,
    )


def forms(plan):
    return [rule.layer for rule in plan.spec.rules]


def test_time_and_not_multiply_adds_decides():
    """b8 has half the multiply-adds and takes longer: plans for speed leave it, one for multiply-adds not."""
    whole = choices(depths=(Depth(),))
    assert whole.int8_seconds == 6.0
    quick = whole.within(Budget(faster=1.3))
    assert forms(quick).count(B8) == 0 and quick.faster >= 1.3
    assert forms(quick).count(INT8) == 0 and forms(quick).count(B32) == 0, "four of b16 do: 4.4 of 6 seconds"
    few = whole.within(Budget(macs=2.0))
    assert forms(few) == [B8] * 4 and few.faster < 1, "the least harm at half the multiply-adds, and slower"


def test_all_limits_at_once_hold():
    plan = choices(depths=(Depth(),)).within(Budget(faster=1.4, size=2000, macs=4.2))
    assert plan.faster >= 1.4 and plan.bytes <= 2000 and plan.macs <= 4000 / 4.2
    assert plan.bytes == 100 + sum(FORMS[form][0] for form in forms(plan))


def test_encoder_layers_go_where_factors_save_no_time():
    """As on a CPU with AMX: whatever is factored takes longer than int8."""
    slow = TableClock({B8: 2.0, B16: 1.8, B32: 1.5, INT8: 1.0})
    amx = choices(slow)
    for made in amx.groups:
        assert made.candidates[1].seconds == 0.6, "the table below replaces these"
    timed = [
        replace(g, candidates=tuple(replace(c, seconds=slow.table[c.spec]) for c in g.candidates))
        for g in amx.groups
    ]
    amx = replace(amx, groups=timed)
    assert not amx.factors_pay(1.05) and choices().factors_pay(1.05)
    plan = amx.within(Budget(faster=1.3))
    assert plan.dropped == (2,) and forms(plan) == [INT8] * 3
    assert [rule.pattern for rule in plan.spec.rules] == [
        f"encoder.layer.{number}.output.dense" for number in range(3)
    ], "numbered as they remain"
    with pytest.raises(UsageError) as refused:
        amx.within(Budget(faster=4.0))
    assert "the nearest possible is: --faster 2x" in refused.value.remedy
    assert amx.within(Budget(faster=2.0)).dropped == (2, 1)


def test_encoder_layers_and_factors_together():
    plan = choices().within(Budget(faster=3.0))
    assert plan.dropped and set(forms(plan)) <= {B16, B32} and plan.faster >= 3.0
    assert choices().within(Budget(faster=1.3)).dropped == (), "factors alone do less harm"
    assert choices().within(Budget(faster=1.3), dropped=1).dropped == (2,)


def test_impossible_budgets_name_the_nearest():
    whole = choices(depths=(Depth(),))
    with pytest.raises(UsageError) as refused:
        whole.within(Budget(size=1000))
    assert "1,000 bytes" in refused.value.problem and "--size 0.01MB" in refused.value.remedy
    with pytest.raises(UsageError) as refused:
        whole.within(Budget(macs=500.0))
    assert "--macs 5x" in refused.value.remedy
    with pytest.raises(UsageError) as refused:
        whole.within(Budget(size=1400, faster=6.0))
    assert "--faster 1.87x (the rest as asked)" in refused.value.remedy, refused.value.remedy
    with pytest.raises(UsageError) as refused:
        whole.within(Budget(size=500, faster=6.0))
    assert "more room" in refused.value.remedy


def test_a_plan_that_is_slower_as_a_whole_is_made_again():
    """Kernels that are timed alone are not in one another's way; the model's own time counts."""
    measured = []

    def measure(plan):
        measured.append(plan)
        return 0.8 * plan.faster

    plan = choices(depths=(Depth(),), measure=measure).within(Budget(faster=1.3))
    assert len(measured) > 1 and plan.faster >= 1.3 / 1.02
    assert forms(plan).count(B32) > 0


def test_each_distinct_form_is_timed_and_tables_are_not():
    model, clock = tiny_encoder("bert"), TableClock()
    groups = groups_of(model, planned_layers(model), "stf", clock)
    tables = [group for group in groups if group.embedding]
    assert tables and all(c.seconds == 0.0 for group in tables for c in group.candidates)
    stacked = [group for group in groups if len(group.names) == 3]
    assert stacked and all(group.shapes == ((32, 32),) * 3 for group in stacked)
    assert all(shapes in {g.shapes for g in groups} for shapes, _ in clock.asked)


def test_members_of_a_stack_pay_for_their_own_low_rank():
    model = tiny_encoder("bert")
    for group in groups_of(model, planned_layers(model), "svd"):
        for candidate in group.candidates:
            if isinstance(candidate.spec, LowRankSpec):
                costs = [candidate.spec.cost(*shape) for shape in group.shapes]
                assert candidate.macs == sum(cost.macs for cost in costs)
    assert workload("queries").texts == 1
    with pytest.raises(UsageError, match="one of queries, bulk"):
        workload("lunch")


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", "mpnet"])
def test_a_model_without_layers_is_that_of_its_configuration(kind):
    model = tiny_encoder(kind)
    assert encoder_layer_count(model) == 2
    lean = without_layers(model, (0,))
    assert encoder_layer_count(model) == 2 and encoder_layer_count(lean) == 1
    again = type(lean)(lean.config)
    again.load_state_dict(lean.state_dict())
    with torch.no_grad():
        whole, short, loaded = (m.eval()(**token_batch())[0] for m in (model, lean, again))
        with lacking(model, (0,)):
            inside = model(**token_batch())[0]
    assert torch.equal(short, loaded) and torch.equal(short, inside) and not torch.allclose(short, whole)


@pytest.mark.parametrize("kind", ["albert", "t5"])
def test_encoder_layers_that_share_weights_stay(kind):
    model = tiny_encoder(kind)
    assert not can_drop(model)
    with pytest.raises(ModelError, match="cannot be dropped"):
        without_layers(model, (0,))


class Shot:
    """States whose first factors keep 90%."""

    def __init__(self, slices=()):
        self.plans, self.slices = [], slices

    def one_shot(self, rung, plan):
        self.plans.append(plan)
        quality = Quality("MRR@10", 0.5, 0.45, 0.9, 0.88, 0.92, 400, slices=list(self.slices))
        return type("Attempt", (), {"quality": quality})


def test_the_menu_is_a_frontier_and_each_row_can_be_picked():
    states = Shot()
    menu = menus.make_menu(choices(measure=lambda plan: plan.faster), Budget(), states)
    rows = menu.rows
    assert [row.number for row in rows] == list(range(1, len(rows) + 1)) and len(rows) >= 4
    kept = [row.expected.kept for row in rows]
    assert kept == sorted(kept, reverse=True), "the most careful first"
    assert all(row.expected.low <= row.expected.kept <= row.expected.high for row in rows)
    assert not any(menus._beats(a.plan, b.plan) for a in rows for b in rows)
    assert len(states.plans) == 1 and not states.plans[0].dropped
    assert rows[0].texts_a_second == pytest.approx(rows[0].plan.faster / 6.0)
    assert menu.row(2) is rows[1]
    with pytest.raises(UsageError, match="no row 99"):
        menu.row(99)
    assert menus.Menu.from_json(json.loads(json.dumps(menu.to_json()))) == menu
    within = menus.frontier(choices(), Budget(size=2000, faster=1.6))
    assert all(plan.bytes <= 2000 and plan.faster >= 1.6 for plan in within)
    with pytest.raises(UsageError, match="no choice of layers"):
        menus.frontier(choices(), Budget(size=200))


@pytest.mark.parametrize("beside", [0, 100_000])
def test_the_nearest_size_is_one_that_works(beside: int) -> None:
    """Tokenizer and configurations, too, must fit the size that an error names."""
    many = choices()
    many = replace(many, other_bytes={number: 9_000_000 for number in many.other_bytes})
    with pytest.raises(UsageError, match=r"--size ([0-9.]+)MB") as refused:
        many.within(Budget(size=200_000, beside=beside))
    named = int(float(re.search(r"--size ([0-9.]+)MB", str(refused.value))[1]) * 1e6)
    plan = many.within(Budget(size=named, beside=beside))
    assert named - 20_000 < plan.bytes + beside <= named


def test_the_price_of_harm_is_that_of_the_one_shot():
    menu = menus.make_menu(choices(depths=(Depth(),)), Budget(), Shot())
    shot_harm = menus._middle(menus.frontier(choices(depths=(Depth(),)), Budget())).harm * 0.52 / 0.48
    for row in menu.rows:
        assert row.expected.kept == pytest.approx(1 - 0.1 / shot_harm * row.plan.harm)
    assert np.all(np.diff([row.plan.harm for row in menu.rows]) >= 0)


def test_the_menu_names_the_slice_that_loses_more():
    one = {"slice": "site=a", "kept": 0.8, "low": 0.76, "high": 0.85, "queries": 60}
    other = {"slice": "site=b", "kept": 0.7, "low": 0.4, "high": 0.95, "queries": 30}
    menu = menus.make_menu(choices(depths=(Depth(),)), Budget(), Shot([one, other]))
    assert menu.worst_slice == "site=a", "that of site=b may keep as much as all"
    for row in menu.rows:
        lost = {name: [1 - share for share in getattr(row, name)] for name in ("expected", "worst")}
        assert lost["worst"][0] == pytest.approx(2 * lost["expected"][0])
        assert lost["worst"][1] == pytest.approx(2 * lost["expected"][1], rel=0.01)
    assert menus.Menu.from_json(json.loads(json.dumps(menu.to_json()))) == menu
    assert menus.make_menu(choices(depths=(Depth(),)), Budget(), Shot([other])).worst_slice is None
