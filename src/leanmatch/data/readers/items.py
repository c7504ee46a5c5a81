"""Reading item tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leanmatch.data.columns.items import ID_COLUMNS, check_columns, choose_id, choose_text, need_id
from leanmatch.data.items import ItemTable
from leanmatch.data.problems import OnError, Problem, Problems, SkippedRow
from leanmatch.data.readers.batches import raw_batches
from leanmatch.data.readers.plain_values import as_text, plain_columns, typed_column
from leanmatch.data.readers.sources import format_of
from leanmatch.errors import DataError


def joined_text(title: object, text: object) -> str:
    """Title and text of a document as one text, with a space between, as BEIR joins them.

    >>> joined_text("Usb dock", ""), joined_text("Usb dock", "With two ports.")
    ('Usb dock', 'Usb dock With two ports.')
    """
    return " ".join(part.strip() for part in (title, text) if isinstance(part, str) and part.strip())


def joined_parts(values: Sequence[Any]) -> str:
    """The text that several columns of an item make: those that are there, joined by a space.

    >>> joined_parts(["Usb dock", None, 7])
    'Usb dock 7'
    """
    return " ".join(text for value in values if (text := as_text(value)) and text.strip())


def read_items(
    path: str | Path,
    *,
    id_column: str | None = None,
    text_columns: Sequence[str] | None = None,
    on_error: OnError = "raise",
    delimiter: str | None = None,
    partly: bool = False,
) -> ItemTable:
    """Read items from CSV, TSV, JSONL (BEIR's corpus.jsonl too) or Parquet, each also .gz.

    Args:
        path: the file.
        id_column: the column of identifiers; one of a usual name where it is not given: ``id``, ``sku`` and
            so on (:mod:`leanmatch.data.columns.items`); row numbers (from 0) where there is none.
        text_columns: the columns that make the text, joined by a space; ``title`` and ``text`` where both are
            there, else one of a usual name, such as ``title`` or ``product_name``.
        on_error: ``"raise"`` at a bad row, or ``"skip"`` it and list it in ``skipped``.
        delimiter: of CSV and TSV; that of a CSV file is found by itself where it is not given
            (:func:`leanmatch.data.readers.delimited.sniff_delimiter`).
        partly: one of ``text_columns`` is enough; the others are empty.

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
            chosen = _choose(path, raw.columns, id_column, text_columns, partly)
        identifier, parts = chosen
        columns, lines, bad = plain_columns(raw.columns, raw.lines)
        good, named, rejected = good_rows(columns, lines, identifier, parts)
        texts.extend(text for _, text in named)
        ids.extend(name for name, _ in named if identifier is not None)
        rows.extend(lines[i] for i in good)
        problems.report([*raw.problems, *bad, *rejected])
        if identifier is None:
            ids.extend([str(len(ids) + k) for k in range(len(good))])
        before = len(ids) - len(good)
        for name in dict.fromkeys([*metadata, *names]):
            if name == identifier or (name in parts and len(parts) == 1):
                continue
            values = columns.get(name) or [None] * len(lines)
            metadata.setdefault(name, [None] * before).extend(values[i] for i in good)
    if not ids or chosen is None:
        first = f"; the first row skipped: {problems.skipped[0].problem}" if problems.skipped else ""
        raise DataError(f"there are no items{first}", path=path, remedy="name a file with at least one item")
    if format_of(path) in {"csv", "tsv"}:
        metadata = {name: typed_column(values) for name, values in metadata.items()}
    return ItemTable.from_columns(
        ids,
        texts,
        metadata,
        source=str(path),
        rows=rows,
        skipped=tuple(problems.skipped),
        id_column=chosen[0],
        text_columns=chosen[1],
    )


def good_rows(
    columns: Mapping[str, list[Any]], lines: Sequence[int], identifier: str | None, parts: Sequence[str]
) -> tuple[list[int], list[tuple[str, str]], list[Problem]]:
    """Numbers of the good rows, their identifiers and texts, and the problems of all other rows."""
    good: list[int] = []
    named: list[tuple[str, str]] = []
    wrong: list[Problem] = []
    for i, line in enumerate(lines):
        text = joined_parts([columns[part][i] if part in columns else None for part in parts])
        name = "" if identifier is None else as_text((columns.get(identifier) or {i: None})[i])
        if not text:
            what, where = "the text is missing or blank", " + ".join(parts)
            wrong.append(Problem(line, where, None, what, "give each item a text"))
        elif name is None:
            what, where = "the identifier is missing", str(identifier)
            wrong.append(Problem(line, where, None, what, "give each item an identifier"))
        else:
            good.append(i)
            named.append((name, text))
    return good, named, wrong


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
        column: its name; one of a usual name where it is not given, as in :func:`read_items`.
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
        chosen = need_id(path, raw.columns, column, "column")
        columns, lines, bad = plain_columns({chosen: raw.columns[chosen]}, raw.lines)
        values = [as_text(value) for value in columns[chosen]]
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


def read_texts(
    path: str | Path,
    text_columns: Sequence[str] | None = None,
    *,
    on_error: OnError = "raise",
    delimiter: str | None = None,
) -> tuple[list[str], tuple[SkippedRow, ...]]:
    """Read the texts of a table in any of the formats of :func:`read_items`; identifiers may come twice.

    Args:
        path: the file.
        text_columns: the columns that make the text; those of a usual name where none is given.
        on_error: ``"raise"`` at a bad row, or ``"skip"`` it.
        delimiter: of CSV and TSV, as in :func:`read_items`.

    Returns:
        the texts, and the rows that were skipped.

    Raises:
        DataError: no such file or column, no texts, or a row without one.
    """
    path = Path(path)
    problems = Problems(path, on_error)
    texts: list[str] = []
    for raw in raw_batches(path, delimiter=delimiter):
        if not raw.lines:
            problems.report(raw.problems)
            continue
        check_columns(path, list(raw.columns), text_columns or [])
        identifier = next((name for name in ID_COLUMNS if name in raw.columns), None)
        parts = tuple(text_columns or choose_text(path, list(raw.columns), identifier))
        columns, lines, bad = plain_columns({name: raw.columns[name] for name in parts}, raw.lines)
        _, named, rejected = good_rows(columns, lines, None, parts)
        problems.report([*raw.problems, *bad, *rejected])
        texts.extend(text for _, text in named)
    if not texts:
        raise DataError("there are no texts", path=path, remedy="name a file with texts")
    return texts, tuple(problems.skipped)


def _choose(
    path: Path,
    columns: Mapping[str, Any],
    id_column: str | None,
    text_columns: Sequence[str] | None,
    partly: bool,
) -> tuple[str | None, tuple[str, ...]]:
    names = list(columns)
    needed = list(text_columns or [])
    if partly:
        needed = [] if any(name in columns for name in needed) else needed[:1]
    check_columns(path, names, needed)
    identifier = choose_id(path, columns, id_column)
    return identifier, tuple(text_columns or choose_text(path, names, identifier))
