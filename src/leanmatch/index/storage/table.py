"""Items as they are stored: columns of numpy arrays, texts as one run of UTF-8 with offsets.

Nothing here needs more than numpy, and a million texts are three arrays, not a million objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.readers.plain_values import as_text
from leanmatch.errors import DataError, FormatError

KEY_BYTES = 16
"""Length of :func:`leanmatch.index.storage.staging.text_key`."""

DTYPES: dict[str, Any] = {"integer": np.int64, "number": np.float64, "boolean": np.bool_}
"""What holds the values of a column that is not ``text``."""

INTEGERS = range(-(2**63), 2**63)
"""The integers that a column holds as such."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class TextColumn:
    """Texts, or None where ``present`` is false; text ``i`` is ``data[offsets[i]:offsets[i + 1]]``."""

    offsets: NDArray[np.int64]
    data: NDArray[np.uint8]
    present: Mask

    @classmethod
    def of(cls, values: Sequence[str | None]) -> TextColumn:
        """Take texts.

        Raises:
            DataError: half of a surrogate pair, which is no character.
        """
        try:
            parts = [b"" if value is None else value.encode() for value in values]
        except UnicodeEncodeError as error:
            raise DataError(
                "a text has half of a surrogate pair", value=error.object, remedy="give whole characters"
            ) from error
        offsets = np.zeros(len(parts) + 1, np.int64)
        np.cumsum([len(part) for part in parts], out=offsets[1:])
        present = np.array([value is not None for value in values], np.bool_)
        return cls(offsets, np.frombuffer(b"".join(parts), np.uint8), present)

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, row: int) -> str | None:
        if not self.present[row]:
            return None
        return self.data[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()

    def tolist(self) -> list[str | None]:
        """All values."""
        data, offsets = self.data.tobytes(), self.offsets.tolist()
        return [
            data[start:end].decode() if there else None
            for start, end, there in zip(offsets, offsets[1:], self.present.tolist(), strict=False)
        ]

    def where(self, mask: Mask) -> TextColumn:
        """The values at the rows where ``mask`` is true."""
        lengths = np.diff(self.offsets)
        offsets = np.zeros(int(mask.sum()) + 1, np.int64)
        np.cumsum(lengths[mask], out=offsets[1:])
        return TextColumn(offsets, self.data[np.repeat(mask, lengths)], self.present[mask])

    @classmethod
    def joined(cls, parts: Sequence[TextColumn]) -> TextColumn:
        """The values of one or more columns after one another."""
        offsets = np.zeros(sum(map(len, parts)) + 1, np.int64)
        np.cumsum(np.concatenate([np.diff(part.offsets) for part in parts]), out=offsets[1:])
        data = np.concatenate([part.data for part in parts])
        return cls(offsets, data, np.concatenate([part.present for part in parts]))

    def as_kind(self, kind: str) -> TextColumn:
        """Itself: texts are not turned into anything else.

        Raises:
            FormatError: another type is asked for.
        """
        if kind != "text":
            raise FormatError(
                f"a column of texts is said to be of type {kind}", remedy="index the items anew"
            )
        return self


@dataclass(frozen=True)
class PlainColumn:
    """Integers or booleans; where ``present`` is false, ``values`` holds 0 and there is none."""

    values: NDArray[Any]
    present: Mask

    @classmethod
    def of(cls, values: Sequence[Any], kind: str) -> PlainColumn:
        """Take values of a type of :data:`DTYPES`, or None."""
        present = np.array([value is not None for value in values], np.bool_)
        return cls(np.array([value or 0 for value in values], DTYPES[kind]), present)

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, row: int) -> Any:
        return self.values[row].item() if self.present[row] else None

    def tolist(self) -> list[Any]:
        """All values."""
        return [
            value if there else None
            for value, there in zip(self.values.tolist(), self.present.tolist(), strict=True)
        ]

    def where(self, mask: Mask) -> PlainColumn:
        """The values at the rows where ``mask`` is true."""
        return PlainColumn(self.values[mask], self.present[mask])

    @classmethod
    def joined(cls, parts: Sequence[PlainColumn]) -> PlainColumn:
        """The values of one or more columns of one type after one another."""
        values = np.concatenate([part.values for part in parts])
        return cls(values, np.concatenate([part.present for part in parts]))

    def as_kind(self, kind: str) -> Column:
        """The same values in a type that holds them all.

        Raises:
            FormatError: the type does not.
        """
        if self.values.dtype == DTYPES.get(kind):
            return self
        if kind == "text":
            return TextColumn.of([as_text(value) for value in self.tolist()])
        if kind == "number" and self.values.dtype == np.int64:
            return NumberColumn(self.values.astype(np.float64), self.present, self.values, self.present)
        raise FormatError(
            f"a column of {self.values.dtype} is said to be of type {kind}", remedy="index the items anew"
        )


@dataclass(frozen=True)
class NumberColumn:
    """Numbers, floats and exact integers beside one another.

    Attributes:
        values: the numbers in float64; 0 where there is none.
        present: false where an item has no value.
        integers: the values that are integers, where ``whole``; None where all are floats.
        whole: true where the value is an integer.
    """

    values: NDArray[np.float64]
    present: Mask
    integers: NDArray[np.int64] | None = None
    whole: Mask | None = None

    @classmethod
    def of(cls, values: Sequence[int | float | None]) -> NumberColumn:
        """Take integers of 64 bits, floats, or None."""
        present = np.array([value is not None for value in values], np.bool_)
        whole = np.array([isinstance(value, int) for value in values], np.bool_)
        floats = np.array([value or 0 for value in values], np.float64)
        if not whole.any():
            return cls(floats, present)
        integers = np.array([value if isinstance(value, int) else 0 for value in values], np.int64)
        return cls(floats, present, integers, whole)

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, row: int) -> int | float | None:
        if not self.present[row]:
            return None
        if self.integers is not None and self.whole is not None and self.whole[row]:
            return int(self.integers[row])
        return float(self.values[row])

    def tolist(self) -> list[int | float | None]:
        """All values."""
        return [self[row] for row in range(len(self))]

    def where(self, mask: Mask) -> NumberColumn:
        """The values at the rows where ``mask`` is true."""
        if self.integers is None or self.whole is None:
            return NumberColumn(self.values[mask], self.present[mask])
        return NumberColumn(self.values[mask], self.present[mask], self.integers[mask], self.whole[mask])

    @classmethod
    def joined(cls, parts: Sequence[NumberColumn]) -> NumberColumn:
        """The values of one or more columns after one another."""
        values = np.concatenate([part.values for part in parts])
        present = np.concatenate([part.present for part in parts])
        if all(part.integers is None for part in parts):
            return cls(values, present)
        integers, whole = np.zeros(len(values), np.int64), np.zeros(len(values), np.bool_)
        start = 0
        for part in parts:
            if part.integers is not None and part.whole is not None:
                integers[start : start + len(part)] = part.integers
                whole[start : start + len(part)] = part.whole
            start += len(part)
        return cls(values, present, integers, whole)

    def as_kind(self, kind: str) -> Column:
        """The same values in a type that holds them all.

        Raises:
            FormatError: the type does not.
        """
        if kind == "number":
            return self
        if kind == "text":
            return TextColumn.of([as_text(value) for value in self.tolist()])
        raise FormatError(f"a column of numbers is said to be of type {kind}", remedy="index the items anew")


Column = TextColumn | PlainColumn | NumberColumn


def empty_column(kind: str, rows: int) -> Column:
    """A column without any value."""
    none = np.zeros(rows, np.bool_)
    if kind == "text":
        return TextColumn(np.zeros(rows + 1, np.int64), np.zeros(0, np.uint8), none)
    if kind == "number":
        return NumberColumn(np.zeros(rows), none)
    return PlainColumn(np.zeros(rows, DTYPES[kind]), none)


@dataclass(frozen=True)
class Items:
    """Rows of items: identifiers, texts, each text's hash (uint8 ``(rows, 16)``) and metadata columns."""

    ids: TextColumn
    texts: TextColumn
    keys: NDArray[np.uint8]
    columns: Mapping[str, Column]

    @classmethod
    def of(
        cls,
        ids: Sequence[str],
        texts: Sequence[str],
        keys: Sequence[bytes],
        columns: Mapping[str, Column],
    ) -> Items:
        """Take rows."""
        joined = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
        return cls(TextColumn.of(ids), TextColumn.of(texts), joined, columns)

    def __len__(self) -> int:
        return len(self.ids)

    def key_list(self) -> list[bytes]:
        """The hashes as bytes."""
        return [key.tobytes() for key in self.keys]

    def metadata(self, row: int) -> dict[str, Any]:
        """The metadata of a row, without missing values."""
        cells = ((name, column[row]) for name, column in self.columns.items())
        return {name: value for name, value in cells if value is not None}

    def where(self, mask: Mask) -> Items:
        """The rows where ``mask`` is true."""
        if mask.all():
            return self
        columns = {name: column.where(mask) for name, column in self.columns.items()}
        return Items(self.ids.where(mask), self.texts.where(mask), self.keys[mask], columns)

    def with_columns(self, kinds: Mapping[str, str]) -> Items:
        """The rows with exactly these metadata columns: absent ones empty, integers widened where needed."""
        columns = {
            name: self.columns[name].as_kind(kind) if name in self.columns else empty_column(kind, len(self))
            for name, kind in kinds.items()
        }
        return Items(self.ids, self.texts, self.keys, columns)


def joined_items(parts: Sequence[Items], kinds: Mapping[str, str]) -> Items:
    """Rows of several parts after one another, with these columns."""
    if not parts:
        return Items.of([], [], [], {name: empty_column(kind, 0) for name, kind in kinds.items()})
    alike = [part.with_columns(kinds) for part in parts]
    if len(alike) == 1:
        return alike[0]
    columns: dict[str, Any] = {name: [part.columns[name] for part in alike] for name in kinds}
    return Items(
        TextColumn.joined([part.ids for part in alike]),
        TextColumn.joined([part.texts for part in alike]),
        np.concatenate([part.keys for part in alike]),
        {name: type(of_parts[0]).joined(of_parts) for name, of_parts in columns.items()},
    )
