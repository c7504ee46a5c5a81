"""Reading changes of items: files that hold some columns of items that are there already."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanmatch.data.columns.items import need_id, usual_text
from leanmatch.data.problems import OnError, Problem, Problems, SkippedRow
from leanmatch.data.readers.batches import raw_batches
from leanmatch.data.readers.jsonlines import read_jsonl
from leanmatch.data.readers.plain_values import as_text, plain_columns, typed_column
from leanmatch.data.readers.sources import BATCH_ROWS, RawBatch, format_of, require_file
from leanmatch.errors import DataError, UsageError


class _Absent:
    """Stands where a JSON object lacks a key that others have."""


ABSENT = _Absent()


@dataclass(frozen=True)
class ItemChanges:
    """What a file says about items that are there.

    Attributes:
        ids: one identifier a row, no two the same.
        texts: the new text, or None where the file does not give the column of the text.
        metadata: for each row the columns that it gives, None where it takes a value away.
        skipped: rows that were left out.
    """

    ids: list[str]
    texts: list[str | None]
    metadata: list[dict[str, Any]]
    skipped: tuple[SkippedRow, ...]


def read_changes(
    path: str | Path,
    *,
    id_column: str | None = None,
    text_columns: Sequence[str] | None = None,
    on_error: OnError = "raise",
    delimiter: str | None = None,
) -> ItemChanges:
    """Read changes of items: identifiers and any other columns, with or without the text.

    Args:
        path: the file, in any format of :func:`leanmatch.data.read_items`.
        id_column: the column of identifiers; one of a usual name where it is not given.
        text_columns: the column of the text. Several are joined by whoever knows those that the file lacks:
            they come as metadata. Where none is given, a column of a usual name is the text, no other is.
        on_error: ``"raise"`` at a bad row, or ``"skip"`` it.
        delimiter: of CSV and TSV, as in :func:`leanmatch.data.read_items`.

    Raises:
        DataError: no such file, no column of identifiers, a blank text, an identifier that comes twice.
    """
    path = Path(path)
    problems = Problems(path, on_error)
    ids: list[str] = []
    texts: list[str | None] = []
    rows: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for raw in _batches(path, delimiter):
        if not raw.lines:
            problems.report(raw.problems)
            continue
        names = list(raw.columns)
        identifier = need_id(path, raw.columns, id_column, "id_column")
        text_column = _text_column(names, identifier, text_columns)
        columns, lines, bad = plain_columns(raw.columns, raw.lines)
        wrong = [*raw.problems, *bad]
        for i, line in enumerate(lines):
            row = {name: values[i] for name, values in columns.items() if values[i] is not ABSENT}
            name = as_text(row.pop(identifier, None))
            given = text_column in row
            text = as_text(row.pop(text_column, None)) if text_column is not None else None
            if name is None:
                what = "the identifier is missing"
                wrong.append(Problem(line, identifier, None, what, "give each item an identifier"))
            elif given and not (text and text.strip()):
                remedy = "give each item a text, or leave the column out to keep the texts"
                wrong.append(Problem(line, str(text_column), text, "the text is missing or blank", remedy))
            elif seen.setdefault(name, line) != line:
                raise DataError(
                    f"the identifier stands on rows {seen[name]} and {line}",
                    path=path,
                    line=line,
                    column=identifier,
                    value=name,
                    remedy="give each item once",
                )
            else:
                ids.append(name)
                texts.append(text)
                rows.append(row)
        problems.report(wrong)
    if not ids:
        raise DataError("there are no items", path=path, remedy="name a file with at least one item")
    if format_of(path) in {"csv", "tsv"}:
        _type(rows)
    return ItemChanges(ids, texts, rows, tuple(problems.skipped))


def _batches(path: Path, delimiter: str | None) -> Iterator[RawBatch]:
    if format_of(path) != "jsonl":
        return raw_batches(path, delimiter=delimiter)
    if delimiter is not None:
        raise UsageError(
            f"a delimiter is named for {path}, which is jsonl",
            remedy="leave delimiter out",
            command="leave --delimiter out",
        )
    require_file(path)
    return read_jsonl(path, batch_rows=BATCH_ROWS, absent=ABSENT)


def _text_column(names: Sequence[str], identifier: str, columns: Sequence[str] | None) -> str | None:
    """The one column that is the text as it stands."""
    if columns is not None:
        return columns[0] if len(columns) == 1 and columns[0] in names else None
    usual = usual_text(name for name in names if name != identifier)
    return usual[0] if len(usual) == 1 else None


def _type(rows: list[dict[str, Any]]) -> None:
    for name in dict.fromkeys(name for row in rows for name in row):
        typed = typed_column([row.get(name) for row in rows])
        for row, value in zip(rows, typed, strict=True):
            if name in row:
                row[name] = value
