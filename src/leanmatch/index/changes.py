"""What a change to a catalogue is made of, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leanmatch.data import ItemTable
from leanmatch.data.readers.item_changes import ItemChanges
from leanmatch.errors import DataError
from leanmatch.types import JsonValue


@dataclass(frozen=True)
class Item:
    """One item as it comes in; metadata values are text, numbers, booleans, or None for none.

    A text of None stands only in changes of items that are there, and keeps the text.
    """

    id: str
    text: str | None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Change:
    """What an operation did, in items.

    Attributes:
        added, updated, unchanged, deleted: by what became of them.
        unknown: identifiers that were to be deleted and are not there.
        encoded: texts that went through the model; ``reused``: vectors that were there already.
        items: in the catalogue afterwards; ``generation``: its number.
        search: how it is searched, with the measured recall where that is approximate.
        hybrid: has it the terms that hybrid search needs?
        truncated: encoded texts that are longer than the model reads; ``tokens_cut_off``: of them.
    """

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    unknown: int = 0
    encoded: int = 0
    reused: int = 0
    items: int = 0
    generation: int = 0
    search: str = "exact"
    hybrid: bool = False
    truncated: int = 0
    tokens_cut_off: int = 0

    def to_json(self) -> JsonValue:
        """Plain values."""
        return dict(vars(self))


def items_of(table: ItemTable) -> list[Item]:
    """The rows of an item table."""
    columns = {name: table.metadata_values(name) for name in table.metadata_columns}
    return [
        Item(name, text, {column: values[row] for column, values in columns.items()})
        for row, (name, text) in enumerate(zip(table.ids, table.texts, strict=True))
    ]


def changes_of(changes: ItemChanges) -> list[Item]:
    """The rows of a file of changes."""
    return [Item(*row) for row in zip(changes.ids, changes.texts, changes.metadata, strict=True)]


def twice(name: str | None, row: int, later: int) -> DataError:
    """The error about an identifier that stands on two rows, counted from 1."""
    return DataError(
        f"the identifier stands on rows {row} and {later}",
        line=later,
        column="id",
        value=name,
        remedy="give each item once",
    )


def checked_items(items: Sequence[Item], *, patch: bool = False, first: int = 0) -> list[Item]:
    """Items that are sound: every identifier once, no blank text; with ``patch`` a text may be None.

    ``first`` is the number of items that came before these, for messages.

    Raises:
        DataError: they are not.
    """
    seen: dict[str, int] = {}
    for row, item in enumerate(items, start=first + 1):
        if not isinstance(item.id, str) or not item.id:
            raise DataError("the identifier is missing", line=row, column="id", remedy="give a text")
        if seen.setdefault(item.id, row) != row:
            raise twice(item.id, seen[item.id], row)
        if patch and item.text is None:
            continue
        if not isinstance(item.text, str) or not item.text.strip():
            raise DataError(
                "the text is missing or blank", line=row, column="text", value=item.text, remedy="give a text"
            )
    return list(items)
