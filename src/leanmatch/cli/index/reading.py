"""Reading the files of ``leanmatch index``: items, changes of items, identifiers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leanmatch.cli.common import delimiter_for, say_item_columns, say_skipped, text_lines
from leanmatch.errors import DataError

if TYPE_CHECKING:
    from leanmatch.data import ItemTable, SkippedRow
    from leanmatch.index import Item, Manifest


@dataclass
class Reading:
    """How files are read: which columns, and what is done about bad rows; and how many were left out."""

    id_column: str | None
    text_columns: list[str] | None
    on_error: str
    delimiter: str | None = None
    skipped: int = 0
    partly: bool = False
    numbered: bool = False

    def of(self, manifest: Manifest) -> Reading:
        """Take the columns that the catalogue's own file had, where no option names others."""
        if manifest.source is not None:
            self.numbered = not (self.id_column or manifest.source.id)
            self.id_column = self.id_column or manifest.source.id or None
        self.partly = not self.text_columns
        self.text_columns = self.text_columns or list(manifest.text_columns or ()) or None
        return self

    def note(self, skipped: Sequence[SkippedRow]) -> None:
        """Count rows that were left out, and list them on stderr."""
        self.skipped += len(skipped)
        say_skipped(skipped)


def read_changed(file: Path, reading: Reading) -> list[Item]:
    from leanmatch.data.readers.item_changes import read_changes
    from leanmatch.index.changes import changes_of

    changes = read_changes(
        file,
        id_column=reading.id_column,
        text_columns=reading.text_columns,
        on_error=reading.on_error,  # type: ignore[arg-type]
        delimiter=delimiter_for(file, reading.delimiter),
    )
    reading.note(changes.skipped)
    return changes_of(changes)


def read_added(file: Path, reading: Reading) -> list[Item]:
    """Items to add: rows must have identifiers, as numbers of rows would replace items that are there."""
    from leanmatch.index import items_of

    table = read_table(file, reading)
    if reading.numbered and table.id_column is not None:
        raise DataError(
            f"the catalogue's items have row numbers for identifiers, those of this file are in "
            f"{table.id_column!r}: the same items would be there twice",
            path=file,
            remedy=f"make the catalogue anew with --id-column {table.id_column}; or, if these are other "
            "items, pass that to leanmatch index add, too",
        )
    if table.id_column is None:
        raise DataError(
            "there is no column of identifiers, and numbers of rows would replace other items",
            path=file,
            remedy="name it: --id-column",
        )
    return items_of(table)


def read_table(file: Path, reading: Reading) -> ItemTable:
    from leanmatch.data import read_items

    if file.is_dir():
        corpus = next(
            (file / name for name in ("corpus.jsonl", "corpus.jsonl.gz") if (file / name).is_file()), None
        )
        if corpus is None:
            raise DataError("the folder has no corpus.jsonl", path=file, remedy="name a file of items")
        file = corpus
    table = read_items(
        file,
        id_column=reading.id_column,
        text_columns=reading.text_columns,
        on_error=reading.on_error,  # type: ignore[arg-type]
        delimiter=delimiter_for(file, reading.delimiter),
        partly=reading.partly,
    )
    reading.note(table.skipped)
    say_item_columns(table, named=bool(reading.id_column and reading.text_columns))
    return table


def read_named(file: Path, reading: Reading) -> list[str]:
    """Identifiers: the lines of a .txt file, or the column of a table."""
    if file.suffix in {".txt", ""}:
        try:
            lines = text_lines(file.read_bytes())
        except UnicodeDecodeError as error:
            raise DataError(f"it is not UTF-8: {error}", path=file, remedy="convert it") from error
        ids = [line for line in lines if line.strip()]
    else:
        from leanmatch.data.readers.items import read_ids

        ids, skipped = read_ids(
            file,
            reading.id_column,
            on_error=reading.on_error,  # type: ignore[arg-type]
            delimiter=delimiter_for(file, reading.delimiter),
        )
        reading.note(skipped)
    if not ids:
        raise DataError("there are no identifiers", path=file, remedy="give one a line")
    return ids
