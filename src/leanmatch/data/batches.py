"""The rows of a file as they stand in it, whatever its format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from leanmatch.data.delimited import read_delimited
from leanmatch.data.jsonlines import read_jsonl
from leanmatch.data.sources import BATCH_ROWS, RawBatch, format_of, require_file


def raw_batches(path: Path, batch_rows: int = BATCH_ROWS) -> Iterator[RawBatch]:
    """The rows of a file as they stand, by the format that its name tells."""
    kind = format_of(path)
    require_file(path)
    if kind == "parquet":
        from leanmatch.data.parquetfile import read_parquet  # needs the extra data

        return read_parquet(path, batch_rows=batch_rows)
    if kind == "jsonl":
        return read_jsonl(path, batch_rows=batch_rows)
    return read_delimited(path, tabs=kind == "tsv", batch_rows=batch_rows)
