"""Metadata columns: their types, how values come to them, and the coded form that filters read.

A column holds ``text``, ``integer`` (64 bits), ``number`` or ``boolean`` values, or nothing for an item. No
digit is lost: a ``number`` column keeps its integers as integers beside its floats (float64), and text stays
text. How texts of CSV become numbers: :mod:`leanmatch.data.readers.plain_values`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.readers.plain_values import as_text, canonical_number
from leanmatch.errors import DataError
from leanmatch.index.storage.table import INTEGERS, Column, NumberColumn, PlainColumn, TextColumn

TYPES = ("text", "integer", "number", "boolean")
Value = str | int | float | bool

_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,63})(\.[0-9]{1,64})?([eE][-+]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "false": False, "True": True, "False": False}


def infer_type(values: Iterable[Any]) -> str:
    """The narrowest of :data:`TYPES` that holds every value as it is; ``text`` where there is none.

    >>> infer_type([1, None, 25]), infer_type([1, 2.5]), infer_type(["1"]), infer_type([True])
    ('integer', 'number', 'text', 'boolean')
    """
    return joined_type({_kind(value) for value in values if value is not None})


def joined_type(kinds: Set[str]) -> str:
    """The narrowest type that holds every value of these types; ``text`` where there is none.

    >>> joined_type({"integer", "number"}), joined_type({"boolean", "integer"})
    ('number', 'text')
    """
    if kinds and kinds <= {"integer", "number"}:
        return "number" if "number" in kinds else "integer"
    return next(iter(kinds)) if len(kinds) == 1 else "text"


def widened(old: str, values: Sequence[Any]) -> str:
    """The type of a column of type ``old`` that takes these values, too, without losing a digit.

    Integers become numbers where a float comes. Numbers become text where a text comes that reads as a
    number and is not written as that is printed (``1.10``); filters compare such texts as numbers. Values
    that fit neither leave the type as it is: :func:`converted` refuses them.
    """
    if old not in {"integer", "number"}:
        return old
    texts = [value for value in values if isinstance(value, str)]
    if texts and all(reads_as_number(text) for text in texts):
        numbers = [canonical_number(text) for text in texts]
        if None in numbers:
            return "text"
        values = [*(value for value in values if not isinstance(value, str)), *numbers]
    return "number" if infer_type(values) == "number" else old


def reads_as_number(text: str) -> bool:
    """Is a text a decimal number without leading zeros?"""
    return _NUMBER.fullmatch(text) is not None


def column_of(name: str, values: Sequence[Any], kind: str, first: int = 0) -> Column:
    """Values as a column of that type; ``first`` is the number of the first row, for messages.

    Raises:
        DataError: a value that the type has no room for.
    """
    plain = [converted(name, row, value, kind) for row, value in enumerate(values, start=first)]
    if kind == "text":
        return TextColumn.of(plain)
    return NumberColumn.of(plain) if kind == "number" else PlainColumn.of(plain, kind)


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int):
        return "integer" if value in INTEGERS else "text"
    if isinstance(value, float):
        return "number" if math.isfinite(value) else "text"
    return "text"


def converted(name: str, row: int, value: Any, kind: str) -> Any:
    """A value as a column of that type holds it.

    Raises:
        DataError: the type has no room for it; ``row`` counts from 0.
    """
    if value is None:
        return None
    if kind == "text":
        return as_text(value)
    meant = value
    if isinstance(value, str):
        meant = _BOOLEANS.get(value) if kind == "boolean" else canonical_number(value)
    actual_kind = _kind(meant)
    if actual_kind == kind or (kind == "number" and actual_kind == "integer"):
        return meant
    raise DataError(
        f"the column holds values of type {kind} in this catalogue",
        line=row + 1,
        column=name,
        value=value,
        remedy="correct the value, or index all items anew so that the column becomes text",
    )


@dataclass(frozen=True)
class CodedColumn:
    """A column as filters read it.

    Attributes:
        kind: one of :data:`TYPES`; ``decimal`` for texts in their meaning as numbers.
        codes: text and decimal: int32 rank of the value among ``values``, -1 where there is none; integer:
            int64; number: float64; boolean: int8.
        present: false where an item has no value.
        values: text and decimal: the distinct values in their order (that of code points); else empty.
        integers: number: the integers among the values, as a column; None where there are none.
    """

    kind: str
    codes: NDArray[Any]
    present: NDArray[np.bool_]
    values: tuple[Any, ...] = ()
    integers: CodedColumn | None = None

    @cached_property
    def numeric(self) -> CodedColumn | None:
        """A text column in its meaning as numbers; None where some value does not read as a number."""
        if self.kind != "text" or not self.values or not all(map(reads_as_number, self.values)):
            return None
        numbers = [Decimal(text) for text in self.values]
        distinct = sorted(set(numbers))
        rank = {number: at for at, number in enumerate(distinct)}
        ranks = np.array([*(rank[number] for number in numbers), -1], np.int32)  # code -1 takes the last
        return CodedColumn("decimal", ranks[self.codes], self.present, tuple(distinct))

    @property
    def floats(self) -> CodedColumn:
        """The values of a number column that are no integers, as a column."""
        if self.integers is None:
            return self
        return CodedColumn(self.kind, self.codes, self.present & ~self.integers.present)

    def ends(self) -> tuple[int | float, int | float]:
        """The least and the greatest number of a column that has numbers."""
        if self.kind == "decimal":
            return float(self.values[0]), float(self.values[-1])
        held = [part.codes[part.present] for part in (self.floats, self.integers) if part is not None]
        return (
            min(part.min().item() for part in held if len(part)),
            max(part.max().item() for part in held if len(part)),
        )

    @classmethod
    def build(cls, column: Column, kind: str) -> CodedColumn:
        """Code a column of that type."""
        if isinstance(column, NumberColumn):
            integers = None
            if column.integers is not None and column.whole is not None:
                integers = cls("integer", column.integers, column.whole)
            return cls(kind, column.values, column.present, (), integers)
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
