"""Reading item tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanmatch.data.columns import guess
from leanmatch.data.items import ItemTable
from leanmatch.data.problems import OnError, Problem, Problems, SkippedRow
from leanmatch.data.readers.batches import raw_batches
from leanmatch.data.readers.text_values import columns_as_texts
from leanmatch.errors import DataError

ID_COLUMNS = ("_id", "id", "item_id", "uid")
TEXT_COLUMNS = (("title", "text"), ("text",), ("title",), ("name",), ("item",), ("content",))
"""What is taken for the text where no column is named: the first choice whose columns are all there."""


def joined_text(title: object, text: object) -> str:
    """Title and text of a document as one text, with a space between, as BEIR joins them.

    >>> joined_text("Usb dock", ""), joined_text("Usb dock", "With two ports.")
    ('Usb dock', 'Usb dock With two ports.')
    """
    return " ".join(part.strip() for part in (title, text) if isinstance(part, str) and part.strip())


def read_items(
    path: str | Path,
    *,
    id_column: str | None = None,
    text_columns: Sequence[str] | None = None,
    on_error: OnError = "raise",
    delimiter: str | None = None,
) -> ItemTable:
    """Read items from CSV, TSV, JSONL (BEIR's corpus.jsonl too) or Parquet, each also .gz.

    Args:
        path: the file.
        id_column: the column of identifiers; the first of ``_id``, ``id``, ``item_id`` and ``uid`` where it
            is not given, row numbers (from 0) where there is none of them.
        text_columns: the columns that make the text, joined by a space; ``title`` and ``text`` where both are
            there, else the first of ``text``, ``title``, ``name``, ``item`` and ``content``.
        on_error: ``"raise"`` at a bad row, or ``"skip"`` it and list it in ``skipped``.
        delimiter: of CSV and TSV; that of a CSV file is found by itself where it is not given
            (:func:`leanmatch.data.readers.delimited.sniff_delimiter`).

    Raises:
        DataError: no such file, no text column, no items, a bad row, or an identifier that comes twice
            (always an error, with both rows).
    """
    path = Path(path)
    problems = Problems(path, on_error)
    ids: list[str] = []
    texts: list[str] = []
    rows: list[int] = []
    metadata: dict[str, list[Any]] = {}
    chosen: tuple[str | None, tuple[str, ...]] | None = None
    for raw in raw_batches(path, delimiter=delimiter):
        if not raw.lines:
            problems.report(raw.problems)
            continue
        names = list(raw.columns)
        if chosen is None:
            chosen = _choose(path, names, id_column, text_columns)
        identifier, parts = chosen
        columns, lines, bad = columns_as_texts(raw.columns, raw.lines)
        found = [*raw.problems, *bad]
        good: list[int] = []
        for i, line in enumerate(lines):
            text = " ".join(t for part in parts if (t := (columns.get(part) or {i: None})[i]) and t.strip())
            name = "" if identifier is None else (columns.get(identifier) or {i: None})[i]
            if not text:
                what, where = "the text is missing or blank", " + ".join(parts)
                found.append(Problem(line, where, text, what, "give each item a text"))
            elif name is None:
                what, where = "the identifier is missing", str(identifier)
                found.append(Problem(line, where, None, what, "give each item an identifier"))
            else:
                good.append(i)
                texts.append(text)
                rows.append(line)
                if identifier is not None:
                    ids.append(name)
        problems.report(found)
        if identifier is None:
            ids.extend([str(len(ids) + k) for k in range(len(good))])
        before = len(ids) - len(good)
        for name in dict.fromkeys([*metadata, *names]):
            if name == identifier or (name in parts and len(parts) == 1):
                continue
            values = columns.get(name) or [None] * len(lines)
            metadata.setdefault(name, [None] * before).extend(values[i] for i in good)
    if not ids:
        first = f"; the first row skipped: {problems.skipped[0].problem}" if problems.skipped else ""
        raise DataError(f"there are no items{first}", path=path, remedy="name a file with at least one item")
    return ItemTable.from_columns(
        ids, texts, metadata, source=str(path), rows=rows, skipped=tuple(problems.skipped)
    )


def read_ids(
    path: str | Path,
    column: str | None = None,
    *,
    on_error: OnError = "raise",
    delimiter: str | None = None,
) -> tuple[list[str], tuple[SkippedRow, ...]]:
    """Read one column of identifiers from a table in any of the formats of :func:`read_items`.

    Args:
        path: the file.
        column: its name; the first of ``_id``, ``id``, ``item_id`` and ``uid`` where it is not given.
        on_error: ``"raise"`` at a bad row, or ``"skip"`` it.
        delimiter: of CSV and TSV, as in :func:`read_items`.

    Returns:
        the identifiers, and the rows that were skipped.

    Raises:
        DataError: no such file or column, or a row without an identifier.
    """
    path = Path(path)
    problems = Problems(path, on_error)
    ids: list[str] = []
    for raw in raw_batches(path, delimiter=delimiter):
        if not raw.lines:
            problems.report(raw.problems)
            continue
        chosen = column or next((name for name in ID_COLUMNS if name in raw.columns), None)
        if chosen is None or chosen not in raw.columns:
            raise DataError(
                f"there is no column of identifiers; the columns found are: {', '.join(raw.columns)}",
                path=path,
                remedy="name it: column, or --id-column",
            )
        columns, lines, bad = columns_as_texts({chosen: raw.columns[chosen]}, raw.lines)
        values = columns[chosen]
        problems.report(
            [
                *raw.problems,
                *bad,
                *(
                    Problem(line, chosen, None, "the identifier is missing", "delete the row")
                    for line, value in zip(lines, values, strict=True)
                    if value is None
                ),
            ]
        )
        ids.extend(value for value in values if value is not None)
    return ids, tuple(problems.skipped)


def _choose(
    path: Path, names: Sequence[str], id_column: str | None, text_columns: Sequence[str] | None
) -> tuple[str | None, tuple[str, ...]]:
    wanted = [*([id_column] if id_column else []), *(text_columns or [])]
    for name in wanted:
        if name not in names:
            near = guess(name, names)
            raise DataError(
                f"there is no column {name!r}; the columns found are: {', '.join(names)}",
                path=path,
                remedy=f"did you mean {near!r}?" if near else "name one of them",
            )
    identifier = id_column or next((name for name in ID_COLUMNS if name in names), None)
    if text_columns:
        return identifier, tuple(text_columns)
    for choice in TEXT_COLUMNS:
        if all(name in names for name in choice):
            return identifier, choice
    others = [name for name in names if name != identifier]
    if len(others) == 1:
        return identifier, (others[0],)
    raise DataError(
        f"no column is known to hold the text; the columns found are: {', '.join(names)}",
        path=path,
        remedy="name one or several of them as the text: text_columns, or --text-column for each",
    )
