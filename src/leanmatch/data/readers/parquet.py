"""Parquet, as it is or inside gzip."""

from __future__ import annotations

from collections.abc import Iterator

from leanmatch.data.arrow import pa, parquet
from leanmatch.data.readers.sources import RawBatch, TableFile, opened
from leanmatch.errors import DataError


def read_parquet(
    path: TableFile, *, batch_rows: int, row_group: int | None = None, first_row: int = 1
) -> Iterator[RawBatch]:
    """Batches of a file, or of one of its row groups; their lines are row numbers.

    Args:
        path: the file.
        batch_rows: rows in a batch.
        row_group: number of the row group; None for the whole file.
        first_row: number of the first row.

    Raises:
        DataError: not a Parquet file, or a column name that stands twice.
    """
    try:
        with opened(path) as handle:
            packed = path.suffix.lower() == ".gz"
            file = parquet().ParquetFile(pa.BufferReader(handle.read()) if packed else handle)
            names = file.schema_arrow.names
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise DataError(
                    f"column {twice!r} is there {names.count(twice)} times",
                    path=path,
                    remedy="give each column its own name",
                )
            row = first_row
            if file.metadata.num_rows == 0:
                yield RawBatch({name: [] for name in names}, [])
            groups = None if row_group is None else [row_group]
            for batch in file.iter_batches(batch_size=batch_rows, row_groups=groups):
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
