"""The item table: what is searched among."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import pyarrow as pa

from leanmatch.data.fingerprints import table_fingerprint
from leanmatch.data.problems import SkippedRow
from leanmatch.errors import DataError


class ItemTable:
    """Items with an identifier, a text and whatever else is known about them; immutable, Arrow underneath.

    Build it with :meth:`from_columns` or :func:`leanmatch.data.read_items`.

    >>> items = ItemTable.from_columns(["7", "8"], ["usb dock", "hdmi cable"], {"price": ["90", None]})
    >>> len(items), items.texts[1], items.metadata(0)
    (2, 'hdmi cable', {'price': '90'})
    """

    def __init__(
        self, table: pa.Table, metadata: pa.Table, *, source: str = "", skipped: tuple[SkippedRow, ...] = ()
    ) -> None:
        """Wrap checked columns: ``table`` has ``id`` and ``text``, ``metadata`` the others."""
        self._table, self._metadata, self.source, self.skipped = table, metadata, source, skipped

    @classmethod
    def from_columns(
        cls,
        ids: Sequence[str],
        texts: Sequence[str],
        metadata: Mapping[str, Sequence[Any]] | None = None,
        *,
        source: str = "",
        rows: Sequence[int] | None = None,
        skipped: tuple[SkippedRow, ...] = (),
    ) -> ItemTable:
        """Check and take items.

        Args:
            ids: one identifier an item, no two the same.
            texts: one text an item, none blank.
            metadata: further columns.
            source: where they come from.
            rows: the line of each in its source, for messages; 1, 2, ... where it is not given.
            skipped: rows that were left out while reading.

        Raises:
            DataError: columns of different lengths, an identifier that comes twice (with both rows), a text
                that is missing or blank.
        """
        metadata = dict(metadata or {})
        lengths = {
            "id": len(ids),
            "text": len(texts),
            **{name: len(value) for name, value in metadata.items()},
        }
        if len(set(lengths.values())) > 1:
            raise DataError(
                f"the columns differ in length: {lengths}", remedy="give every column a value an item"
            )
        rows = rows if rows is not None else range(1, len(ids) + 1)
        seen: dict[str, int] = {}
        for i, name in enumerate(ids):
            if name in seen:
                raise DataError(
                    f"the identifier stands on rows {seen[name]} and {rows[i]}",
                    path=source or None,
                    line=rows[i],
                    column="id",
                    value=name,
                    remedy="give each item its own identifier, or choose another column (id_column)",
                )
            seen[name] = rows[i]
            if not isinstance(texts[i], str) or not texts[i].strip():
                raise DataError(
                    "the text is missing or blank",
                    path=source or None,
                    line=rows[i],
                    column="text",
                    value=texts[i],
                    remedy="give each item a text",
                )
        table = pa.table({"id": pa.array(ids, pa.large_string()), "text": pa.array(texts, pa.large_string())})
        others = pa.table({name: pa.array(values) for name, values in metadata.items()})
        return cls(table, others, source=source, skipped=skipped)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        return f"ItemTable({len(self):,} items; source={self.source!r})"

    @cached_property
    def ids(self) -> list[str]:
        """The identifiers; kept after the first use, so do not change the list."""
        return list(self._table.column("id").to_pylist())

    @cached_property
    def texts(self) -> list[str]:
        """The texts; kept likewise."""
        return list(self._table.column("text").to_pylist())

    @property
    def metadata_columns(self) -> tuple[str, ...]:
        """The names of the further columns."""
        return tuple(self._metadata.column_names)

    def metadata(self, i: int) -> dict[str, Any]:
        """What else is known about item ``i``, without missing values.

        Raises:
            DataError: there is no such item.
        """
        if not 0 <= i < len(self):
            raise DataError(f"item {i} of a table of {len(self)} items", remedy=f"0 to {len(self) - 1}")
        row = {name: self._metadata.column(name)[i].as_py() for name in self._metadata.column_names}
        return {name: value for name, value in row.items() if value is not None}

    def metadata_values(self, name: str) -> list[Any]:
        """All values of one further column, None where there is none."""
        return list(self._metadata.column(name).to_pylist())

    def fingerprint(self) -> str:
        """SHA-256 over identifiers, texts and their order."""
        return table_fingerprint(self._table)
