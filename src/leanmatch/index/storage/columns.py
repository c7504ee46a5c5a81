"""Metadata columns: their types, how values come to them, and the coded form that filters read.

A column holds ``text``, ``integer``, ``number`` (float64) or ``boolean`` values, or nothing for an item.
Files carry text only, so the type of a column that comes from a file is inferred from all its values:
``01234`` stays text (it would not come back as it was), ``12`` is an integer, ``1.5`` a number, ``true`` a
boolean.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import DataError
from leanmatch.index.storage.table import Column, PlainColumn, TextColumn

TYPES = ("text", "integer", "number", "boolean")
Value = str | int | float | bool

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}


def infer_type(values: Iterable[Any]) -> str:
    """The narrowest of :data:`TYPES` that holds every value; ``text`` where there is none.

    >>> infer_type(["1", None, "25"]), infer_type([1, 2.5]), infer_type(["01"]), infer_type(["true"])
    ('integer', 'number', 'text', 'boolean')
    """
    kinds = {_kind(value) for value in values if value is not None}
    if not kinds or "text" in kinds:
        return "text"
    if kinds == {"boolean"}:
        return "boolean"
    return "text" if "boolean" in kinds else "number" if "number" in kinds else "integer"


def widened(old: str, new: str) -> str | None:
    """The type that holds values of both, None where a column cannot turn into it without rewriting texts."""
    if old == new:
        return old
    return "number" if {old, new} == {"integer", "number"} else None


def column_of(name: str, values: Sequence[Any], kind: str) -> Column:
    """Values as a column of that type.

    Raises:
        DataError: a value that the type has no room for.
    """
    found = [converted(name, row, value, kind) for row, value in enumerate(values)]
    return TextColumn.of(found) if kind == "text" else PlainColumn.of(found, kind)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, float):
        return "number" if math.isfinite(value) else "text"
    text = str(value)
    if text in _BOOLEANS:
        return "boolean"
    if _INTEGER.fullmatch(text):
        return "integer"
    digits = text.lstrip("-").isdigit()  # more of them than int64 or float64 can hold
    number = not digits and _NUMBER.fullmatch(text) and math.isfinite(float(text))
    return "number" if number else "text"


def converted(name: str, row: int, value: Any, kind: str) -> Any:
    """A value as a column of that type holds it.

    Raises:
        DataError: the type has no room for it; ``row`` counts from 0.
    """
    if value is None:
        return None
    if kind == "text":
        return value if isinstance(value, str) else _as_text(value)
    found = _kind(value)
    if kind == "boolean" and found == "boolean":
        return value if isinstance(value, bool) else _BOOLEANS[value]
    if kind == "integer" and found == "integer":
        return int(value)
    if kind == "number" and found in {"integer", "number"}:
        return float(value)
    raise DataError(
        f"the column holds values of type {kind} in this catalogue",
        line=row + 1,
        column=name,
        value=value,
        remedy="correct the value, or index all items anew so that the column becomes text",
    )


def _as_text(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class CodedColumn:
    """A column as filters read it.

    Attributes:
        kind: one of :data:`TYPES`.
        codes: text: int32 rank of the value among ``values``, -1 where there is none; integer: int64; number:
            float64; boolean: int8.
        present: false where an item has no value.
        values: text: the distinct values in the order of their code points; else empty.
    """

    kind: str
    codes: NDArray[Any]
    present: NDArray[np.bool_]
    values: tuple[str, ...] = ()

    @classmethod
    def build(cls, column: Column, kind: str) -> CodedColumn:
        """Code a column of that type."""
        if isinstance(column, PlainColumn):
            return cls(
                kind, column.values.astype(np.int8) if kind == "boolean" else column.values, column.present
            )
        texts = column.tolist()
        values = sorted({text for text in texts if text is not None})
        rank: dict[str | None, int] = {text: at for at, text in enumerate(values)}
        rank[None] = -1
        codes = np.fromiter((rank[text] for text in texts), np.int32, len(texts))
        return cls(kind, codes, column.present, tuple(values))
