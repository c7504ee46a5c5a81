"""The one form that rows take, whatever they were read from.

Text and identifiers become ``large_string``, ``label`` int8 (0 or 1), ``split`` one of train, valid and test,
``timestamp`` microseconds in UTC, ``relevance`` float64. Every other column becomes text, so that one table
has one fingerprint in every file format. A missing value and the empty string are the same: null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, TypeAlias

from leanmatch.data.arrow import pa, pc
from leanmatch.data.columns.names import REQUIRED, SPLIT_NAMES, SPLITS
from leanmatch.data.columns.roles import label_of
from leanmatch.data.problems import Problem
from leanmatch.data.readers.plain_values import as_list
from leanmatch.data.timestamps import parse_timestamp

TEXT = pa.large_string()
TIME = pa.timestamp("us", tz="UTC")
FIRST_SECOND, END_SECOND = -62_135_596_800, 253_402_300_800
"""The years 1 to 9999, in seconds from 1970."""

Values: TypeAlias = Any
"""A sequence of Python values, an Arrow array or a chunked array."""


def column_type(name: str) -> pa.DataType:
    """The Arrow type that a column of this name has in a pair table."""
    return {"label": pa.int8(), "timestamp": TIME, "relevance": pa.float64()}.get(name, TEXT)


def canonical_rows(columns: Mapping[str, Values], lines: Sequence[int]) -> tuple[pa.Table, list[Problem]]:
    """Bring a batch of rows to the canonical form.

    Args:
        columns: values by column name, all of one length.
        lines: the line of each row in its file.

    Returns:
        the good rows, and what is wrong with the others.
    """
    problems: list[Problem] = []
    arrays: dict[str, pa.Array] = {}
    for name, values in columns.items():
        if name == "label":
            remedy = "0 or 1 is needed: write 1 for a pair that matches, 0 for one that does not"
            arrays[name] = _mapped(name, values, lines, problems, pa.int8(), label_of, remedy)
        elif name == "split":
            arrays[name] = _mapped(
                name, values, lines, problems, TEXT, _split, f"one of: {', '.join(SPLITS)}"
            )
        elif name == "timestamp":
            remedy = "an ISO 8601 date (2021-06-01, 2021-06-01T12:30:00Z) or seconds since 1970 is needed"
            arrays[name] = _mapped(name, values, lines, problems, TIME, parse_timestamp, remedy)
        elif name == "relevance":
            arrays[name] = _mapped(name, values, lines, problems, pa.float64(), _number, "a number is needed")
        else:
            arrays[name] = _texts(name, values, lines, problems)
    table = pa.table(arrays)
    if problems:
        bad = {problem.line for problem in problems}
        table = table.filter(pa.array([line not in bad for line in lines]))
    return table, problems


def _texts(name: str, values: Values, lines: Sequence[int], problems: list[Problem]) -> pa.Array:
    required = name in REQUIRED
    array = _text_array(values)
    if array is None:
        listed = as_list(name, values, lines, problems)
        array = pa.array(
            [_one_text(name, value, lines[i], problems, required) for i, value in enumerate(listed)], TEXT
        )
    empty = pc.equal(pc.utf8_trim_whitespace(array) if required else array, pa.scalar("", TEXT))
    empty = pc.fill_null(empty, True)
    if not pc.any(empty).as_py():
        return array
    if not required:
        return pc.if_else(empty, pa.scalar(None, TEXT), array)
    reported = {problem.line for problem in problems if problem.column == name}
    for i in pc.indices_nonzero(empty).to_pylist():
        if lines[i] not in reported:
            remedy = f"put a text into {name!r} or delete the row"
            problems.append(Problem(lines[i], name, array[i].as_py(), "the text is missing or blank", remedy))
    return array


def _text_array(values: Values) -> pa.Array | None:
    """The fast path: values that are text already."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    if isinstance(values, pa.Array):
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        kind = values.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
            return values.cast(TEXT)
        return None
    if any(type(value) is bytes for value in values):
        return None
    try:
        return pa.array(values, TEXT, from_pandas=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError):
        return None


def _mapped(
    name: str,
    values: Values,
    lines: Sequence[int],
    problems: list[Problem],
    kind: pa.DataType,
    function: Callable[[Any], Any],
    remedy: str,
) -> pa.Array:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        if name == "timestamp" and pa.types.is_timestamp(values.type) and values.null_count == 0:
            values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
            if _in_calendar(values):
                # A time without a zone is UTC; a cast keeps the numbers.
                return values.cast(pa.timestamp("us", tz=values.type.tz), safe=False).cast(TIME)
        values = as_list(name, values, lines, problems)
    unread = {problem.line for problem in problems if problem.column == name}
    result: list[Any] = []
    for i, value in enumerate(values):
        if lines[i] in unread:
            result.append(None)
            continue
        try:
            result.append(function(value))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            reason = f": {error}" if name == "timestamp" else ""
            problems.append(Problem(lines[i], name, value, f"{name!r} cannot be read{reason}", remedy))
            result.append(None)
    return pa.array(result, kind)


def _in_calendar(values: pa.Array) -> bool:
    """Do all times lie in the years 1 to 9999, which Python's dates have?"""
    if not len(values):
        return True
    unit = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[values.type.unit]
    ends = pc.min_max(values.cast(pa.int64())).as_py()
    return bool(FIRST_SECOND * unit <= ends["min"] and ends["max"] < END_SECOND * unit)


def _split(value: Any) -> str:
    return SPLIT_NAMES[value.strip().casefold()] if isinstance(value, str) else SPLIT_NAMES[value]


def _number(value: Any) -> float | None:
    if value is None or value == "":
        return None
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _one_text(name: str, value: Any, line: int, problems: list[Problem], required: bool) -> str | None:
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
