"""Exact search over rows: an int8 pass finds candidates, float64 decides, a bound proves none is missing.

With ``q^`` and ``v^`` the int8 roundings of a query and an item (each its integers over one scale),

    |q . v - q^ . v^| <= |q - q^| max|v^| + |q| max|v - v^| = bound.

FAISS returns the ``F`` best rows by ``q^ . v^``; every other row scores at most the worst of them plus the
bound. Where that is below the ``width``-th best exact score found, nothing is missing; else ``F`` grows. The
codes are a quarter of the bytes, and a scan is bound by bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


class Scan:
    """Exact search over the rows of a matrix; build it with :meth:`build`."""

    def __init__(self, vectors: Vectors, codes: Any, scale: float, residual: float, length: float) -> None:
        """Use :meth:`build`."""
        self.vectors = vectors
        self._codes, self._scale = codes, scale
        self._residual, self._length = residual, length

    @classmethod
    def build(cls, vectors: Vectors) -> Scan:
        """Quantize the rows. ``vectors``: float32 ``(rows, dimension)``, finite, kept without a copy."""
        faiss = faiss_module()
        peak = max((float(np.abs(part).max()) for part in _parts(vectors)), default=0.0)
        scale = 127.0 / peak if peak > 0 else 1.0
        codes = faiss.IndexScalarQuantizer(
            vectors.shape[1], faiss.ScalarQuantizer.QT_8bit_direct_signed, faiss.METRIC_INNER_PRODUCT
        )
        residual = length = 0.0
        for part in _parts(vectors):
            rounded = np.rint(part * np.float32(scale))
            codes.add(rounded)
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
            found = self._scan(queries[whole], [widths[i] for i in whole], None)
            for i, result in zip(whole, found, strict=True):
                out[i] = result
        return [one for one in out if one is not None]

    def best(self, query: Vectors, rows: Rows, width: int) -> tuple[NDArray[np.float64], Rows]:
        """The best ``width`` of the rows given: a float32 pass over a copy of them, then float64."""
        if len(rows) > 4 * width + _MARGIN:
            rough = self.vectors[rows] @ query
            cut = np.partition(rough, len(rough) - width)[len(rough) - width]
            slack = 1e-5 * max(1.0, float(np.abs(rough).max()))
            rows = rows[rough >= cut - slack]
        scores = self._exact(query, rows)
        return _ordered(scores, rows, width)

    def _exact(self, query: Vectors, rows: Rows) -> NDArray[np.float64]:
        exact: NDArray[np.float64] = self.vectors[rows].astype(np.float64) @ query.astype(np.float64)
        return exact

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
        out: list[tuple[NDArray[np.float64], Rows]] = [(np.zeros(0), np.zeros(0, np.int64))] * len(queries)
        open_ = list(range(len(queries)))
        fetch = min(total, max(widths, default=0) + _MARGIN)
        while open_:
            rough, found = self._codes.search(rounded[open_], fetch, params=_parameters(selection))
            left = []
            for i, values, labels in zip(open_, rough, found, strict=True):
                width = min(widths[i], total)
                rows = labels[labels >= 0]
                scores = self._exact(queries[i], rows)
                result = _ordered(scores, rows, width)
                unseen = float(values[len(rows) - 1]) * units[i] + bounds[i] if len(rows) else -np.inf
                if fetch >= total or unseen < result[0][-1] - _TIE_SLACK:
                    out[i] = result
                else:
                    left.append(i)
            open_, fetch = left, min(total, 4 * fetch)
        return out


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
