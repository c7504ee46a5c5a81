"""Approximate search over many rows: IVF with 8-bit codes, or HNSW, at an effort chosen by measured recall.

Candidates come from FAISS and are scored again in float64 from the stored vectors. Filters: see
:mod:`leanmatch.index.search.planner`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError
from leanmatch.index.search.cells import Cells
from leanmatch.index.search.scan import Rows, Scan, Selection, faiss_module, has_kernel
from leanmatch.types import Vectors

KINDS = ("auto", "exact", "ivf", "hnsw")
EXACT_LIMIT = 200_000
"""``auto`` searches exactly up to this many items."""

RECALL_AT = 10
SAMPLE_QUERIES = 256

_AIM = 0.985
_SEED = 1
_NEIGHBOURS = 32
_OVERFETCH = 8
_TRAIN_PER_CELL = 64


@dataclass(frozen=True)
class Tuned:
    """A built index with the effort that reached the wanted recall; ``shown`` is the whole curve."""

    index: Any
    kind: str
    effort: int
    recall: float
    queries: int
    shown: tuple[tuple[int, float], ...]


def check_kind(kind: str) -> str:
    """The kind, if it is one.

    Raises:
        UsageError: it is not.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown kind of index {kind!r}", remedy=f"one of: {', '.join(KINDS)}")
    return kind


def build_approximate(
    vectors: Vectors,
    kind: str,
    *,
    say: Callable[[str], None] = lambda _: None,
) -> Tuned:
    """Build an index and raise its effort until recall@10 is at least 0.98, on a sample of the rows.

    Args:
        vectors: float32 ``(rows, dimension)``.
        kind: ``ivf`` or ``hnsw``.
        say: told the recall at each effort.
    """
    faiss = faiss_module()
    rows, dimension = vectors.shape
    if kind == "ivf":
        cells = max(1, min(int(4 * math.sqrt(rows)), rows // 39 or 1))
        index = faiss.index_factory(dimension, f"IVF{cells},SQ8", faiss.METRIC_INNER_PRODUCT)
        rows_of_sample = np.sort(np.random.default_rng(_SEED).permutation(rows)[: _TRAIN_PER_CELL * cells])
        sample = np.ascontiguousarray(vectors[rows_of_sample])
        grouping = None
        if has_kernel():
            grouping = Cells.trained(sample, cells, faiss.omp_get_max_threads(), _SEED)
            index.quantizer.add(grouping.centroids)
        index.train(sample)  # the codes; the centroids too, where there are none
        del sample
        _fill(index, vectors, grouping)
    else:
        index = faiss.index_factory(dimension, f"HNSW{_NEIGHBOURS}_SQ8", faiss.METRIC_INNER_PRODUCT)
        chosen = np.random.default_rng(_SEED).permutation(rows)[:100_000]
        index.train(np.ascontiguousarray(vectors[np.sort(chosen)]))
        index.hnsw.efConstruction = 100
        _fill(index, vectors, None)
    return _tuned(index, kind, vectors, say)


def _fill(index: Any, vectors: Vectors, grouping: Cells | None) -> None:
    """Add all vectors; FAISS looks for their cells where no grouping is given."""
    swig_ptr = faiss_module().swig_ptr
    for start in range(0, len(vectors), 65_536):
        part = np.ascontiguousarray(vectors[start : start + 65_536])
        if grouping is None:
            index.add(part)
        else:
            cells = grouping.nearest(part)
            index.add_core(len(part), swig_ptr(part), None, swig_ptr(cells))


def _tuned(index: Any, kind: str, vectors: Vectors, say: Callable[[str], None]) -> Tuned:
    k = min(RECALL_AT, len(vectors))
    picked = np.random.default_rng(_SEED + 1).permutation(len(vectors))[:SAMPLE_QUERIES]
    queries = np.ascontiguousarray(vectors[picked])
    width = k + 1  # a row finds itself
    truth = _true_neighbours(vectors, queries, picked, width, k)
    most = int(index.nlist) if kind == "ivf" else max(64, min(len(vectors), 4096))
    effort, shown = (1 if kind == "ivf" else 16), []
    name = "nprobe" if kind == "ivf" else "efSearch"
    searcher = ApproximateSearch(index, kind, effort, vectors)
    while True:
        results = searcher.search(queries, width, effort=effort)
        got = [
            [row for row in rows.tolist() if row != out][:k]
            for (_, rows), out in zip(results, picked, strict=True)
        ]
        recall = float(
            np.mean([len(set(a) & set(b)) / max(1, len(b)) for a, b in zip(got, truth, strict=True)])
        )
        shown.append((effort, recall))
        say(f"{kind} {name} {effort}: recall@{k} {recall:.4f} on {len(queries)} queries")
        if recall >= _AIM or effort >= most:
            return Tuned(index, kind, effort, recall, len(queries), tuple(shown))
        effort = min(most, max(effort + 1, effort * 3 // 2))


def _true_neighbours(
    vectors: Vectors, queries: Vectors, out: NDArray[np.int64], width: int, k: int
) -> list[list[int]]:
    """Exact neighbours, scanned in float32 over all rows in parts, then ordered in float64."""
    best = [(np.zeros(0), np.zeros(0, np.int64))] * len(queries)
    for start in range(0, len(vectors), 100_000):
        part = np.ascontiguousarray(vectors[start : start + 100_000])
        results = Scan.build(part).search(queries, [width] * len(queries))
        for i, (scores, rows) in enumerate(results):
            all_scores = np.concatenate([best[i][0], scores])
            all_rows = np.concatenate([best[i][1], rows + start])
            order = np.argsort(-all_scores, kind="stable")[:width]
            best[i] = all_scores[order], all_rows[order]
    return [
        [row for row in rows.tolist() if row != skipped][:k]
        for (_, rows), skipped in zip(best, out, strict=True)
    ]


class ApproximateSearch:
    """Searching a built index. ``vectors`` are the rows that it covers, for the scores."""

    def __init__(self, index: Any, kind: str, effort: int, vectors: Vectors) -> None:
        self._index, self.kind, self.effort, self._vectors = index, kind, effort, vectors

    def __len__(self) -> int:
        return len(self._vectors)

    def search(
        self, queries: Vectors, width: int, alive: Selection | None = None, *, effort: int | None = None
    ) -> list[tuple[NDArray[np.float64], Rows]]:
        """The best ``width`` rows that are found among those alive, in the form of :meth:`Scan.search`."""
        out = []
        fetch = min(len(self), max(_OVERFETCH * width, 64))
        labels = self._labels(queries, fetch, effort or self.effort, alive)
        for query, candidates in zip(queries, labels, strict=True):
            rows = np.sort(candidates[candidates >= 0])
            scores = self._vectors[rows].astype(np.float64) @ query.astype(np.float64)
            order = np.lexsort((rows, -np.round(scores, 9)))[:width]
            out.append((scores[order], rows[order]))
        return out

    def _labels(self, queries: Vectors, fetch: int, effort: int, selection: Selection | None) -> Any:
        faiss = faiss_module()
        keep = faiss.IDSelectorBitmap(selection.bitmap) if selection is not None else None
        if self.kind == "ivf":
            options = faiss.SearchParametersIVF(nprobe=effort, sel=keep)
        else:
            options = faiss.SearchParametersHNSW(efSearch=max(effort, fetch), sel=keep)
        return self._index.search(np.ascontiguousarray(queries), fetch, params=options)[1]


def write_index(index: Any, path: Path) -> None:
    """Write a FAISS index."""
    faiss_module().write_index(index, os.fspath(path))
