"""Options are validated at once, and survive the way through JSON."""

from __future__ import annotations

import pytest

from leanmatch.errors import UsageError
from leanmatch.training import RegularizerOptions, ScheduleOptions, TrainOptions


def test_round_trip():
    options = TrainOptions(
        base="x",
        regularizer=RegularizerOptions(kind="out", weight=0.5),
        schedule=ScheduleOptions(max_steps=7),
    )
    assert TrainOptions.from_json(options.to_json()) == options


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bases": "x"}, "unknown option 'bases'\n.*one of base, regularizer"),
        ({"schedule": {"learning_rate": 1}}, "unknown option 'schedule.learning_rate'"),
        ({"schedule": {"batch_size": "64"}}, "'schedule.batch_size' must be int .found '64'"),
        ({"schedule": {"lr": "1e-4"}}, "must be float or nothing"),
        ({"schedule": 3}, "must be a mapping"),
        ({"schedule": {"batch_size": 1}}, "batch_size must be at least 2"),
        ({"schedule": {"epochs": 0}}, "epochs must be above 0"),
        ({"schedule": {"lr": 0}}, "lr must be above 0"),
        ({"schedule": {"warmup": 1.5}}, "between 0 and 1"),
        ({"schedule": {"device": "tpu"}}, "one of auto, cpu, cuda"),
        ({"schedule": {"precision": "int8"}}, "one of auto, fp32"),
        ({"schedule": {"max_steps": 0}}, "max_steps must be at least 1"),
        ({"regularizer": {"kind": "l2"}}, "one of itv, out, mask, none"),
        ({"regularizer": {"weight": "large"}}, "unknown weight 'large'"),
        ({"regularizer": {"weight": -1}}, "weight must be at least 0"),
        ({"average": 1.6}, "average must be between 0 and 1.5"),
        ({"average": "yes"}, "unknown average 'yes'"),
        ({"negatives": "hard"}, "one of given, mined, none"),
        ({"freeze_layers": 1, "lora_rank": 4}, "exclude one another"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(UsageError, match=message):
        TrainOptions.from_json(values)
