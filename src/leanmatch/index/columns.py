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
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from leanmatch.errors import DataError

TYPES: dict[str, pa.DataType] = {
    "text": pa.large_string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
}
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


def column_array(name: str, values: Sequence[Any], kind: str) -> pa.Array:
    """Values as an Arrow array of a column's type.

    Raises:
        DataError: a value that the type has no room for.
    """
    return pa.array([_converted(name, row, value, kind) for row, value in enumerate(values)], TYPES[kind])


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


def _converted(name: str, row: int, value: Any, kind: str) -> Value | None:
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
    def build(cls, column: pa.ChunkedArray, kind: str) -> CodedColumn:
        """Code an Arrow column of the type ``TYPES[kind]``."""
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        if isinstance(array, pa.ChunkedArray):  # what combine_chunks gives for no chunks in some versions
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], TYPES[kind])
        present = pc.is_valid(array).to_numpy(zero_copy_only=False)
        if kind != "text":
            filler = {"integer": 0, "number": 0.0, "boolean": False}[kind]
            plain = pc.fill_null(array, filler).to_numpy(zero_copy_only=False)
            return cls(kind, plain.astype(np.int8) if kind == "boolean" else plain, present)
        coded = array.dictionary_encode()
        values = coded.dictionary.to_pylist()
        order = sorted(range(len(values)), key=values.__getitem__)
        rank = np.empty(len(values) + 1, dtype=np.int32)
        rank[order] = np.arange(len(values), dtype=np.int32)
        rank[-1] = -1
        codes = pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)
        return cls(kind, rank[codes], present, tuple(values[i] for i in order))
