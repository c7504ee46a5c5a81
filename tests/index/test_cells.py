"""Cells of an IVF index by 8-bit codes: the nearest centroid, k-means, and the index that comes out."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("faiss", reason="faiss is not installed")

from leanmatch.index.search import approximate
from leanmatch.index.search.approximate import ApproximateSearch, build_approximate, write_index
from leanmatch.index.search.cells import Cells
from leanmatch.index.search.faiss_files import read_index
from leanmatch.index.search.scan import has_kernel

needs_kernel = pytest.mark.skipif(not has_kernel(), reason="this CPU has no kernel for 8-bit codes")


def unit(rows, dimension, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@needs_kernel
@pytest.mark.parametrize(
    "rows, cells, dimension", [(1, 1, 1), (3, 2, 5), (500, 17, 33), (4_097, 300, 64), (0, 4, 8)]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_nearest_cell_is_that_of_an_exact_comparison(rows, cells, dimension, threads):
    vectors, centroids = unit(rows, dimension), unit(cells, dimension, seed=1)
    nearest = Cells(centroids, threads).nearest(vectors)
    scores = vectors.astype(np.float64) @ centroids.astype(np.float64).T
    assert nearest.dtype == np.int64 and nearest.shape == (rows,)
    assert (nearest == scores.argmax(axis=1)).sum() >= 0.998 * rows


@needs_kernel
def test_k_means_finds_clusters_that_lie_apart():
    centres = unit(20, 48, seed=2)
    member = np.random.default_rng(3).integers(0, 20, 4_000)
    sample = centres[member] + 0.02 * unit(4_000, 48, seed=4)
    sample /= np.linalg.norm(sample, axis=1, keepdims=True)
    grouping = Cells.trained(sample, 80, 2, seed=1)
    assert np.allclose(np.linalg.norm(grouping.centroids, axis=1), 1, atol=1e-5)
    cells = grouping.nearest(sample)
    assert len(set(cells.tolist())) > 40
    shared = [len(set(member[cells == cell].tolist())) for cell in set(cells.tolist())]
    assert np.mean(np.array(shared) == 1) > 0.95  # a cell lies within one cluster
    again = Cells.trained(sample, 80, 1, seed=1)
    assert np.array_equal(again.centroids, grouping.centroids)


@needs_kernel
def test_a_sample_of_one_vector_many_times_gives_finite_centroids():
    sample = np.repeat(unit(1, 12), 50, axis=0)
    grouping = Cells.trained(sample, 10, 1, seed=1)
    assert np.allclose(grouping.centroids, sample[:10], atol=1e-6)


@pytest.mark.parametrize("kernel", [pytest.param(True, marks=needs_kernel), False])
def test_an_index_with_and_without_the_kernel(tmp_path, monkeypatch, kernel):
    """Every row is in one list, and the index finds what it says."""
    calls = []
    monkeypatch.setattr(approximate, "has_kernel", lambda: calls.append(kernel) or kernel)
    vectors = unit(3_001, 24)
    built = build_approximate(vectors, "ivf")
    assert calls == [kernel] and built.recall >= 0.98 and built.effort < built.index.nlist
    write_index(built.index, tmp_path / "i")
    index = read_index(tmp_path / "i", "ivf", 3_001, 24)
    found = ApproximateSearch(index, "ivf", built.effort, vectors).search(vectors[:200], 10)
    exact = np.argsort(-(vectors[:200] @ vectors.T), axis=1)[:, :10]
    shared = [
        len(set(rows.tolist()) & set(best)) for (_, rows), best in zip(found, exact.tolist(), strict=True)
    ]
    assert np.mean(shared) >= 9.5
