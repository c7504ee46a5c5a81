"""Filters as SQL: the same items pass as in a catalogue, values that are missing included."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from leanmatch.index.filters.expression import OPERATORS, AllOf, AnyOf, Filter, IsIn, Missing, Not
from leanmatch.index.storage.table import INTEGERS
from leanmatch.stores.protocol import StoreInfo

TYPES = {"text": 'text COLLATE "C"', "integer": "bigint", "number": "numeric", "boolean": "boolean"}
"""Type of a metadata column to PostgreSQL's. Numbers are decimal, so that integers beyond float64 stay exact;
texts are ordered by code points."""


def column_names(info: StoreInfo) -> dict[str, str]:
    """The table's column of each metadata column: ``c0``, ``c1``, ... (names may be of any length)."""
    return {name: f"c{number}" for number, name in enumerate(info.columns)}


def condition(expression: Filter, info: StoreInfo) -> tuple[str, list[Any]]:
    """The condition in SQL, with ``%s`` for the parameters that come with it.

    A comparison with a missing value is NULL, which no item passes; below ``not`` it counts as false.

    Args:
        expression: a filter that :func:`leanmatch.stores.protocol.check_filter` let through.
        info: the store's columns.
    """
    if isinstance(expression, AllOf | AnyOf):
        parts = [condition(part, info) for part in expression.parts]
        word = " AND " if isinstance(expression, AllOf) else " OR "
        return f"({word.join(text for text, _ in parts)})", [value for _, values in parts for value in values]
    if isinstance(expression, Not):
        text, values = condition(expression.part, info)
        return f"(NOT COALESCE({text}, FALSE))", values
    column = column_names(info)[expression.column]
    if isinstance(expression, Missing):
        return f"({column} IS NULL)", []
    kind = info.columns[expression.column]
    if isinstance(expression, IsIn):
        texts = [value for value in expression.values if isinstance(value, str)]
        others = [value for value in expression.values if not isinstance(value, str)]
        parts = [(f"{column} = ANY(%s)", texts)] if texts else []
        if others:
            compared, values = _compared(column, kind, others)
            parts.append((f"{compared} = ANY(%s)", values))
        return f"({' OR '.join(text for text, _ in parts) or 'FALSE'})", [values for _, values in parts]
    sign = {"ne": "<>"}.get(expression.operator, OPERATORS[expression.operator])
    compared, values = _compared(column, kind, [expression.value])
    return f"({compared} {sign} %s)", values


def _compared(column: str, kind: str, values: list[Any]) -> tuple[str, list[Any]]:
    """The column and values as they are compared: exactly, whatever kind of number they are."""
    if isinstance(values[0], str | bool):
        return column, values
    if kind == "integer" and all(isinstance(value, int) and value in INTEGERS for value in values):
        return column, values
    numbers = [Decimal(repr(value)) for value in values]
    return (column if kind == "number" else f"{column}::numeric"), numbers
