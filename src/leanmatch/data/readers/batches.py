"""The rows of a file as they stand in it, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from leanmatch.data.readers.delimited import read_delimited
from leanmatch.data.readers.jsonlines import read_jsonl
from leanmatch.data.readers.sources import BATCH_ROWS, RawBatch, format_of, require_file
from leanmatch.errors import UsageError


def raw_batches(path: Path, batch_rows: int = BATCH_ROWS, delimiter: str | None = None) -> Iterator[RawBatch]:
    """The raw rows of a file, whose name tells the format.

    Args:
        path: the file.
        batch_rows: rows in a batch.
        delimiter: of CSV and TSV, see :func:`leanmatch.data.readers.delimited.read_delimited`.

    Raises:
        UsageError: a delimiter for a file that has none.
        DataError: no such file, or one that cannot be read.
    """
    kind = format_of(path)
    require_file(path)
    if delimiter is not None and kind not in {"csv", "tsv"}:
        raise UsageError(
            f"a delimiter is named for {path}, which is {kind}",
            remedy="leave delimiter out",
            command="leave --delimiter out",
        )
    if kind == "parquet":
        from leanmatch.data.readers.parquet import read_parquet  # needs the extra data

        return read_parquet(path, batch_rows=batch_rows)
    if kind == "jsonl":
        return read_jsonl(path, batch_rows=batch_rows)
    return read_delimited(path, tabs=kind == "tsv", batch_rows=batch_rows, delimiter=delimiter)
