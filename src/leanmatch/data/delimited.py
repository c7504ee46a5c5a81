"""CSV (RFC 4180: quoted fields may hold commas, quotes and line ends) and TSV (no quoting at all)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from leanmatch.data.problems import Problem
from leanmatch.data.sources import RawBatch, not_utf8, opened, text_lines
from leanmatch.errors import DataError

MAX_FIELD_CHARACTERS = 2**31 - 1
Record = tuple[int, list[str] | None, Problem | None]


def read_delimited(path: Path, *, tabs: bool, batch_rows: int) -> Iterator[RawBatch]:
    """Batches of a file whose first line names the columns. Blank lines are passed over.

    Raises:
        DataError: the header cannot be used, or there is none.
    """
    with opened(path) as handle:
        undecodable: dict[int, bytes] = {}
        lines = text_lines(path, handle, undecodable)
        records = _tsv_records(lines) if tabs else _csv_records(lines)
        names = _header(path, records, undecodable)
        rows: list[list[str]] = []
        numbers: list[int] = []
        problems: list[Problem] = []
        last = 0
        for line, fields, problem in records:
            bad = problem
            if undecodable:  # holds lines of this record only, as records are read one by one
                number = min(undecodable)
                bad = not_utf8(number, undecodable[number])
                undecodable.clear()
            elif fields is not None and len(fields) != len(names):
                bad = _wrong_count(line, fields, names, tabs)
            if bad is not None:
                problems.append(bad)
            elif fields is not None:
                rows.append(fields)
                numbers.append(line)
            last += 1
            if last == batch_rows:
                yield RawBatch(_columns(names, rows), numbers, problems)
                rows, numbers, problems, last = [], [], [], 0
        yield RawBatch(_columns(names, rows), numbers, problems)


def _header(path: Path, records: Iterator[Record], undecodable: dict[int, bytes]) -> list[str]:
    line, names, problem = next(records, (1, None, None))
    if undecodable:
        problem = not_utf8(min(undecodable), undecodable[min(undecodable)])
    if problem is not None:
        raise DataError(problem.problem, path=path, line=line, value=problem.value, remedy=problem.remedy)
    if names is None:
        raise DataError("the file is empty", path=path, remedy="name a file with a header and rows")
    # pandas writes its index as a column without a name
    return [name.strip() or f"column_{i}" for i, name in enumerate(names, start=1)]


def _tsv_records(lines: Iterator[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        content = line.removesuffix("\n").removesuffix("\r")
        if content:
            yield number, content.split("\t"), None


def _csv_records(lines: Iterator[str]) -> Iterator[Record]:
    if csv.field_size_limit() < MAX_FIELD_CHARACTERS:  # process-wide, and only ever raised: texts may be long
        csv.field_size_limit(MAX_FIELD_CHARACTERS)
    reader = csv.reader(lines, strict=True)
    while True:
        start = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            unclosed = "unexpected end of data" in str(error)
            what = (
                "a quote that is opened here is never closed" if unclosed else f"not RFC 4180 CSV ({error})"
            )
            remedy = 'write a quote inside a field twice and put the field in quotes: "say ""hi"""'
            yield start, None, Problem(start, "", f"lines {start} to {reader.line_num}", what, remedy)
            continue
        if fields is None:
            return
        if fields:
            yield start, fields, None


def _wrong_count(line: int, fields: list[str], names: list[str], tabs: bool) -> Problem:
    remedy = (
        "a TSV field cannot hold a tab or a line end; save such texts as CSV, JSONL or Parquet"
        if tabs
        else "put fields that hold a comma or a line end in double quotes"
    )
    what = f"{len(fields)} fields where the header has {len(names)}"
    return Problem(line, "", (("\t" if tabs else ",").join(fields))[:100], what, remedy)


def _columns(names: list[str], rows: list[list[str]]) -> dict[str, list[str]]:
    if not rows:
        return {name: [] for name in names} if len(set(names)) == len(names) else _twice(names)
    if len(set(names)) < len(names):
        return _twice(names)
    return {name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def _twice(names: list[str]) -> dict[str, list[str]]:
    twice = next(name for name in names if names.count(name) > 1)
    raise DataError(
        f"the header names column {twice!r} {names.count(twice)} times",
        remedy="give each column its own name",
    )


UNSAFE_IN_TSV = re.compile(r"[\t\r\n]")
"""What a TSV field cannot hold."""
