"""Reading FAISS files of the two kinds that leanmatch writes, after a look at each length and number in them.

FAISS allocates what a file asks for and follows the row numbers in it. So the layout is walked first: IVF
(``IwSq``: a flat list of centroids, 8-bit codes in lists) or HNSW (``IHNs``: a graph over 8-bit codes). Each
array must lie within the file, and nothing may be left over; each row must be there once.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import FormatError
from leanmatch.index.search.scan import faiss_module

_CODES_8_BIT = 0
_INNER_PRODUCT = 0
_REMEDY = "leanmatch index rebuild CATALOGUE makes it anew"


def read_index(path: Path, kind: str, rows: int, dimension: int) -> Any:
    """The FAISS index of a file.

    Args:
        path: the file.
        kind: ``ivf`` or ``hnsw``.
        rows: how many rows it must cover.
        dimension: the length of its vectors.

    Raises:
        FileNotFoundError: it is not there.
        FormatError: it is damaged, or no such index.
    """
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _Walk(data, rows, dimension).index(kind)
        return faiss_module().read_index(os.fspath(path))
    except FileNotFoundError:
        raise
    except (ValueError, OSError, RuntimeError, MemoryError, struct.error) as error:
        raise FormatError(
            f"{path} is damaged ({type(error).__name__}: {error})"[:400], remedy=_REMEDY
        ) from error


class _Walk:
    """A place in a file's bytes that moves on."""

    def __init__(self, data: mmap.mmap, rows: int, dimension: int) -> None:
        self._data, self._at = data, 0
        self._rows, self._dimension = rows, dimension

    def index(self, kind: str) -> None:
        """Walk over all of it.

        Raises:
            ValueError: something is wrong.
        """
        if kind == "ivf":
            self._ivf()
        else:
            self._hnsw()
        self._expect("bytes after the end", len(self._data) - self._at, 0)

    def _ivf(self) -> None:
        self._word(b"IwSq")
        self._header(self._rows)
        lists, _ = self._take("<QQ")
        if not 1 <= lists <= self._rows:
            raise ValueError(f"{lists:,} lists for {self._rows:,} rows")
        self._word(b"IxFI")
        self._header(lists)
        self._floats(lists * self._dimension)
        self._expect("direct map", self._take("<BQ"), (0, 0))
        self._scalar_quantizer()
        (code,) = self._take("<Q")
        self._expect("bytes of a code", code, self._dimension)
        self._take("<B")
        self._word(b"ilar")
        self._expect("lists and bytes of a code", self._take("<QQ"), (lists, self._dimension))
        sizes = self._list_sizes(lists)
        self._expect("rows in lists", int(sizes.sum()), self._rows)
        seen = np.zeros(self._rows, np.bool_)
        for size in sizes.tolist():
            self._skip(size * self._dimension)
            numbers = self._array(np.dtype("<i8"), size)
            if size and not 0 <= numbers.min() <= numbers.max() < self._rows:
                raise ValueError("a list holds a row that does not exist")
            seen[numbers] = True
        if not seen.all():
            raise ValueError("a row is in two lists")

    def _list_sizes(self, lists: int) -> NDArray[np.int64]:
        form = self._skip(4)
        if form == b"full":
            sizes = self._vector(np.dtype("<u8"))
            self._expect("sizes of lists", len(sizes), lists)
        elif form == b"sprs":
            pairs = self._vector(np.dtype("<u8"))
            numbers, some = pairs[::2], pairs[1::2]
            if len(numbers) != len(some) or (len(numbers) and numbers.max() >= lists):
                raise ValueError("sizes of lists that do not exist")
            if len(numbers) > 1 and not (np.diff(numbers.astype(np.int64)) > 0).all():
                raise ValueError("sizes of a list stand twice")
            sizes = np.zeros(lists, np.uint64)
            sizes[numbers.astype(np.int64)] = some
        else:
            raise ValueError(f"lists of the form {form!r}")
        if (sizes > self._rows).any():
            raise ValueError("a list is longer than there are rows")
        return sizes.astype(np.int64)

    def _hnsw(self) -> None:
        self._word(b"IHNs")
        self._header(self._rows)
        self._vector(np.dtype("<f8"))
        steps = self._vector(np.dtype("<i4")).astype(np.int64)
        levels = self._vector(np.dtype("<i4")).astype(np.int64)
        offsets = self._vector(np.dtype("<u8"))
        neighbours = self._vector(np.dtype("<i4"))
        entry, top, *_ = self._take("<5i")
        self._expect("levels", len(levels), self._rows)
        self._expect("offsets", len(offsets), self._rows + 1)
        if not 2 <= len(steps) <= 64 or steps[0] != 0 or not (np.diff(steps) >= 0).all():
            raise ValueError("sizes of levels that are none")
        if not 1 <= levels.min() <= levels.max() < len(steps):
            raise ValueError("levels that do not exist")
        if (offsets > len(neighbours)).any():
            raise ValueError("neighbours that do not exist")
        places = offsets.astype(np.int64)
        if (
            places[0] != 0
            or not np.array_equal(np.diff(places), steps[levels])
            or places[-1] != len(neighbours)
        ):
            raise ValueError("offsets that do not fit the levels")
        if len(neighbours) and not -1 <= neighbours.min() <= neighbours.max() < self._rows:
            raise ValueError("a neighbour that does not exist")
        for row in np.flatnonzero(levels > 1).tolist():  # one in 32
            for level in range(1, int(levels[row])):
                near = neighbours[places[row] + steps[level] : places[row] + steps[level + 1]]
                if (levels[near[near >= 0]] <= level).any():
                    raise ValueError("a neighbour that is not on its level")
        if not 0 <= entry < self._rows or levels[entry] != top + 1 or levels.max() != top + 1:
            raise ValueError("an entry that does not exist")
        self._word(b"IxSQ")
        self._header(self._rows)
        self._scalar_quantizer()
        self._expect("bytes of codes", len(self._vector(np.dtype("u1"))), self._rows * self._dimension)

    def _header(self, rows: int) -> None:
        dimension, total, _, _, trained, metric = self._take("<iqqqBi")
        self._expect("dimension", dimension, self._dimension)
        self._expect("rows", total, rows)
        self._expect("trained and metric", (trained, metric), (1, _INNER_PRODUCT))

    def _scalar_quantizer(self) -> None:
        kind, _, _, dimension, code = self._take("<iifQQ")
        self._expect("codes", (kind, dimension, code), (_CODES_8_BIT, self._dimension, self._dimension))
        self._floats(2 * self._dimension)

    def _floats(self, count: int) -> None:
        values = self._vector(np.dtype("<f4"))
        self._expect("numbers", len(values), count)
        if not np.isfinite(values).all():
            raise ValueError("numbers that are not finite")

    def _vector(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        (count,) = self._take("<Q")
        return self._array(dtype, count)

    def _array(self, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        return np.frombuffer(self._skip(count * dtype.itemsize), dtype)

    def _skip(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise ValueError(f"{count:,} bytes at {self._at:,}, beyond the end")
        start, self._at = self._at, self._at + count
        return self._data[start : self._at]

    def _take(self, form: str) -> tuple[Any, ...]:
        return struct.unpack(form, self._skip(struct.calcsize(form)))

    def _word(self, word: bytes) -> None:
        self._expect("kind of part", self._skip(4), word)

    @staticmethod
    def _expect(what: str, value: Any, wanted: Any) -> None:
        if value != wanted:
            raise ValueError(f"{what}: {value!r:.60} and not {wanted!r:.60}")
