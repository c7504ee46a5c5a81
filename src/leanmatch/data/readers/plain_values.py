"""Values of item tables as they are kept: text, numbers and booleans, with no digit lost.

JSON and Parquet say which of the three a value is. CSV and TSV hold text only: their column becomes
numbers or booleans when every value would be written back unchanged, and stays text otherwise. So
``12`` and ``2.5`` are numbers; ``007``, ``1.10`` and ``1e5`` keep their whole column text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from leanmatch.data.problems import Problem

LONGEST_NUMBER = 32
"""No number of 64 bits is written in more characters."""

_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}


def as_list(name: str, values: Any, lines: Sequence[int], problems: list[Problem]) -> list[Any]:
    """A column as Python values; a value that Python cannot represent becomes None and a problem.

    Args:
        name: the column, for messages.
        values: a sequence, or an Arrow array.
        lines: the line or row of each value.
        problems: receives what is wrong.
    """
    if not hasattr(values, "to_pylist"):
        return list(values)
    try:
        return list(values.to_pylist())
    except (ArithmeticError, LookupError, NotImplementedError, ValueError):
        pass  # somewhere in the column: look for the rows
    out = []
    for value, line in zip(values, lines, strict=True):
        try:
            out.append(value.as_py())
        except (ArithmeticError, LookupError, NotImplementedError, ValueError) as error:
            stored = f"{getattr(value, 'value', '')} as {value.type}".strip()
            zone = getattr(value.type, "tz", None)
            reason = str(error) if zone is None else f"{error} (time zone {zone!r})"
            remedy = "write it as a date of the years 1 to 9999 in a zone of the IANA database, or as text"
            problems.append(Problem(line, name, stored, f"the value cannot be read: {reason}", remedy))
            out.append(None)
    return out


def plain_columns(
    columns: Mapping[str, Any], lines: Sequence[int]
) -> tuple[dict[str, list[Any]], list[int], list[Problem]]:
    """Columns as plain values, the empty text being none.

    Args:
        columns: sequences or Arrow arrays by name, all of one length.
        lines: the line of each row in its file.

    Returns:
        the columns and lines of the good rows, and what is wrong with the others.
    """
    problems: list[Problem] = []
    plain = {
        name: [
            plain_value(name, value, line, problems)
            for value, line in zip(as_list(name, values, lines, problems), lines, strict=True)
        ]
        for name, values in columns.items()
    }
    if not problems:
        return plain, list(lines), []
    bad = {problem.line for problem in problems}
    kept = [i for i, line in enumerate(lines) if line not in bad]
    return (
        {name: [values[i] for i in kept] for name, values in plain.items()},
        [lines[i] for i in kept],
        problems,
    )


def plain_value(name: str, value: Any, line: int, problems: list[Problem]) -> Any:
    """A value as text, number or boolean; None where there is none, or half of a surrogate pair (a problem).

    Objects of other classes than those that files hold are handed through.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            remedy = "store the text as UTF-8"
            problems.append(Problem(line, name, value, "the text has half of a surrogate pair", remedy))
            return None
        return value or None
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return None if math.isnan(value) else value
    form = next((form for kinds, form in _FORMS if isinstance(value, kinds)), None)
    return value if form is None else form(value)


def _as_json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError):
        return str(value)


_FORMS: tuple[tuple[tuple[type, ...], Callable[[Any], str]], ...] = (
    ((date, datetime, time), lambda value: str(value.isoformat())),
    ((Decimal, timedelta), str),
    ((bytes,), lambda value: str(value.decode("utf-8", "backslashreplace"))),
    ((list, dict, tuple), _as_json),
)
"""How values that are neither text nor number nor boolean become text."""


def as_text(value: Any) -> str | None:
    """A plain value as text, in JSON's form where it is none.

    >>> as_text("007"), as_text(7), as_text(True), as_text(None)
    ('007', '7', 'true', None)
    """
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, int | float) else str(value)


def typed_column(values: Sequence[str | None]) -> list[Any]:
    """A column of texts as numbers or booleans, where every value would be written back unchanged.

    >>> typed_column(["1", None, "2.5"]), typed_column(["1", "1.10"]), typed_column(["true", "False"])
    ([1, None, 2.5], ['1', '1.10'], [True, False])
    """
    texts = {value for value in values if value is not None}
    if texts and texts <= _BOOLEANS.keys():
        return [None if value is None else _BOOLEANS[value] for value in values]
    numbers: dict[str | None, Any] = {None: None}
    for text in texts:
        number = canonical_number(text)
        if number is None:
            return list(values)
        numbers[text] = number
    return [numbers[value] for value in values]


def canonical_number(text: str) -> int | float | None:
    """The number that a text stands for, if it is written as the number is printed; else None.

    >>> canonical_number("12"), canonical_number("-2.5"), canonical_number("2.50"), canonical_number("007")
    (12, -2.5, None, None)
    """
    if len(text) > LONGEST_NUMBER:
        return None
    try:
        whole = int(text)
    except ValueError:
        try:
            number = float(text)
        except ValueError:
            return None
        return number if repr(number) == text and math.isfinite(number) else None
    return whole if str(whole) == text and -(2**63) <= whole < 2**63 else None
