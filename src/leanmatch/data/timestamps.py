"""Reading points in time: ISO 8601 and epoch seconds."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST_SECONDS = 32_503_680_000  # the year 3000: what is above is milliseconds or worse


def parse_timestamp(value: object) -> datetime:
    """A point in time, in UTC. One without a time zone is taken as UTC.

    Args:
        value: an ISO 8601 date or date-time, seconds since 1970 (number or digits), a ``date`` or a
            ``datetime``. Eight digits that make a date (``20210601``) are a date, not seconds.

    Raises:
        ValueError: anything else, with the reason.

    >>> parse_timestamp("2021-06-01").isoformat()
    '2021-06-01T00:00:00+00:00'
    >>> parse_timestamp("1622505600") == parse_timestamp("2021-06-01")
    True
    """
    if isinstance(value, str):
        text = value.strip()
        try:
            return _in_utc(datetime.fromisoformat(text))
        except ValueError:
            try:
                value = float(text)
            except ValueError:
                raise ValueError("neither an ISO 8601 date nor epoch seconds") from None
    if isinstance(value, datetime):
        return _in_utc(value)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError("not a finite number of seconds")
        if abs(value) > LATEST_SECONDS:
            raise ValueError("too large for epoch seconds (milliseconds?)")
        return EPOCH + timedelta(seconds=value)
    raise ValueError("neither an ISO 8601 date nor epoch seconds")


def _in_utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
