"""Values of any kind as the texts that tables hold."""

from __future__ import annotations

import json
import math
from datetime import date, datetime
from typing import Any

from leanmatch.data.problems import Problem


def one_text(name: str, value: Any, line: int, problems: list[Problem], required: bool) -> str | None:
    """A value as text; None where it is missing or cannot be text, which is recorded as a problem."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            problems.append(
                Problem(line, name, value, "the text has half of a surrogate pair", "store the text as UTF-8")
            )
            return None
        return value
    if required:
        remedy = "put the value in quotes where it is meant as text"
        problems.append(Problem(line, name, value, f"text is needed, not {type(value).__name__}", remedy))
        return None
    return _as_text(value)


def _as_text(value: Any) -> str:
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError):
        return str(value)
