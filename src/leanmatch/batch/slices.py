"""Cutting files into slices: row groups of Parquet, ranges of records of text files, whole ``.gz`` files."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from leanmatch.batch.locations import COPY_BYTES, InputFile
from leanmatch.data.arrow import pa, parquet
from leanmatch.data.readers.delimited import MAX_FIELD_CHARACTERS, sniff_delimiter
from leanmatch.data.readers.sources import format_of
from leanmatch.errors import DataError

BYTES, ROW_GROUP, WHOLE = "bytes", "row group", "file"


@dataclass(frozen=True)
class Slice:
    """What one part is made of.

    Attributes:
        file: number of the file.
        kind: ``bytes`` ``start`` to ``stop`` of a text file, ``row group`` number ``start`` of Parquet, or
            the whole ``file``.
        start, stop: see ``kind``.
        line: line (of Parquet: row) of the file that the slice begins with, counted from 1.
    """

    file: int
    kind: str
    start: int
    stop: int
    line: int


@dataclass(frozen=True)
class Scan:
    """What one file is.

    Attributes:
        sha256: of its bytes.
        format: a value of :data:`leanmatch.data.readers.sources.FORMATS`.
        delimiter: of CSV and TSV, else None.
        header: bytes of its first line, 0 where it has no header.
        slices: of it.
    """

    sha256: str
    format: str
    delimiter: str | None
    header: int
    slices: tuple[Slice, ...]


def scan(number: int, file: InputFile, delimiter: str | None, slice_bytes: int) -> Scan:
    """Hash a file and cut it into slices, reading it once.

    Raises:
        DataError: it is empty, of no known format, or no Parquet file.
    """
    file_format = format_of(file)
    if not file.size:
        raise DataError("the file is empty", path=file, remedy="name a file with rows")
    if file_format in {"csv", "tsv"}:
        detected = "\t" if file_format == "tsv" else sniff_delimiter(file)
        delimiter = delimiter or detected
    else:
        delimiter = None
    if file.suffix.lower() == ".gz":
        return Scan(_sha256(file), file_format, delimiter, 0, (Slice(number, WHOLE, 0, file.size, 1),))
    if file_format == "parquet":
        return Scan(_sha256(file), file_format, None, 0, tuple(_row_groups(number, file)))
    digest = hashlib.sha256()
    with file.open() as stream:
        lines = _hashed_lines(stream, digest)
        first = next(lines)
        header = 0 if file_format == "jsonl" else len(first)
        body = lines if header else chain([first], lines)
        quoted = file_format == "csv" or delimiter != "\t"
        records = _csv_records(body, str(delimiter)) if header and quoted else ((len(raw), 1) for raw in body)
        slices = tuple(_ranges(number, records, header, slice_bytes))
    return Scan(digest.hexdigest(), file_format, delimiter, header, slices)


def _ranges(
    number: int, records: Iterator[tuple[int, int]], header: int, slice_bytes: int
) -> Iterator[Slice]:
    """Slices of at least ``slice_bytes`` from (bytes, lines) of records; the last may be shorter."""
    start = stop = header
    line = next_line = 2 if header else 1
    for length, lines in records:
        stop, next_line = stop + length, next_line + lines
        if stop - start >= slice_bytes:
            yield Slice(number, BYTES, start, stop, line)
            start, line = stop, next_line
    if stop > start:
        yield Slice(number, BYTES, start, stop, line)


def _hashed_lines(stream: Any, digest: Any) -> Iterator[bytes]:
    for raw in stream:
        digest.update(raw)
        yield raw


def _csv_records(lines: Iterator[bytes], delimiter: str) -> Iterator[tuple[int, int]]:
    """Bytes and lines of each record, found by the reader that will read it."""
    taken = [0, 0]

    def decoded() -> Iterator[str]:
        for raw in lines:
            taken[0] += len(raw)
            taken[1] += 1
            yield raw.decode("utf-8", "replace")

    if csv.field_size_limit() < MAX_FIELD_CHARACTERS:
        csv.field_size_limit(MAX_FIELD_CHARACTERS)
    reader = csv.reader(decoded(), delimiter=delimiter, strict=True)
    while True:
        try:
            ended = next(reader, None) is None
        except csv.Error:  # named, with its line, when the slice is read
            ended = False
        if taken[0]:
            yield taken[0], taken[1]
        elif ended:
            return
        taken[:] = [0, 0]


def _row_groups(number: int, file: InputFile) -> Iterator[Slice]:
    try:
        metadata = parquet().ParquetFile(file.open_native()).metadata
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(
            f"this is no readable Parquet file: {error}", path=file, remedy="write the file again"
        ) from error
    row = 1
    for group in range(metadata.num_row_groups):
        yield Slice(number, ROW_GROUP, group, group + 1, row)
        row += metadata.row_group(group).num_rows


def _sha256(file: InputFile) -> str:
    digest = hashlib.sha256()
    with file.open() as stream:
        while chunk := stream.read(COPY_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
