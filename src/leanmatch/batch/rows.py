"""Rows of a slice as Arrow tables: ``id``, ``text``, ``line``, and all else that is known in ``metadata``.

``metadata`` is a struct with the file's own types for Parquet, a struct of strings for CSV and TSV, and one
JSON object as a string for JSON Lines, whose rows need not have the same keys.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import IO, Any, Literal

from leanmatch.batch.locations import InputFile
from leanmatch.batch.slices import BYTES, ROW_GROUP, Scan, Slice
from leanmatch.data.arrow import pa, parquet
from leanmatch.data.columns.items import check_columns
from leanmatch.data.problems import Problems
from leanmatch.data.readers.delimited import read_delimited
from leanmatch.data.readers.items import good_rows
from leanmatch.data.readers.jsonlines import read_jsonl
from leanmatch.data.readers.parquet import read_parquet
from leanmatch.data.readers.plain_values import plain_columns
from leanmatch.data.readers.sources import RawBatch

BLOCK_ROWS = 4_096
"""Rows that are held and encoded at once."""

ID, TEXT, LINE, METADATA = "id", "text", "line", "metadata"

NO_ROWS = pa.schema([(ID, pa.string()), (TEXT, pa.string()), (LINE, pa.int64()), (METADATA, pa.string())])
"""The schema of a part without rows."""


class RangeOfFile:
    """A text file's header and the bytes of one slice, for a reader of whole files."""

    def __init__(self, file: InputFile, part: Slice, header: int) -> None:
        self._file, self._slice, self._header = file, part, header

    def __str__(self) -> str:
        return str(self._file)

    @property
    def name(self) -> str:
        """The file's name."""
        return self._file.name

    @property
    def suffix(self) -> str:
        """The last ending of the file's name."""
        return self._file.suffix

    def open(self, mode: Literal["rb"] = "rb", /) -> IO[bytes]:
        """Header and slice."""
        assert mode == "rb"
        with self._file.open_native() as stream:
            header = stream.read_at(self._header, 0)
            body = stream.read_at(self._slice.stop - self._slice.start, self._slice.start)
        return io.BytesIO(header + body)


def first_columns(file: InputFile, scanned: Scan) -> dict[str, Sequence[Any]]:
    """Values of a file's first rows by column name; of Parquet without reading any row.

    Raises:
        DataError: the header cannot be used.
    """
    if scanned.format == "parquet" and file.suffix.lower() != ".gz":
        names = parquet().ParquetFile(file.open_native()).schema_arrow.names
        return dict.fromkeys(names, ())
    beginning = scanned.slices[0] if scanned.slices else Slice(0, BYTES, scanned.header, scanned.header, 2)
    batch = next(iter(_raw_batches(file, scanned, beginning)), None)
    return {} if batch is None else dict(batch.columns)


def read_slice(
    file: InputFile,
    scanned: Scan,
    part: Slice,
    id_column: str | None,
    text_columns: Sequence[str],
    problems: Problems,
) -> Iterator[Any]:
    """The good rows of a slice as tables of at most :data:`BLOCK_ROWS` rows; the first may have none.

    Args:
        file: where it lies.
        scanned: what the file is.
        part: the slice.
        id_column: column of identifiers; None calls rows ``FILE:LINE``.
        text_columns: columns that make the text.
        problems: receives the bad rows, or raises.

    Raises:
        DataError: a bad row, or a file without one of the columns.
    """
    for number, raw in enumerate(_raw_batches(file, scanned, part)):
        names = list(raw.columns)
        if raw.lines:
            check_columns(file, names, [name for name in (id_column, *text_columns) if name])
        needed = {name: raw.columns[name] for name in (id_column, *text_columns) if name in raw.columns}
        plain = raw.columns if scanned.format != "parquet" else needed
        columns, lines, bad = plain_columns(plain, raw.lines)
        good, named, rejected = good_rows(columns, lines, id_column, text_columns)
        problems.report([*raw.problems, *bad, *rejected])
        if number and not good:
            continue
        places = {line: row for row, line in enumerate(raw.lines)}
        kept = [places[lines[i]] for i in good]
        others = [name for name in names if name != id_column and [name] != list(text_columns)]
        ids = [name or f"{file}:{lines[i]}" for i, (name, _) in zip(good, named, strict=True)]
        yield pa.table(
            {
                ID: pa.array(ids, pa.string()),
                TEXT: pa.array([text for _, text in named], pa.string()),
                LINE: pa.array([lines[i] for i in good], pa.int64()),
                METADATA: _metadata(scanned.format, raw.columns, columns, others, kept, good),
            }
        )


def _metadata(
    file_format: str,
    raw: Mapping[str, Any],
    plain: Mapping[str, list[Any]],
    names: Sequence[str],
    kept: Sequence[int],
    good: Sequence[int],
) -> Any:
    """The other columns of the good rows."""
    if file_format == "jsonl":
        rows = ({name: plain[name][i] for name in names if plain[name][i] is not None} for i in good)
        return pa.array([json.dumps(row, ensure_ascii=False) for row in rows], pa.string())
    if file_format == "parquet":
        rows_taken = pa.array(kept, pa.int64())
        arrays = [_whole(raw[name]).take(rows_taken) for name in names]
    else:
        arrays = [pa.array([plain[name][i] for i in good], pa.string()) for name in names]
    if not names:  # Parquet has no struct without fields
        return pa.array(["{}"] * len(good), pa.string())
    return pa.StructArray.from_arrays(arrays, names)


def _whole(column: Any) -> Any:
    return column.combine_chunks() if hasattr(column, "combine_chunks") else column


def _raw_batches(file: InputFile, scanned: Scan, part: Slice) -> Iterator[RawBatch]:
    """Raw rows of a slice, with their lines in the whole file."""
    if scanned.format == "parquet":
        group = part.start if part.kind == ROW_GROUP else None
        yield from read_parquet(file, batch_rows=BLOCK_ROWS, row_group=group, first_row=part.line)
        return
    source: Any = RangeOfFile(file, part, scanned.header) if part.kind == BYTES else file
    if scanned.format == "jsonl":
        batches = read_jsonl(source, batch_rows=BLOCK_ROWS)
        first = 1
    else:
        tabs = scanned.format == "tsv"
        batches = read_delimited(source, tabs=tabs, batch_rows=BLOCK_ROWS, delimiter=scanned.delimiter)
        first = 2
    ahead = part.line - first if part.kind == BYTES else 0
    for raw in batches:
        moved = [replace(problem, line=problem.line + ahead) for problem in raw.problems]
        yield RawBatch(raw.columns, [line + ahead for line in raw.lines], moved)
