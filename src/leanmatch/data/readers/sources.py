"""Files as batches of raw rows, with the line of each: the formats and how to tell them apart."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import IO, Any, Literal, Protocol

from leanmatch.data.problems import Problem
from leanmatch.errors import DataError

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}
"""File name endings and the format that they stand for; each may be followed by ``.gz``."""

BATCH_ROWS = 16_384
"""Rows that are held as they stood in the file at once."""


@dataclass
class RawBatch:
    """Rows as they stood in the file.

    Attributes:
        columns: values by column name, all of one length.
        lines: the line of each row.
        problems: rows that could not even be taken apart; they are not among the rows.
    """

    columns: dict[str, Any]
    lines: list[int]
    problems: list[Problem] = field(default_factory=list)


class TableFile(Protocol):
    """What readers of tables need of a file: a ``Path``, or something that answers like one."""

    @property
    def name(self) -> str:
        """Its name, by whose ending the format is known."""

    @property
    def suffix(self) -> str:
        """The last ending of the name."""

    def open(self, mode: Literal["rb"], /) -> IO[bytes]:
        """Its bytes."""


def format_of(path: TableFile) -> str:
    """The format of a file by its name.

    Raises:
        DataError: a name with another ending; the message lists the known ones.

    >>> format_of(Path("pairs.tsv.gz"))
    'tsv'
    """
    stem = path.name[: -len(".gz")] if path.suffix.lower() == ".gz" else path.name
    file_format = FORMATS.get(PurePath(stem).suffix.lower())
    if file_format is None:
        raise DataError(
            "the file's format is not known by its name",
            path=path,
            value=path.name,
            remedy=f"use one of the endings {', '.join(FORMATS)}, each also with .gz",
        )
    return file_format


def require_file(path: Path) -> None:
    """Refuse a file that is not there or is empty.

    Raises:
        DataError: either.
    """
    if not path.exists():
        raise DataError("there is no such file or folder", path=path, remedy="check the path")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError("the file is empty", path=path, remedy="name a file with a header and rows")


@contextmanager
def opened(path: TableFile) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes, through gzip where its name ends in ``.gz``.

    Raises:
        DataError: not gzip data, or gzip data that ends early or is damaged.
    """
    try:
        with path.open("rb") as handle:
            if path.suffix.lower() != ".gz":
                yield handle
                return
            with gzip.GzipFile(fileobj=handle) as unpacked:
                yield unpacked  # type: ignore[misc]
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"the gzip data cannot be read: {error}", path=path, remedy="copy or download the file again"
        ) from error


def text_lines(path: TableFile, handle: IO[bytes], undecodable: dict[int, bytes]) -> Iterator[str]:
    """The lines of a UTF-8 file with their endings, without a byte-order mark.

    Args:
        path: the file, for messages.
        handle: the opened file.
        undecodable: receives the lines that are not UTF-8, by line number; they come out with replacement
            characters, so that lines keep their numbers.

    Raises:
        DataError: the file is UTF-16.
    """
    for number, raw in enumerate(handle, start=1):
        line = raw
        if number == 1:
            if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
                raise DataError("the file is UTF-16", path=path, value=raw[:8], remedy="save it as UTF-8")
            line = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError as error:
            undecodable[number] = line[max(0, error.start - 20) : error.end + 20]
            yield line.decode("utf-8", "replace")


def not_utf8(line: int, content: bytes) -> Problem:
    """The problem that a line is not UTF-8."""
    return Problem(line, "", content, "the line is not valid UTF-8", "save the file as UTF-8")
