"""Filters on metadata: a small typed expression, and its JSON form.

========================  ==========================================  =================================
text                      JSON                                        leaves items whose
========================  ==========================================  =================================
``category = "Toys"``     ``{"column": "category", "eq": "Toys"}``    value is this
``price < 20``            ``{"column": "price", "lt": 20}``           value is below (``le gt ge`` too)
``5 to 20 of price``      ``{"column": "price", "ge": 5, "lt": 20}``  value is in the range
``size in ("S", "M")``    ``{"column": "size", "in": ["S", "M"]}``    value is one of these
``price is missing``      ``{"column": "price", "missing": true}``    value is not there
``a = 1 and b = 2``       ``{"and": [..., ...]}``                     every part holds
``a = 1 or b = 2``        ``{"or": [..., ...]}``                      some part holds
``not a = 1``             ``{"not": {...}}``                          part does not hold
========================  ==========================================  =================================

(The range in text form is ``price >= 5 and price < 20``.) An item without a value in a column fails every
comparison on it; ``not`` is the plain complement, so ``not price < 20`` also leaves the items without a
price. Texts are compared by code points, so ISO dates have their order. The text form is in
:mod:`leanmatch.index.filters.text`.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from leanmatch.errors import UsageError
from leanmatch.index.storage.columns import Value

OPERATORS = {"eq": "=", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
"""JSON name to the sign of the text form."""

MAX_DEPTH = 32
MAX_PARTS = 1_000
MAX_VALUES = 10_000
MAX_CHARACTERS = 200_000
"""A filter has at most so many levels, parts, values in its ``in`` lists, and characters in all its texts."""


_FLOAT_BITS = 1023
"""Integers of more bits may lie beyond float64, which ends below 2 ** 1024."""

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 60
_repr.maxlist = _repr.maxdict = 3
_repr.maxlevel = 3


@dataclass(frozen=True)
class Compare:
    """``column operator value``; the operator is a key of :data:`OPERATORS`."""

    column: str
    operator: str
    value: Value


@dataclass(frozen=True)
class IsIn:
    """The column's value is one of ``values``."""

    column: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Missing:
    """The item has no value in the column."""

    column: str


@dataclass(frozen=True)
class AllOf:
    """Every part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class AnyOf:
    """Some part holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Not:
    """The part does not hold."""

    part: Filter


Filter: TypeAlias = Compare | IsIn | Missing | AllOf | AnyOf | Not


def filter_from_json(value: Any) -> Filter:
    """Read the JSON form.

    Raises:
        UsageError: it is none, or it is too large or too deep.

    >>> filter_from_json({"column": "price", "ge": 5, "lt": 20}) == AllOf(
    ...     (Compare("price", "ge", 5), Compare("price", "lt", 20)))
    True
    """
    return _from_json(value, Budget(), 0)


def filter_to_json(expression: Filter) -> dict[str, Any]:
    """The JSON form; :func:`filter_from_json` reads it back to an equal filter."""
    if isinstance(expression, Compare):
        return {"column": expression.column, expression.operator: expression.value}
    if isinstance(expression, IsIn):
        return {"column": expression.column, "in": list(expression.values)}
    if isinstance(expression, Missing):
        return {"column": expression.column, "missing": True}
    if isinstance(expression, Not):
        return {"not": filter_to_json(expression.part)}
    name = "and" if isinstance(expression, AllOf) else "or"
    return {name: [filter_to_json(part) for part in expression.parts]}


class Budget:
    """What a filter has used of the limits while it is read."""

    def __init__(self) -> None:
        self._parts = self._values = self._characters = 0

    def take_part(self, depth: int) -> None:
        """Take note of a part at that depth.

        Raises:
            UsageError: too many, or too deep.
        """
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise UsageError(f"the filter has more than {MAX_PARTS:,} parts", remedy="use in: [...]")
        if depth > MAX_DEPTH:
            raise UsageError(f"the filter is more than {MAX_DEPTH} levels deep", remedy="flatten it")

    def take_values(self, count: int) -> None:
        """Take note of values of an ``in`` list.

        Raises:
            UsageError: too many in the whole filter.
        """
        self._values += count
        if self._values > MAX_VALUES:
            raise UsageError(
                f"the filter's 'in' lists have more than {MAX_VALUES:,} values",
                remedy="give fewer, or filter by a column that groups them",
            )

    def take_text(self, text: str) -> str:
        """Take note of a column's name or a text value, and give it back.

        Raises:
            UsageError: too many characters in the whole filter.
        """
        self._characters += len(text)
        if self._characters > MAX_CHARACTERS:
            raise UsageError(
                f"the filter's names and texts have more than {MAX_CHARACTERS:,} characters",
                remedy="give fewer values, or filter by a column that groups them",
            )
        return text


def _from_json(value: Any, budget: Budget, depth: int) -> Filter:
    budget.take_part(depth)
    if not isinstance(value, Mapping) or not value:
        raise _not_a_filter(value)
    if len(value) == 1:
        (name, inner), *_ = value.items()
        if name in {"and", "or"}:
            if not isinstance(inner, list) or not inner:
                raise UsageError(
                    f"{name!r} needs a list of filters, found {shortened(inner)}", remedy="[...]"
                )
            parts = tuple(_from_json(part, budget, depth + 1) for part in inner)
            return AllOf(parts) if name == "and" else AnyOf(parts)
        if name == "not":
            return Not(_from_json(inner, budget, depth + 1))
    column = value.get("column")
    if not isinstance(column, str) or len(value) < 2:
        raise _not_a_filter(value)
    budget.take_text(column)
    tests = [_test(column, name, inner, budget) for name, inner in value.items() if name != "column"]
    return tests[0] if len(tests) == 1 else AllOf(tuple(tests))


def _test(column: str, name: str, value: Any, budget: Budget) -> Filter:
    if name in OPERATORS:
        return Compare(column, name, checked_value(value, budget))
    if name == "in":
        if not isinstance(value, list):
            raise UsageError(
                f"'in' needs a list, found {shortened(value)}", remedy='{"column": ..., "in": [...]}'
            )
        budget.take_values(len(value))
        return IsIn(column, tuple(checked_value(element, budget) for element in value))
    if name == "missing" and isinstance(value, bool):
        return Missing(column) if value else Not(Missing(column))
    raise UsageError(
        f"there is no test {shortened(name)} with {shortened(value)}",
        remedy=f"one of: {', '.join([*OPERATORS, 'in', 'missing'])}",
    )


def checked_value(value: Any, budget: Budget) -> Value:
    """The value, if it is one that columns hold.

    Raises:
        UsageError: it is not: a number that is not finite or beyond float64, a list, null, ...
    """
    if isinstance(value, str):
        return budget.take_text(value)
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if value.bit_length() > _FLOAT_BITS:
            raise beyond_float64(f"an integer of {value.bit_length():,} bits")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise beyond_float64(repr(value))
        return value
    raise UsageError(
        f"a filter compares with text, numbers and booleans, found {shortened(value)}",
        remedy='for items without a value use {"column": ..., "missing": true}',
    )


def beyond_float64(number: str) -> UsageError:
    """The error about a number that no column can hold."""
    return UsageError(
        f"a filter compares with finite numbers, found {number}",
        remedy="give a number between -1.7e308 and 1.7e308",
    )


def shortened(value: Any) -> str:
    """The value's repr in at most 80 characters or so, at a cost that does not grow with the value."""
    return _repr.repr(value)


def _not_a_filter(value: Any) -> UsageError:
    return UsageError(
        f"this is no filter: {shortened(value)}",
        remedy='{"column": NAME, "eq": VALUE}, or {"and": [...]}, {"or": [...]}, {"not": {...}}',
    )
