"""Parquet, as it is or inside gzip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from leanmatch.data.arrow import pa, parquet
from leanmatch.data.readers.sources import RawBatch, opened
from leanmatch.errors import DataError


def read_parquet(path: Path, *, batch_rows: int) -> Iterator[RawBatch]:
    """Batches of a file; their lines are row numbers from 1.

    Raises:
        DataError: not a Parquet file, or a column name that stands twice.
    """
    try:
        if path.suffix.lower() == ".gz":
            with opened(path) as handle:
                file = parquet().ParquetFile(pa.BufferReader(handle.read()))
        else:
            file = parquet().ParquetFile(path)
        names = file.schema_arrow.names
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise DataError(
                f"column {twice!r} is there {names.count(twice)} times",
                path=path,
                remedy="give each column its own name",
            )
        row = 1
        if file.metadata.num_rows == 0:
            yield RawBatch({name: [] for name in names}, [])
        for batch in file.iter_batches(batch_size=batch_rows):
            yield RawBatch(
                {name: batch.column(i) for i, name in enumerate(batch.schema.names)},
                list(range(row, row + batch.num_rows)),
            )
            row += batch.num_rows
    except (pa.ArrowInvalid, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise DataError(
            f"this is no readable Parquet file: {error}", path=path, remedy="write the file again"
        ) from error
