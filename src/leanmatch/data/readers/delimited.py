"""CSV (RFC 4180: quoted fields may hold commas, quotes and line ends) and TSV (no quoting at all).

The delimiter of a CSV file is a comma, unless the header and the first rows fit another one of
:data:`DELIMITERS` and no comma. European spreadsheets write semicolons.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from itertools import islice

from leanmatch.data.problems import Problem
from leanmatch.data.readers.sources import RawBatch, TableFile, not_utf8, opened, text_lines
from leanmatch.errors import DataError, UsageError

MAX_FIELD_CHARACTERS = 2**31 - 1
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "pipe"}
"""Delimiters that :func:`sniff_delimiter` looks for, the likeliest first."""

SNIFFED_BYTES = 65_536
SNIFFED_RECORDS = 20
Record = tuple[int, list[str] | None, Problem | None]


def delimiter_named(option: str | None) -> str | None:
    """The delimiter that an option names: the character itself, or a name of :data:`DELIMITERS`.

    Raises:
        UsageError: not one character, or one that cannot separate fields.

    >>> delimiter_named("semicolon"), delimiter_named("|"), delimiter_named("\\\\t"), delimiter_named(None)
    (';', '|', '\\t', None)
    """
    if option is None:
        return None
    names = {name: character for character, name in DELIMITERS.items()} | {"\\t": "\t"}
    character = names.get(option.casefold(), option)
    if len(character) != 1 or character.isalnum() or character in '"\r\n':
        raise UsageError(
            f"the delimiter is {option!r}", remedy=f"give one character, or one of: {', '.join(names)}"
        )
    return character


def sniff_delimiter(path: TableFile) -> str:
    """The delimiter of a CSV file, from its header and first rows: a comma where nothing else fits better.

    A delimiter fits when it cuts the header into two or more fields, and at least half of the sampled rows
    into as many. Of several, the one that more rows agree on wins, then the one with more fields.

    Raises:
        DataError: gzip data that is damaged.
    """
    with opened(path) as handle:
        sample = handle.read(SNIFFED_BYTES)
    whole = len(sample) < SNIFFED_BYTES
    text = sample.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")
    lines = io.StringIO(text, newline="").readlines()
    lines = lines if whole or len(lines) < 2 else lines[:-1]
    return max(DELIMITERS, key=lambda delimiter: _fit(lines, delimiter))  # of equals the first: the comma


def _fit(lines: list[str], delimiter: str) -> tuple[float, int]:
    """The share of rows with as many fields as the header, and that number; zeros where it does not fit."""
    counts: list[int] = []
    for _, fields, problem in islice(_csv_records(iter(lines), delimiter), SNIFFED_RECORDS):
        if problem is not None or fields is None:  # the sample may end inside quotes
            break
        counts.append(len(fields))
    if not counts or counts[0] < 2:
        return 0.0, 0
    alike = [count == counts[0] for count in counts[1:]]
    share = sum(alike) / len(alike) if alike else 1.0
    return (share, counts[0]) if share >= 0.5 else (0.0, 0)


def read_delimited(
    path: TableFile, *, tabs: bool, batch_rows: int, delimiter: str | None = None
) -> Iterator[RawBatch]:
    """Batches of a file whose first line names the columns. Blank lines are passed over.

    Args:
        path: the file.
        tabs: it is TSV, without quoting, unless another ``delimiter`` is given.
        batch_rows: rows in a batch.
        delimiter: what separates the fields; :func:`sniff_delimiter` finds that of a CSV file where it is
            not given.

    Raises:
        DataError: the header cannot be used, or there is none.
    """
    tabs = tabs and delimiter in {None, "\t"}
    mark = "\t" if tabs else delimiter or sniff_delimiter(path)
    with opened(path) as handle:
        undecodable: dict[int, bytes] = {}
        lines = text_lines(path, handle, undecodable)
        records = _tsv_records(lines) if tabs else _csv_records(lines, mark)
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
                bad = _wrong_count(line, fields, names, mark, tabs)
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


def _header(path: TableFile, records: Iterator[Record], undecodable: dict[int, bytes]) -> list[str]:
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


def _csv_records(lines: Iterator[str], delimiter: str) -> Iterator[Record]:
    if csv.field_size_limit() < MAX_FIELD_CHARACTERS:  # process-wide, and only ever raised: texts may be long
        csv.field_size_limit(MAX_FIELD_CHARACTERS)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
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


def _wrong_count(line: int, fields: list[str], names: list[str], mark: str, tabs: bool) -> Problem:
    remedy = (
        "a TSV field cannot hold a tab or a line end; save such texts as CSV, JSONL or Parquet"
        if tabs
        else f"put fields that hold a {DELIMITERS.get(mark, mark)} or a line end in double quotes"
    )
    what = f"{len(fields)} fields where the header has {len(names)}"
    return Problem(line, "", mark.join(fields)[:100], what, remedy)


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
