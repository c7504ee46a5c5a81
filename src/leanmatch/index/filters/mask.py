"""Which rows a filter leaves: numpy over coded columns.

Each value becomes a pair of bounds among the column's codes: the first code that is not below the value and
the first that is above it. So numbers are compared exactly, also where the column's type has no room for the
value (``0.5`` among integers, ``9007199254740993`` among floats). The integers of a number column are
compared as integers. A text column whose values all read as numbers is compared with a number by value
(``1.10 = 1.1``), with a quoted text by code points.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError
from leanmatch.index.filters.expression import AllOf, AnyOf, Compare, Filter, IsIn, Missing, Not, shortened
from leanmatch.index.storage.columns import CodedColumn, Value

Mask = NDArray[np.bool_]

_INT64 = np.iinfo(np.int64)


def filter_mask(
    expression: Filter,
    column: Callable[[str], CodedColumn],
    rows: int,
    check: Callable[[], None] = lambda: None,
) -> Mask:
    """True where an item passes, shape ``(rows,)``.

    Args:
        expression: the filter.
        column: a column's coded form by its name; raises :class:`UsageError` for a name that is none.
        rows: number of items.
        check: called before each comparison; what it raises ends the work.

    Raises:
        UsageError: no such column, or a value of a type that the column does not hold.
    """
    check()
    if isinstance(expression, AllOf | AnyOf):
        join = np.logical_and if isinstance(expression, AllOf) else np.logical_or
        joined = filter_mask(expression.parts[0], column, rows, check)
        for part in expression.parts[1:]:  # two masks at a time are in memory, however many parts there are
            joined = join(joined, filter_mask(part, column, rows, check))
        return joined
    if isinstance(expression, Not):
        return ~filter_mask(expression.part, column, rows, check)
    coded = column(expression.column)
    if isinstance(expression, Missing):
        return ~coded.present
    if isinstance(expression, IsIn):
        return _is_in(coded, expression)
    return _compare(coded, expression)


def _compare(coded: CodedColumn, test: Compare) -> Mask:
    _check(coded, test.column, test.value)
    if coded.integers is not None:
        return np.where(coded.integers.present, _compare(coded.integers, test), _compare(coded.floats, test))
    if coded.kind == "text" and not isinstance(test.value, str):
        assert coded.numeric is not None
        coded = coded.numeric
    start, end = _bounds(coded, test.value)
    if test.operator in {"eq", "ne"}:
        equal: Mask = coded.codes == start if start < end else np.zeros(len(coded.codes), dtype=bool)
        return coded.present & (equal if test.operator == "eq" else ~equal)
    below = _below(coded, start if test.operator in {"lt", "ge"} else end)
    return coded.present & (below if test.operator in {"lt", "le"} else ~below)


def _is_in(coded: CodedColumn, test: IsIn) -> Mask:
    for value in test.values:
        _check(coded, test.column, value)
    if coded.integers is not None:
        return _is_in(coded.integers, test) | _is_in(coded.floats, test)
    numbers = tuple(value for value in test.values if not isinstance(value, str))
    if coded.kind == "text" and numbers:
        assert coded.numeric is not None
        texts = tuple(value for value in test.values if isinstance(value, str))
        return _is_in(coded, IsIn(test.column, texts)) | _is_in(coded.numeric, IsIn(test.column, numbers))
    wanted = []
    for value in test.values:
        start, end = _bounds(coded, value)
        if start < end:
            wanted.append(start)
    return coded.present & np.isin(coded.codes, np.array(wanted, coded.codes.dtype))


def _bounds(coded: CodedColumn, value: Any) -> tuple[Any, Any]:
    """The first code that is not below the value, and the first above it; equal where no item can have it."""
    if coded.kind == "decimal":  # codes are ranks among the sorted values, here and with text
        number = Decimal(str(value))  # the digits that were written: 19.9 is 19.90
        return bisect_left(coded.values, number), bisect_right(coded.values, number)
    if coded.kind == "text":
        return bisect_left(coded.values, value), bisect_right(coded.values, value)
    if coded.kind != "number":
        if not _INT64.min <= value <= _INT64.max:
            return (math.inf, math.inf) if value > 0 else (-math.inf, -math.inf)
        return math.ceil(value), math.floor(value) + 1
    try:
        near = float(value)
    except OverflowError:
        return (math.inf, math.inf) if value > 0 else (-math.inf, -math.inf)
    after = math.nextafter(near, math.inf)  # Python compares integers and floats exactly
    return near if near >= value else after, after if near <= value else near


def _below(coded: CodedColumn, bound: Any) -> Mask:
    if coded.kind != "number" and bound > _INT64.max:
        return np.ones(len(coded.codes), dtype=bool)
    below: Mask = coded.codes < bound
    return below


def _check(coded: CodedColumn, column: str, value: Value) -> None:
    kind = "boolean" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text"
    held = "number" if coded.kind in {"integer", "decimal"} else coded.kind
    if kind != held and not (held == "text" and kind == "number" and coded.numeric is not None):
        raise UsageError(
            f"the column {column[:80]!r} holds values of type {coded.kind}, not {shortened(value)}",
            remedy={"text": "put the value in quotes", "number": "give a number"}.get(held, "true or false"),
        )
