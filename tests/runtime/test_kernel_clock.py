"""Times of forms: in turns, kept, refused where they mean nothing; whole models with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from leanmatch import native
from leanmatch.compression.layer_specs import (
    DenseSparseSpec,
    DenseSpec,
    LowRankSpec,
    PruningSpec,
    RoundingSpec,
)
from leanmatch.compression.planner.clock import WORKLOADS
from leanmatch.errors import UsageError
from leanmatch.runtime.architectures import UnsupportedError
from leanmatch.runtime.kernels.clock import ROUNDS, TOO_NOISY, Form, KernelClock, machine_key, pack_form
from leanmatch.runtime.kernels.paths import best_level
from leanmatch.runtime.kernels.planned import MachineClock
from leanmatch.runtime.kernels.random_factors import random_factors

SPARSE = DenseSparseSpec(block=8, atoms=16, nonzeros=4)
SPECS = (
    SPARSE,
    DenseSparseSpec(block=8, atoms=16, nonzeros=2, value_bits=4),
    DenseSparseSpec(block=8, atoms=16, nonzeros=2, value_bits=None),
    PruningSpec(block=16, nonzeros=4),
    PruningSpec(block=16, nonzeros=4, value_bits=None),
    LowRankSpec(rank=16),
    LowRankSpec(rank=16, value_bits=None),
    RoundingSpec(bits=8),
    RoundingSpec(bits=4, group=16),
)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_random_factors_have_the_form_and_the_cost(spec) -> None:
    factors = random_factors(spec, 48, 64)
    assert factors.shape == (48, 64) and factors.cost() == spec.cost(48, 64)
    assert np.isfinite(factors.dense()).all() and np.abs(factors.dense()).max() > 0
    assert random_factors(DenseSpec(), 3, 5).shape == (3, 5)


def test_members_of_a_stack_are_packed_as_one_layer() -> None:
    shapes = ((32, 64), (32, 64), (32, 64))
    assert len(pack_form(Form(shapes, SPARSE), best_level())) == 1
    assert len(pack_form(Form(shapes, RoundingSpec()), best_level())) == 1
    assert len(pack_form(Form(shapes, LowRankSpec(rank=16)), best_level())) == 3


class Stopwatch:
    """A fake one: layers take what their bytes say, and the machine's pace changes from call to call."""

    def __init__(self, jitter: float = 0.0) -> None:
        self.calls, self.jitter, self.order = 0, jitter, []

    def __call__(self, layer, tokens, seconds) -> float:
        self.calls += 1
        self.order.append(layer.bytes)
        slow = 1 + self.jitter * (self.calls % 3)
        return layer.bytes * tokens * 1e-9 * slow


def test_forms_take_turns_with_dense_int8_and_are_timed_once() -> None:
    watch = Stopwatch()
    clock = KernelClock(64, time_layer=watch)
    forms = [Form(((48, 64),), spec) for spec in (SPARSE, LowRankSpec(rank=16))]
    clock.measure(forms)
    assert watch.calls == 3 * ROUNDS
    assert watch.order[:3] == watch.order[3:6], "one round after the other"
    dense, sparse = clock.seconds(forms[0].dense), clock.seconds(forms[0])
    packed = pack_form(forms[0], best_level())[0].bytes, pack_form(forms[0].dense, best_level())[0].bytes
    assert sparse / dense == pytest.approx(packed[0] / packed[1])
    clock.measure(forms)
    assert watch.calls == 3 * ROUNDS and not clock.noisy


def test_ratios_are_kept_for_this_machine_and_dense_int8_is_measured_anew(tmp_path: Path) -> None:
    form = Form(((48, 64),), SPARSE)
    first = KernelClock(64, folder=tmp_path, time_layer=Stopwatch())
    ratio = first.seconds(form) / first.seconds(form.dense)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith(machine_key()[:24])
    watch = Stopwatch()
    second = KernelClock(64, folder=tmp_path, time_layer=watch)
    assert second.seconds(form) / second.seconds(form.dense) == pytest.approx(ratio)
    assert watch.calls == ROUNDS, "dense int8 alone"
    for damage in ("", "[]", '{"version": "0", "ratios": {}}', file.read_text().replace('"ratios"', '"x"')):
        file.write_text(damage)
        watch = Stopwatch()
        assert KernelClock(64, folder=tmp_path, time_layer=watch).seconds(form) > 0
        assert watch.calls == 2 * ROUNDS, "measured again"
    assert json.loads(file.read_text())["ratios"], "and written again"


def test_a_noisy_machine_is_marked_and_a_hopeless_one_refused(tmp_path: Path) -> None:
    form = Form(((48, 64),), SPARSE)
    clock = KernelClock(64, folder=tmp_path, time_layer=Stopwatch(jitter=0.15))
    clock.measure([form])
    assert clock.noisy and clock.spread < TOO_NOISY
    (file,) = tmp_path.iterdir()
    assert list(json.loads(file.read_text())["ratios"]) == [form.dense.key], "noisy ratios are not kept"
    with pytest.raises(UsageError, match="too busy to time its kernels"):
        KernelClock(64, time_layer=Stopwatch(jitter=1.5)).measure([form])


def config(**more):
    return {
        "model_type": "bert",
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "vocab_size": 40,
        **more,
    }


def shapes():
    from transformers import BertConfig, BertModel

    model = BertModel(BertConfig(**config()))
    return {name: tuple(value.shape) for name, value in model.named_parameters()}


def test_whole_models_in_planned_forms_run_and_are_timed() -> None:
    seconds = iter(np.arange(0, 1e5, 0.01).tolist())
    clock = MachineClock(
        config(), shapes(), WORKLOADS["queries"], encoder_layers=5, clock=lambda: next(seconds)
    )
    names = [name.removesuffix(".weight") for name in shapes() if ".layer." in name and "Norm" not in name]
    kept = {name: SPARSE for name in names if not name.endswith("bias") and ".layer.2." not in name}
    assert clock.faster(kept, 2) == pytest.approx(1.0), "by a clock that gives every call the same time"
    assert clock.machine["level"] == best_level() and clock.machine["spread"] == pytest.approx(0, abs=1e-6)
    ids, offsets = np.arange(6, dtype=np.int32), np.array([0, 6])
    for encoder in (clock.int8(), clock.int8(1), clock.int8(3), clock.planned(kept, 2)):
        vectors = encoder.encode(ids, offsets.astype(np.int64), 1)
        assert vectors.shape == (1, 32) and np.isfinite(vectors).all()


def test_what_is_between_layers_grows_with_the_depth() -> None:
    native.load()
    clock = MachineClock(config(), shapes(), WORKLOADS["bulk"])
    linear = [((32, 32),) * 3, ((32, 32),), ((64, 32),), ((32, 64),)]
    none, one, three = (clock.rest_seconds(encoder_layers, linear) for encoder_layers in (0, 1, 3))
    assert 0 <= none <= one <= three < 1
    assert three - none == pytest.approx(3 * (one - none))


def test_models_that_the_runtime_does_not_plan() -> None:
    with pytest.raises(UnsupportedError, match="gpt2"):
        MachineClock({"model_type": "gpt2"}, {}, WORKLOADS["bulk"])
    shared = config(model_type="albert", embedding_size=16, num_hidden_groups=1, hidden_act="gelu")
    with pytest.raises(UnsupportedError, match="share weights"):
        MachineClock(shared, {}, WORKLOADS["bulk"])
