"""Segments of a catalogue: writing them, and reading their rows back.

Items are one ``.npz``: identifiers, texts, the texts' hashes and the metadata columns, in the arrays of
:mod:`leanmatch.index.storage.table`; vectors are float32 ``.npy``; rows that are gone are an int64 ``.npy``
of row numbers.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import FormatError, MissingExtraError
from leanmatch.index.storage.columns import column_of, infer_type
from leanmatch.index.storage.manifest import Manifest, Segment, StoredFile, store_file
from leanmatch.index.storage.table import Column, Items, NumberColumn, PlainColumn, TextColumn
from leanmatch.types import Vectors

OLD_SUFFIX = ".parquet"
"""Of items in catalogues of the first development versions."""

_META = "meta."


@dataclass(frozen=True)
class SegmentRows:
    """A segment in memory: its items, its vectors mapped from the file, and which rows are alive."""

    segment: Segment
    items: Items
    vectors: Vectors
    alive: NDArray[np.bool_]

    @property
    def live_rows(self) -> NDArray[np.int64]:
        """Numbers of the rows that are not gone."""
        return np.flatnonzero(self.alive)


def write_segment(folder: Path, name: str, items: Items, vectors: Vectors) -> Segment:
    """Write a segment's two files."""

    def write_vectors(path: Path) -> None:
        with path.open("wb") as stream:
            np.save(stream, np.ascontiguousarray(vectors, dtype=np.float32))

    def write_items(path: Path) -> None:
        with path.open("wb") as stream:
            np.savez(stream, **_arrays(items))

    return Segment(
        rows=len(items),
        vectors=store_file(folder, f"{name}-vectors.npy", write_vectors),
        items=store_file(folder, f"{name}-items.npz", write_items),
    )


def _arrays(items: Items) -> dict[str, Any]:
    """A segment's arrays by their names in the file; columns are numbered, their names are one array."""
    columns = dict(items.columns)
    names = TextColumn.of(list(columns))
    every: dict[str, Column] = {"id": items.ids, "text": items.texts, "names": names}
    every |= {f"column{number}": column for number, column in enumerate(columns.values())}
    out: dict[str, Any] = {"key": items.keys}
    for name, column in every.items():
        out[f"{name}.present"] = np.packbits(column.present)
        if isinstance(column, TextColumn):
            out |= {f"{name}.offsets": column.offsets, f"{name}.data": column.data}
        else:
            out[f"{name}.values"] = column.values
        if isinstance(column, NumberColumn) and column.integers is not None and column.whole is not None:
            out |= {f"{name}.integers": column.integers, f"{name}.whole": np.packbits(column.whole)}
    return out


def _read_items(path: Path) -> Items:
    if path.suffix == OLD_SUFFIX:
        return _read_parquet(path)
    with np.load(path, allow_pickle=False) as stored:
        keys = stored["key"]  # each look into the file reads the array again

        def column(name: str, rows: int = len(keys)) -> Column:
            present = np.unpackbits(stored[f"{name}.present"], count=rows).astype(np.bool_)
            if f"{name}.values" in stored:
                values = stored[f"{name}.values"]
                if values.dtype != np.float64:
                    return PlainColumn(values, present)
                if f"{name}.integers" not in stored:
                    return NumberColumn(values, present)
                whole = np.unpackbits(stored[f"{name}.whole"], count=rows).astype(np.bool_)
                return NumberColumn(values, present, stored[f"{name}.integers"], whole)
            return TextColumn(stored[f"{name}.offsets"], stored[f"{name}.data"], present)

        names = column("names", len(stored["names.offsets"]) - 1).tolist()
        columns = {str(name): column(f"column{number}") for number, name in enumerate(names)}
        ids, texts = column("id"), column("text")
        if not (isinstance(ids, TextColumn) and isinstance(texts, TextColumn)):
            raise ValueError("identifiers or texts are no texts")
        return Items(ids, texts, keys, columns)


def _read_parquet(path: Path) -> Items:
    """What development versions before 0.1 wrote.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise MissingExtraError("pyarrow", "data", "a catalogue of a development version") from error
    with pq.ParquetFile(path) as file:
        table = file.read()
    found = {name: table.column(name).to_pylist() for name in table.column_names}
    columns = {
        name[len(_META) :]: column_of(name[len(_META) :], values, infer_type(values))
        for name, values in found.items()
        if name.startswith(_META)
    }
    return Items.of(found["id"], found["text"], found["key"], columns)


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
        items = _read(folder, segment.items, _read_items)
        vectors = _read(folder, segment.vectors, _mapped)
        alive = np.ones(segment.rows, dtype=bool)
        if segment.dead is not None:
            dead = _read(folder, segment.dead, lambda path: np.load(path, allow_pickle=False))
            alive[dead] = False
        expected = (segment.rows, manifest.model.dimension)
        if (
            vectors.dtype != np.float32
            or vectors.shape != expected
            or len(items) != segment.rows
            or int(alive.sum()) != segment.rows - segment.dead_rows
        ):
            raise FormatError(
                f"{folder / segment.vectors.name} has shape {vectors.shape}, {segment.items.name} "
                f"{len(items)} rows; {expected} is expected",
                remedy="restore the files, or index the items anew",
            )
        out.append(SegmentRows(segment, items.with_columns(manifest.columns), vectors, alive))
    return out


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
    except (OSError, ValueError, KeyError, EOFError, IndexError, zipfile.BadZipFile) as error:
        raise FormatError(
            f"{path} is damaged ({type(error).__name__}: {error})"[:300],
            remedy="restore it, or index the items anew",
        ) from error
