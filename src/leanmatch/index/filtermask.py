"""Which rows a filter leaves: numpy over coded columns."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError
from leanmatch.index.columns import CodedColumn, Value
from leanmatch.index.filters import AllOf, AnyOf, Compare, Filter, IsIn, Missing, Not

Mask = NDArray[np.bool_]

_COMPARE: dict[str, Callable[[NDArray[np.generic], Value], Mask]] = {
    "eq": lambda codes, value: codes == value,
    "ne": lambda codes, value: codes != value,
    "lt": lambda codes, value: codes < value,  # type: ignore[operator]
    "le": lambda codes, value: codes <= value,  # type: ignore[operator]
    "gt": lambda codes, value: codes > value,  # type: ignore[operator]
    "ge": lambda codes, value: codes >= value,  # type: ignore[operator]
}


def filter_mask(expression: Filter, column: Callable[[str], CodedColumn], rows: int) -> Mask:
    """True where an item passes, shape ``(rows,)``.

    Args:
        expression: the filter.
        column: a column's coded form by its name; raises :class:`UsageError` for a name that is none.
        rows: number of items.

    Raises:
        UsageError: no such column, or a value of a type that the column does not hold.
    """
    if isinstance(expression, AllOf | AnyOf):
        masks = [filter_mask(part, column, rows) for part in expression.parts]
        joined: Mask = (np.logical_and if isinstance(expression, AllOf) else np.logical_or).reduce(masks)
        return joined
    if isinstance(expression, Not):
        return ~filter_mask(expression.part, column, rows)
    coded = column(expression.column)
    if isinstance(expression, Missing):
        return ~coded.present
    if isinstance(expression, IsIn):
        return _is_in(coded, expression)
    return _compare(coded, expression)


def _compare(coded: CodedColumn, test: Compare) -> Mask:
    _check(coded, test.column, test.value)
    if coded.kind != "text":
        return coded.present & _COMPARE[test.operator](coded.codes, test.value)
    value = str(test.value)
    low, high = bisect_left(coded.values, value), bisect_right(coded.values, value)
    codes = coded.codes
    if test.operator in {"eq", "ne"}:
        equal: Mask = codes == low if low < high else np.zeros(len(codes), dtype=bool)
        return equal if test.operator == "eq" else coded.present & ~equal
    if test.operator in {"lt", "le"}:
        return coded.present & (codes < (low if test.operator == "lt" else high))
    return coded.present & (codes >= (high if test.operator == "gt" else low))


def _is_in(coded: CodedColumn, test: IsIn) -> Mask:
    for value in test.values:
        _check(coded, test.column, value)
    if coded.kind != "text":
        return coded.present & np.isin(coded.codes, list(test.values))
    wanted = []
    for value in test.values:
        at = bisect_left(coded.values, str(value))
        if at < len(coded.values) and coded.values[at] == value:
            wanted.append(at)
    return np.isin(coded.codes, wanted)


def _check(coded: CodedColumn, column: str, value: Value) -> None:
    kind = "boolean" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text"
    held = "number" if coded.kind == "integer" else coded.kind
    if kind != held:
        raise UsageError(
            f"the column {column!r} holds values of type {coded.kind}, not {value!r:.80}",
            remedy={"text": "put the value in quotes", "number": "give a number"}.get(held, "true or false"),
        )
