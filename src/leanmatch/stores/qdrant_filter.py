"""Filters in Qdrant's form. Qdrant neither orders texts nor reads them as numbers; that is refused."""

from __future__ import annotations

from typing import Any

from qdrant_client import models

from leanmatch.errors import UsageError
from leanmatch.index.filters.expression import AllOf, AnyOf, Compare, Filter, IsIn, Missing, Not
from leanmatch.stores.protocol import StoreInfo

RANGES = {"lt": "lt", "le": "lte", "gt": "gt", "ge": "gte"}
EXACT_INTEGERS = 2**53
"""Qdrant compares numbers as float64, in which integers from this on are not exact."""


def payload_keys(info: StoreInfo) -> dict[str, str]:
    """The payload key of each metadata column: ``c0``, ``c1``, ... (names may hold dots and brackets)."""
    return {name: f"c{number}" for number, name in enumerate(info.columns)}


def qdrant_filter(expression: Filter, info: StoreInfo) -> Any:
    """The filter as ``qdrant_client.models.Filter``.

    Args:
        expression: a filter that :func:`leanmatch.stores.protocol.check_filter` let through.
        info: the store's columns.

    Raises:
        UsageError: texts are to be ordered, or compared with a number.
    """
    return models.Filter(must=[_condition(expression, info)])


def _condition(expression: Filter, info: StoreInfo) -> Any:
    if isinstance(expression, AllOf):
        return models.Filter(must=[_condition(part, info) for part in expression.parts])
    if isinstance(expression, AnyOf):
        return models.Filter(should=[_condition(part, info) for part in expression.parts])
    if isinstance(expression, Not):
        return models.Filter(must_not=[_condition(expression.part, info)])
    key = payload_keys(info)[expression.column]
    if isinstance(expression, Missing):
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    if isinstance(expression, IsIn):
        values = [_equal(key, value, expression.column, info) for value in expression.values]
        return models.Filter(should=values) if values else _nothing(key)
    return _compare(key, expression, info)


def _compare(key: str, test: Compare, info: StoreInfo) -> Any:
    if test.operator == "eq":
        return _equal(key, test.value, test.column, info)
    if test.operator == "ne":
        there = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
        return models.Filter(must_not=[there, _equal(key, test.value, test.column, info)])
    if isinstance(test.value, bool | str):
        return _ordered(key, test)
    _check_number(test.value, test.column, info)
    return models.FieldCondition(key=key, range=models.Range(**{RANGES[test.operator]: test.value}))


def _ordered(key: str, test: Compare) -> Any:
    """``<`` and the like of booleans, of which there are two; texts have no order in Qdrant."""
    if isinstance(test.value, str):
        raise UsageError(
            f"Qdrant cannot order texts, as {test.column[:80]!r} {test.operator} {test.value[:40]!r} asks",
            remedy="compare with = or in, or keep the column as numbers",
        )
    order = {
        "lt": lambda value: value < test.value,
        "le": lambda value: value <= test.value,
        "gt": lambda value: value > test.value,
        "ge": lambda value: value >= test.value,
    }
    passing = [value for value in (False, True) if order[test.operator](value)]
    matches: list[Any] = [
        models.FieldCondition(key=key, match=models.MatchValue(value=value)) for value in passing
    ]
    return models.Filter(should=matches) if matches else _nothing(key)


def _equal(key: str, value: Any, column: str, info: StoreInfo) -> Any:
    if isinstance(value, str | bool):
        return models.FieldCondition(key=key, match=models.MatchValue(value=value))
    _check_number(value, column, info)
    return models.FieldCondition(key=key, range=models.Range(gte=value, lte=value))


def _check_number(value: float, column: str, info: StoreInfo) -> None:
    if info.columns[column] == "text":
        raise UsageError(
            f"Qdrant cannot read the texts of {column[:80]!r} as numbers",
            remedy="put the value in quotes, or push the column as numbers",
        )
    if isinstance(value, int) and abs(value) >= EXACT_INTEGERS:
        raise UsageError(
            f"Qdrant compares numbers as float64, in which {value} is not exact",
            remedy="keep the column as text",
        )


def _nothing(key: str) -> Any:
    """What no item passes."""
    empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    return models.Filter(must=[empty], must_not=[empty])
