"""Exact search over rows: an int8 pass finds candidates, float64 decides, a bound proves none is missing.

With ``q^`` and ``v^`` the int8 roundings of a query and an item (each its integers over one scale),

    |q . v - q^ . v^| <= |q - q^| max|v^| + |q| max|v - v^| = bound.

The codes give the ``F`` best rows by ``q^ . v^``; every other row scores at most the worst of them plus the
bound. Where that is below the ``width``-th best exact score found, nothing is missing; else ``F`` grows. The
codes are a quarter of the bytes, and a scan of one query is bound by bytes; queries that come together share
them. On CPUs with AVX-512 VNNI (8 queries at once) or NEON dot products (4; tested under emulation only) a
kernel of our own scans and scores what it found, on others FAISS scans for one after another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from leanmatch import native
from leanmatch.errors import MissingExtraError
from leanmatch.types import Vectors

SCORE_DECIMALS = 9
"""Scores that agree to this many decimals are a tie."""

NARROW = 1024
"""Filters that leave at most this many rows, or one in 32, are answered from a copy of those rows."""

_MARGIN = 54
_TIE_SLACK = 1e-8
_ROWS_AT_ONCE = 65_536

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """The rows that a filter leaves, in rising order, of ``total`` rows."""

    rows: Rows
    total: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def narrow(self) -> bool:
        """Is it cheaper to copy the rows out than to scan past the others?"""
        return len(self.rows) <= max(NARROW, self.total // 32)

    @cached_property
    def bitmap(self) -> NDArray[np.uint8]:
        """One bit a row, lowest bit first, as ``faiss.IDSelectorBitmap`` takes it."""
        mask = np.zeros(self.total, dtype=bool)
        mask[self.rows] = True
        return np.packbits(mask, bitorder="little")


def faiss_module() -> Any:
    """FAISS, or the error that says how to get it."""
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise MissingExtraError("faiss-cpu", "serve", "searching a catalogue") from error
    return faiss


class Codes(Protocol):
    """Rows in 8-bit codes, ``[-127, 127]``."""

    def put(self, start: int, codes: NDArray[np.int8]) -> None:
        """Take the codes of rows from ``start`` on; they come in order."""
        ...

    def best(
        self,
        queries: Vectors,
        codes: NDArray[np.int8],
        fetch: Sequence[int],
        vectors: Vectors,
        selection: Selection | None,
    ) -> Iterator[tuple[NDArray[np.float64], Rows, float]]:
        """For each query its best ``fetch`` rows by codes, with exact scores, in order.

        The third value is the least sum of codes among them: no other row's is above it.
        """
        ...


class NativeCodes:
    """Our own kernel, for AVX-512 VNNI."""

    def __init__(self, rows: int, dimension: int) -> None:
        self._codes = native.load().scan.Codes(rows, dimension)

    def put(self, start: int, codes: NDArray[np.int8]) -> None:
        """See :class:`Codes`."""
        self._codes.put(start, codes)

    def best(
        self,
        queries: Vectors,
        codes: NDArray[np.int8],
        fetch: Sequence[int],
        vectors: Vectors,
        selection: Selection | None,
    ) -> Iterator[tuple[NDArray[np.float64], Rows, float]]:
        """See :class:`Codes`."""
        shape = len(queries), max(fetch)
        scores, rows = np.empty(shape), np.empty(shape, np.int64)
        worst = np.empty(len(queries), np.int32)
        keep = None if selection is None else selection.bitmap
        rounding = 10.0**SCORE_DECIMALS
        wanted = np.asarray(fetch, np.int32)
        self._codes.search(codes, queries, wanted, vectors, keep, rounding, scores, rows, worst)
        counts = np.minimum((rows >= 0).sum(axis=1), wanted).tolist()
        for i, (count, least) in enumerate(zip(counts, worst.tolist(), strict=True)):
            yield scores[i, :count], rows[i, :count], float(least)


class FaissCodes:
    """FAISS, for all other CPUs."""

    def __init__(self, rows: int, dimension: int) -> None:
        del rows
        faiss = faiss_module()
        self._codes = faiss.IndexScalarQuantizer(
            dimension, faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
        )

    def put(self, start: int, codes: NDArray[np.int8]) -> None:
        """See :class:`Codes`."""
        del start
        self._codes.add(codes.astype(np.float32))

    def best(
        self,
        queries: Vectors,
        codes: NDArray[np.int8],
        fetch: Sequence[int],
        vectors: Vectors,
        selection: Selection | None,
    ) -> Iterator[tuple[NDArray[np.float64], Rows, float]]:
        """See :class:`Codes`."""
        sums_and_labels = self._codes.search(
            codes.astype(np.float32), max(fetch), params=_parameters(selection)
        )
        for query, sums, labels in zip(queries, *sums_and_labels, strict=True):
            rows = labels[labels >= 0]
            scores = exact_scores(query, rows, vectors)
            least = float(sums[len(rows) - 1]) if len(rows) else -np.inf
            yield (*_ordered(scores, rows, len(rows)), least)


def has_kernel() -> bool:
    """Does :class:`NativeCodes` run here?"""
    level = native.variants().get(native.load().scan.LEVEL)
    return level is not None and level.runs


class Scan:
    """Exact search over the rows of a matrix; build it with :meth:`build`."""

    def __init__(self, vectors: Vectors, codes: Codes, scale: float, residual: float, length: float) -> None:
        """Use :meth:`build`."""
        self.vectors = vectors
        self._codes, self._scale = codes, scale
        self._residual, self._length = residual, length

    @classmethod
    def build(cls, vectors: Vectors) -> Scan:
        """Quantize the rows. ``vectors``: float32 ``(rows, dimension)``, finite, kept without a copy."""
        vectors = np.asarray(vectors)  # of a mapped file the plain array: indexing numpy.memmap is slow
        peak = max((float(np.abs(part).max()) for part in _parts(vectors)), default=0.0)
        scale = 127.0 / peak if peak > 0 else 1.0
        codes: Codes = (NativeCodes if has_kernel() else FaissCodes)(*vectors.shape)
        residual = length = 0.0
        for number, part in enumerate(_parts(vectors)):
            rounded = np.rint(part * np.float32(scale))
            codes.put(number * _ROWS_AT_ONCE, rounded.astype(np.int8))
            rounded /= np.float32(scale)
            length = max(length, float(np.linalg.norm(rounded, axis=1).max()))
            residual = max(residual, float(np.linalg.norm(part - rounded, axis=1).max()))
        # the norms above are float32 sums: leave room for their rounding
        return cls(vectors, codes, scale, residual * 1.001 + 1e-6 * length, length * 1.001)

    def __len__(self) -> int:
        return int(self.vectors.shape[0])

    def search(
        self, queries: Vectors, widths: Sequence[int], selections: Sequence[Selection | None] | None = None
    ) -> list[tuple[NDArray[np.float64], Rows]]:
        """For each query its best ``width`` rows, scores in float64, higher first, ties in row order.

        Args:
            queries: float32 ``(queries, dimension)``, finite.
            widths: how many rows each query wants; more than there are gives all.
            selections: for each query the rows that may be found; None for all.
        """
        out: list[tuple[NDArray[np.float64], Rows] | None] = [None] * len(queries)
        whole = []
        for i, width in enumerate(widths):
            selection = selections[i] if selections is not None else None
            if selection is None:
                whole.append(i)
            elif selection.narrow or width >= len(selection):
                out[i] = self.best(queries[i], selection.rows, width)
            else:
                (out[i],) = self._scan(queries[i : i + 1], [width], selection)
        if whole:
            results = self._scan(queries[whole], [widths[i] for i in whole], None)
            for i, result in zip(whole, results, strict=True):
                out[i] = result
        return [result for result in out if result is not None]

    def best(self, query: Vectors, rows: Rows, width: int) -> tuple[NDArray[np.float64], Rows]:
        """The best ``width`` of the rows given: a float32 pass over a copy of them, then float64."""
        if len(rows) > 4 * width + _MARGIN:
            rough = self.vectors[rows] @ query
            cut = np.partition(rough, len(rough) - width)[len(rough) - width]
            slack = 1e-5 * max(1.0, float(np.abs(rough).max()))
            rows = rows[rough >= cut - slack]
        return _ordered(exact_scores(query, rows, self.vectors), rows, width)

    def _scan(
        self, queries: Vectors, widths: Sequence[int], selection: Selection | None
    ) -> list[tuple[NDArray[np.float64], Rows]]:
        total = len(self) if selection is None else len(selection)
        peaks = np.abs(queries).max(axis=1, keepdims=True)
        scales = np.where(peaks > 0, 127.0 / np.maximum(peaks, 1e-30), 1.0).astype(np.float32)
        rounded = np.rint(queries * scales)
        lost = np.linalg.norm(queries - rounded / scales, axis=1) * 1.001 + 1e-6
        bounds = lost * self._length + np.linalg.norm(queries, axis=1) * 1.001 * self._residual
        units = 1.0 / (scales[:, 0].astype(np.float64) * self._scale)
        codes = rounded.astype(np.int8)
        out: list[tuple[NDArray[np.float64], Rows]] = [(np.zeros(0), np.zeros(0, np.int64))] * len(queries)
        open_ = list(range(len(queries))) if total else []
        fetch = [min(total, width + _MARGIN) for width in widths]
        while open_:
            wanted = [fetch[i] for i in open_]
            candidates = self._codes.best(queries[open_], codes[open_], wanted, self.vectors, selection)
            left = []
            for i, (scores, rows, least) in zip(open_, candidates, strict=True):
                width = min(widths[i], total)
                if fetch[i] >= total or least * units[i] + bounds[i] < scores[width - 1] - _TIE_SLACK:
                    out[i] = scores[:width], rows[:width]
                else:
                    left.append(i)
                    fetch[i] = min(total, 4 * fetch[i])
            open_ = left
        return out


def exact_scores(query: Vectors, rows: Rows, vectors: Vectors) -> NDArray[np.float64]:
    """Inner products of a query with rows, in float64."""
    scores: NDArray[np.float64] = vectors[rows].astype(np.float64) @ query.astype(np.float64)
    return scores


def _parts(vectors: Vectors) -> list[Vectors]:
    return [vectors[start : start + _ROWS_AT_ONCE] for start in range(0, len(vectors), _ROWS_AT_ONCE)]


def _parameters(selection: Selection | None) -> Any:
    if selection is None:
        return None
    faiss = faiss_module()
    return faiss.SearchParameters(sel=faiss.IDSelectorBitmap(selection.bitmap))


def _ordered(scores: NDArray[np.float64], rows: Rows, width: int) -> tuple[NDArray[np.float64], Rows]:
    order = np.lexsort((rows, -np.round(scores, SCORE_DECIMALS)))[:width]
    return scores[order], rows[order].astype(np.int64)
