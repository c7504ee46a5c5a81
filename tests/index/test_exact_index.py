"""Exact search against a float64 reference; ties; exclusions; refusals."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from leanmatch.errors import DataError, MissingExtraError, UsageError
from leanmatch.index import ExactIndex

pytest.importorskip("faiss", reason="faiss-cpu is not installed")


def reference(vectors, queries, k, banned=None):
    """Slow and obvious: every score in float64, a stable sort, the banned ones dropped."""
    found = []
    for row, query in enumerate(queries):
        scores = vectors.astype(np.float64) @ query.astype(np.float64)
        order = [
            i for i in np.argsort(-np.round(scores, 9), kind="stable") if i not in (banned or {}).get(row, ())
        ]
        found.append([f"i{i}" for i in order[:k]])
    return found


def vectors_of(rows, dimension, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, dimension)).astype(np.float32)


def ids_of(rows):
    return [f"i{i}" for i in range(rows)]


@pytest.mark.parametrize(
    ("items", "queries", "dimension", "k"), [(1, 1, 1, 1), (7, 3, 5, 7), (500, 131, 17, 10)]
)
def test_same_as_the_reference(items, queries, dimension, k):
    vectors, asked = vectors_of(items, dimension), vectors_of(queries, dimension, seed=1)
    scores, ids = ExactIndex.build(vectors, ids_of(items)).search(asked, k)
    assert scores.shape == ids.shape == (queries, k)
    assert ids.tolist() == reference(vectors, asked, k)
    assert (np.diff(scores, axis=1) <= 1e-9).all()
    assert scores[0, 0] == pytest.approx((vectors.astype(np.float64) @ asked[0]).max(), abs=1e-6)


def test_ties_stand_in_the_order_of_the_catalogue():
    vectors = np.repeat(vectors_of(3, 8), 200, axis=0)  # 200 copies of each of 3 rows
    vectors = vectors[np.random.default_rng(2).permutation(600)]
    asked = vectors_of(5, 8, seed=3)
    index = ExactIndex.build(vectors, ids_of(600))
    for k in (1, 30, 250):
        assert index.search(asked, k)[1].tolist() == reference(vectors, asked, k)
        assert index.search(asked[:1], k)[1].tolist() == reference(vectors, asked[:1], k)


def test_all_the_same():
    index = ExactIndex.build(np.ones((3000, 4)), ids_of(3000))
    assert index.search(np.ones((2, 4)), 3)[1].tolist() == [["i0", "i1", "i2"]] * 2


def test_zero_query_gives_the_first_items():
    assert ExactIndex.build(vectors_of(50, 4), ids_of(50)).search(np.zeros((1, 4)), 2)[1].tolist() == [
        ["i0", "i1"]
    ]


def test_k_beyond_the_catalogue():
    scores, ids = ExactIndex.build(np.eye(3), ids_of(3)).search(np.eye(3)[:1], 100)
    assert scores.shape == (1, 3) and set(ids[0]) == {"i0", "i1", "i2"}


def test_exclusions():
    vectors, asked = vectors_of(100, 6), vectors_of(70, 6, seed=1)
    banned = {row: set(range(row)) for row in range(70)}
    exclude = [{f"i{i}" for i in banned[row]} | {"unknown"} for row in range(70)]
    _, ids = ExactIndex.build(vectors, ids_of(100)).search(asked, 20, exclude=exclude)
    assert ids.tolist() == reference(vectors, asked, 20, banned)


def test_exclusions_that_leave_too_few():
    scores, ids = ExactIndex.build(np.eye(3), ids_of(3)).search([[0.0, 2.0, 1.0]], 3, exclude=[["i1", "i0"]])
    assert ids.tolist() == [["i2", None, None]] and scores.tolist() == [[1.0, -np.inf, -np.inf]]


def test_no_queries():
    scores, ids = ExactIndex.build(np.eye(3), ids_of(3)).search(np.zeros((0, 3)), 2)
    assert scores.shape == ids.shape == (0, 2)


@pytest.mark.parametrize(
    ("vectors", "ids", "message"),
    [
        (np.zeros((0, 3)), [], "no items"),
        (np.zeros(3), ["a", "b", "c"], r"shape \(3,\)"),
        (np.zeros((2, 0)), ["a", "b"], "shape"),
        ([[1.0, np.nan], [1.0, 1.0]], ["a", "b"], "1 of 2 rows hold NaN"),
        ([[1.0, 1.0], [np.inf, 1.0]], ["a", "b"], "row 2"),
        (np.eye(2), ["a"], "1 identifiers for 2 vectors"),
        (np.eye(3), ["a", "b", "a"], r"rows 1 and 3 .*'a'"),
    ],
)
def test_bad_catalogues(vectors, ids, message):
    with pytest.raises(DataError, match=message):
        ExactIndex.build(vectors, ids)


def test_bad_queries():
    index = ExactIndex.build(np.eye(3), ids_of(3))
    with pytest.raises(DataError, match=r"shape \(1, 4\), not \(rows, 3\)"):
        index.search(np.zeros((1, 4)), 1)
    with pytest.raises(DataError, match="NaN"):
        index.search([[0, np.nan, 0]], 1)
    with pytest.raises(DataError, match="exclude has 2 entries for 1 queries"):
        index.search(np.eye(3)[:1], 1, exclude=[[], []])
    with pytest.raises(UsageError, match="k is 0"):
        index.search(np.eye(3), 0)


def test_missing_faiss(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setenv("LEANMATCH_CPU", "portable")  # our own kernel needs no faiss
    with pytest.raises(MissingExtraError, match="faiss-cpu"):
        ExactIndex.build(np.eye(2), ["a", "b"])
