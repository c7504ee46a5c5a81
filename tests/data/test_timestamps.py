"""Moments from what files and users write."""

from __future__ import annotations

import datetime

import pytest

from leanmatch.data.timestamps import parse_timestamp

JUNE = datetime.datetime(2021, 6, 1, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    "value",
    [
        "2021-06-01",
        "20210601",
        " 2021-06-01T00:00:00Z\n",
        "2021-06-01T02:00:00+02:00",
        "1622505600",
        1622505600,
        1622505600.0,
        datetime.date(2021, 6, 1),
        datetime.datetime(2021, 6, 1),
        JUNE.astimezone(datetime.timezone(datetime.timedelta(hours=-5))),
    ],
)
def test_all_ways_to_write_a_moment(value: object) -> None:
    found = parse_timestamp(value)
    assert found == JUNE and found.tzinfo is datetime.UTC


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("June", "neither an ISO 8601 date"),
        ("", "neither an ISO 8601 date"),
        ("nan", "not a finite number"),
        (float("inf"), "not a finite number"),
        (1622505600000, "milliseconds"),
        (True, "neither an ISO 8601 date"),
        (None, "neither an ISO 8601 date"),
        ([2021], "neither an ISO 8601 date"),
    ],
)
def test_what_is_no_moment(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_timestamp(value)
