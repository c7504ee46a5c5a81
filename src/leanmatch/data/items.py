"""The item table: what is searched among."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leanmatch.data.problems import SkippedRow
from leanmatch.errors import DataError


class ItemTable:
    """Items with an identifier, a text and whatever else is known about them; immutable.

    Build it with :meth:`from_columns` or :func:`leanmatch.data.read_items`.

    >>> items = ItemTable.from_columns(["7", "8"], ["usb dock", "hdmi cable"], {"price": ["90", None]})
    >>> len(items), items.texts[1], items.metadata(0)
    (2, 'hdmi cable', {'price': '90'})
    """

    def __init__(
        self,
        ids: list[str],
        texts: list[str],
        metadata: dict[str, list[Any]],
        *,
        source: str = "",
        skipped: tuple[SkippedRow, ...] = (),
        id_column: str | None = None,
        text_columns: tuple[str, ...] = (),
    ) -> None:
        """Wrap checked columns; do not change the lists."""
        self.ids, self.texts, self._metadata = ids, texts, metadata
        self.source, self.skipped = source, skipped
        self.id_column, self.text_columns = id_column, text_columns

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
        id_column: str | None = None,
        text_columns: tuple[str, ...] = (),
    ) -> ItemTable:
        """Check and take items.

        Args:
            ids: one identifier an item, no two the same.
            texts: one text an item, none blank.
            metadata: further columns.
            source: where they come from.
            rows: the line of each in its source, for messages; 1, 2, ... where it is not given.
            skipped: rows that were left out while reading.
            id_column: the file's column that the identifiers came from, None where rows were numbered.
            text_columns: the file's columns that made the texts.

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
        columns = {name: list(values) for name, values in metadata.items()}
        return cls(
            list(ids),
            list(texts),
            columns,
            source=source,
            skipped=skipped,
            id_column=id_column,
            text_columns=text_columns,
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"ItemTable({len(self):,} items; source={self.source!r})"

    @property
    def metadata_columns(self) -> tuple[str, ...]:
        """The names of the further columns."""
        return tuple(self._metadata)

    def metadata(self, i: int) -> dict[str, Any]:
        """What else is known about item ``i``, without missing values.

        Raises:
            DataError: there is no such item.
        """
        if not 0 <= i < len(self):
            raise DataError(f"item {i} of a table of {len(self)} items", remedy=f"0 to {len(self) - 1}")
        return {name: values[i] for name, values in self._metadata.items() if values[i] is not None}

    def metadata_values(self, name: str) -> list[Any]:
        """All values of one further column, None where there is none."""
        return list(self._metadata[name])
