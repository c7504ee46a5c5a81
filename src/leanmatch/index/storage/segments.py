"""Segments of a catalogue: writing them, and reading their rows back.

Items are one ``.npz``: identifiers, texts, the texts' hashes and the metadata columns, in the arrays of
:mod:`leanmatch.index.storage.table`; vectors are float32 ``.npy``; rows that are gone are an int64 ``.npy``
of row numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import FormatError, LeanmatchError
from leanmatch.index.storage.arrays import map_array, read_array, read_arrays
from leanmatch.index.storage.checking import REMEDY, VERIFIED, StoredFile, check_lengths
from leanmatch.index.storage.lexical import read_postings, write_postings
from leanmatch.index.storage.manifest import Manifest, Segment, store_file
from leanmatch.index.storage.table import KEY_BYTES, Column, Items, NumberColumn, PlainColumn, TextColumn
from leanmatch.lexical.bm25 import Postings
from leanmatch.types import Vectors


@dataclass(frozen=True)
class SegmentRows:
    """A segment in memory: its items, its vectors mapped from the file, and which rows are alive."""

    segment: Segment
    items: Items
    vectors: Vectors
    alive: NDArray[np.bool_]
    postings: Postings | None = None


def write_vectors(folder: Path, name: str, parts: Iterable[Vectors], rows: int, dimension: int) -> StoredFile:
    """Write the vectors of a segment part by part, as :func:`numpy.save` writes them as a whole."""

    def write(path: Path) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}
        with path.open("wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for part in parts:
                stream.write(np.ascontiguousarray(part, dtype="<f4").data)

    return store_file(folder, f"{name}-vectors.npy", write)


def write_segment(
    folder: Path,
    name: str,
    items: Items,
    vectors: Vectors,
    *,
    hybrid: bool = False,
    stored: StoredFile | None = None,
) -> Segment:
    """Write a segment's two files; with ``hybrid`` those of its terms as well.

    ``stored``: the file of the vectors, if it is written already.
    """

    def write_items(path: Path) -> None:
        with path.open("wb") as stream:
            np.savez(stream, **_arrays(items))

    return Segment(
        rows=len(items),
        vectors=stored or write_vectors(folder, name, [vectors], *vectors.shape),
        items=store_file(folder, f"{name}-items.npz", write_items),
        lexical=write_postings(folder, name, items.texts.tolist()) if hybrid else None,
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


def _read_items(path: Path, rows: int) -> Items:
    stored = read_arrays(path)
    keys = stored["key"]
    if keys.dtype != np.uint8 or keys.shape != (rows, KEY_BYTES):
        raise ValueError(f"hashes of shape {keys.shape}, not {(rows, KEY_BYTES)}")
    names = _text_column(stored, "names", _count(stored["names.offsets"]))
    columns = [_column(stored, f"column{number}", rows) for number in range(len(names))]
    named = dict(zip(map(str, names.tolist()), columns, strict=True))
    ids, texts = _text_column(stored, "id", rows), _text_column(stored, "text", rows)
    if len(named) != len(columns) or not (names.present.all() and ids.present.all() and texts.present.all()):
        raise ValueError("an identifier, a text or the name of a column is missing or stands twice")
    return Items(ids, texts, keys, named)


def _count(offsets: NDArray[Any]) -> int:
    if offsets.ndim != 1 or not len(offsets):
        raise ValueError(f"offsets of shape {offsets.shape}")
    return len(offsets) - 1


def _column(stored: Mapping[str, NDArray[Any]], name: str, rows: int) -> Column:
    if f"{name}.values" not in stored:
        return _text_column(stored, name, rows)
    present, values = _bits(stored[f"{name}.present"], rows), stored[f"{name}.values"]
    if values.shape != (rows,):
        raise ValueError(f"{name} has values of shape {values.shape}")
    if values.dtype == np.bool_ and (values.view(np.uint8) > 1).any():
        raise ValueError(f"{name} has values that are neither true nor false")
    if values.dtype != np.float64:
        return PlainColumn(values, present)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has values that are not finite")
    if f"{name}.integers" not in stored:
        return NumberColumn(values, present)
    integers, whole = stored[f"{name}.integers"], _bits(stored[f"{name}.whole"], rows)
    if integers.shape != (rows,) or integers.dtype != np.int64 or (whole & ~present).any():
        raise ValueError(f"{name} has integers of shape {integers.shape}")
    return NumberColumn(values, present, integers, whole)


def _text_column(stored: Mapping[str, NDArray[Any]], name: str, rows: int) -> TextColumn:
    """A column of texts, of which each is whole UTF-8."""
    offsets, data = stored[f"{name}.offsets"], stored[f"{name}.data"]
    if offsets.dtype != np.int64 or offsets.shape != (rows + 1,) or data.dtype != np.uint8 or data.ndim != 1:
        raise ValueError(f"{name} has offsets of shape {offsets.shape}, data of shape {data.shape}")
    if offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
        raise ValueError(f"{name} has offsets that do not fit its data")
    starts = offsets[:-1][np.diff(offsets) > 0]
    if (data[starts] & 0xC0 == 0x80).any():
        raise ValueError(f"{name} has a text that begins within a character")
    data.tobytes().decode("utf-8")
    return TextColumn(offsets, data, _bits(stored[f"{name}.present"], rows))


def _bits(packed: NDArray[Any], rows: int) -> NDArray[np.bool_]:
    if packed.dtype != np.uint8 or packed.shape != ((rows + 7) // 8,):
        raise ValueError(f"marks of shape {packed.shape} for {rows:,} rows")
    return np.unpackbits(packed, count=rows).astype(np.bool_)


def write_dead(folder: Path, name: str, rows: NDArray[np.int64]) -> StoredFile:
    """Write the numbers of rows that are gone."""

    def write(path: Path) -> None:
        with path.open("wb") as stream:
            np.save(stream, np.asarray(rows, dtype=np.int64))

    return store_file(folder, f"{name}-dead.npy", write)


def read_segments(folder: Path, manifest: Manifest) -> list[SegmentRows]:
    """Read all segments. A file is used only if its checksum is right and what it holds is sound.

    Raises:
        FileNotFoundError: a file is not there (a newer manifest may have replaced this one).
        FormatError: a file is damaged; the message names it.
    """
    out = []
    for segment in manifest.segments:
        shape = segment.rows, manifest.model.dimension
        vectors = _read(folder, segment.vectors, partial(_read_vectors, shape=shape))
        items = _read(folder, segment.items, partial(_read_items, rows=segment.rows))
        if len(items) != segment.rows:
            raise FormatError(
                f"{folder / segment.items.name} has {len(items):,} rows, not {segment.rows:,}", remedy=REMEDY
            )
        alive = np.ones(segment.rows, dtype=bool)
        if segment.dead is not None:
            alive[_read(folder, segment.dead, partial(_read_dead, segment=segment))] = False
        postings = None
        if segment.lexical is not None:
            terms = _read(folder, segment.lexical.terms, map_array)
            postings = _read(
                folder, segment.lexical.postings, partial(read_postings, terms=terms, documents=segment.rows)
            )
        out.append(SegmentRows(segment, items.with_columns(manifest.columns), vectors, alive, postings))
    return out


def _read_vectors(path: Path, shape: tuple[int, int]) -> Vectors:
    vectors = map_array(path)
    if vectors.dtype != np.float32 or vectors.shape != shape:
        raise ValueError(f"vectors of type {vectors.dtype} and shape {vectors.shape}, not {shape}")
    check_lengths(path, vectors)
    return vectors


def _read_dead(path: Path, segment: Segment) -> NDArray[np.int64]:
    dead = read_array(path)
    if dead.dtype != np.int64 or dead.shape != (segment.dead_rows,):
        raise ValueError(f"row numbers of type {dead.dtype} and shape {dead.shape}")
    if len(dead) and not (dead[0] >= 0 and dead[-1] < segment.rows and (np.diff(dead) > 0).all()):
        raise ValueError("row numbers that do not exist, or not in rising order")
    return dead


_Read = TypeVar("_Read")


def _read(folder: Path, file: StoredFile, reader: Callable[[Path], _Read]) -> _Read:
    path = folder / file.name
    VERIFIED.check(path, file)
    try:
        return reader(path)
    except (FileNotFoundError, LeanmatchError):
        raise
    except (ArithmeticError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path} is damaged ({type(error).__name__}: {error})"[:400], remedy=REMEDY
        ) from error
