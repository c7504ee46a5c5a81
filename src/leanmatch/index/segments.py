"""Segments of a catalogue: writing them, and reading their rows back.

Items are Parquet with the columns ``id``, ``text``, ``key`` (the text's hash) and ``meta.NAME`` for each
metadata column; vectors are float32 ``.npy``; rows that are gone are an int64 ``.npy`` of row numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from leanmatch.errors import FormatError
from leanmatch.index.columns import TYPES
from leanmatch.index.manifest import Manifest, Segment, StoredFile, store_file
from leanmatch.index.staging import KEY_BYTES
from leanmatch.types import Vectors

META = "meta."


@dataclass(frozen=True)
class SegmentRows:
    """A segment in memory: its items as Arrow, its vectors mapped from the file, and which rows are alive."""

    segment: Segment
    items: pa.Table
    vectors: Vectors
    alive: NDArray[np.bool_]

    @property
    def live_rows(self) -> NDArray[np.int64]:
        """Numbers of the rows that are not gone."""
        return np.flatnonzero(self.alive)


def items_table(
    ids: Sequence[str], texts: Sequence[str], keys: Sequence[bytes], columns: Mapping[str, pa.Array]
) -> pa.Table:
    """Rows in the form that a segment stores."""
    return pa.table(
        {
            "id": pa.array(ids, pa.large_string()),
            "text": pa.array(texts, pa.large_string()),
            "key": pa.array(keys, pa.binary(KEY_BYTES)),
            **{META + name: array for name, array in columns.items()},
        }
    )


def with_columns(table: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """The table with exactly these metadata columns: absent ones empty, integers widened where needed."""
    arrays = {name: table.column(name) for name in ("id", "text", "key")}
    for name, kind in columns.items():
        wanted = TYPES[kind]
        if META + name in table.column_names:
            arrays[META + name] = table.column(META + name).cast(wanted)
        else:
            arrays[META + name] = pa.nulls(table.num_rows, wanted)
    return pa.table(arrays)


def write_segment(folder: Path, name: str, items: pa.Table, vectors: Vectors) -> Segment:
    """Write a segment's two files."""

    def write_vectors(path: Path) -> None:
        with path.open("wb") as stream:
            np.save(stream, np.ascontiguousarray(vectors, dtype=np.float32))

    def write_items(path: Path) -> None:
        pq.write_table(items, path, compression="zstd", compression_level=1)

    return Segment(
        rows=items.num_rows,
        vectors=store_file(folder, f"{name}-vectors.npy", write_vectors),
        items=store_file(folder, f"{name}-items.parquet", write_items),
    )


def write_dead(folder: Path, name: str, rows: NDArray[np.int64]) -> StoredFile:
    """Write the numbers of rows that are gone."""

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            np.save(stream, np.asarray(rows, dtype=np.int64))

    return store_file(folder, f"{name}-dead.npy", write)


def read_segments(folder: Path, manifest: Manifest) -> list[SegmentRows]:
    """Read all segments.

    Raises:
        FileNotFoundError: a file is not there (a newer manifest may have replaced this one).
        FormatError: a file is damaged.
    """
    out = []
    for segment in manifest.segments:
        items = _read(folder, segment.items, _parquet)
        vectors = _read(folder, segment.vectors, _mapped)
        alive = np.ones(segment.rows, dtype=bool)
        if segment.dead is not None:
            dead = _read(folder, segment.dead, lambda path: np.load(path, allow_pickle=False))
            alive[dead] = False
        expected = (segment.rows, manifest.model.dimension)
        if (
            vectors.dtype != np.float32
            or vectors.shape != expected
            or items.num_rows != segment.rows
            or int(alive.sum()) != segment.rows - segment.dead_rows
        ):
            raise FormatError(
                f"{folder / segment.vectors.name} has shape {vectors.shape}, {segment.items.name} "
                f"{items.num_rows} rows; {expected} is expected",
                remedy="restore the files, or index the items anew",
            )
        out.append(SegmentRows(segment, with_columns(items, manifest.columns), vectors, alive))
    return out


def _parquet(path: Path) -> pa.Table:
    with pq.ParquetFile(path) as file:  # read_table() would first load the dataset library
        return file.read()


def _mapped(path: Path) -> Vectors:
    vectors: Vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    return vectors


def _read(folder: Path, file: StoredFile, reader: Any) -> Any:
    path = folder / file.name
    if (size := path.stat().st_size) != file.bytes:
        raise FormatError(
            f"{path} has {size:,} bytes, not {file.bytes:,}", remedy="restore it, or index the items anew"
        )
    try:
        return reader(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, EOFError, IndexError, pa.ArrowException) as error:
        raise FormatError(
            f"{path} is damaged ({type(error).__name__}: {error})"[:300],
            remedy="restore it, or index the items anew",
        ) from error
