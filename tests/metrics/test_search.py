"""Exact search: against a full stable sort, with ties, exclusions and small blocks."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.errors import LeanmatchError
from leanmatch.metrics.ranking.search import Exclusions, top_k


def slow(queries, candidates, k, banned=frozenset()):
    scores = (queries @ candidates.T).tolist()
    found = []
    for query, row in enumerate(scores):
        kept = [c for c in range(len(row)) if (query, c) not in banned]
        found.append(sorted(kept, key=lambda c: (-row[c], c))[:k])
    return found


def trimmed(indices):
    return [[i for i in row if i >= 0] for row in indices.tolist()]


@pytest.mark.parametrize("block_bytes", [1, 400, 2**25])
@pytest.mark.parametrize(("n", "m", "k"), [(1, 1, 1), (7, 5, 3), (33, 65, 64), (20, 40, 100)])
def test_equals_a_full_sort_with_ties(n, m, k, block_bytes):
    rng = np.random.default_rng(n)
    # Small whole numbers: products are exact and ties abound.
    queries = rng.integers(-1, 2, (n, 3)).astype(np.float32)
    candidates = rng.integers(-1, 2, (m, 3)).astype(np.float32)
    if m > 30:
        assert len(np.unique(queries @ candidates.T)) < m, "no ties: the test would prove little"
    pairs = np.argwhere(rng.random((n, m)) < 0.2)[::-1]
    found = top_k(
        queries, candidates, k, exclude=Exclusions(pairs[:, 0], pairs[:, 1]), block_bytes=block_bytes
    )
    assert trimmed(found.indices) == slow(queries, candidates, k, {tuple(pair) for pair in pairs.tolist()})
    expected = np.take_along_axis(queries @ candidates.T, np.maximum(found.indices, 0), axis=1)
    assert np.array_equal(found.scores, np.where(found.indices < 0, -np.inf, expected))


def test_constant_vectors_come_in_index_order():
    vectors = np.ones((5, 2), np.float32)
    assert top_k(vectors, vectors, 3).indices.tolist() == [[0, 1, 2]] * 5


def test_no_queries_and_no_candidates():
    some, none = np.ones((2, 3), np.float32), np.ones((0, 3), np.float32)
    assert top_k(none, some, 2).indices.shape == (0, 2)
    assert top_k(some, none, 2).indices.shape == (2, 0)


def test_everything_excluded():
    one = np.ones((1, 2), np.float32)
    found = top_k(one, one, 1, exclude=Exclusions(np.array([0]), np.array([0])))
    assert found.indices.tolist() == [[-1]]
    assert found.scores.tolist() == [[-np.inf]]


def test_refuses_k_below_one_and_other_dimensions():
    with pytest.raises(LeanmatchError, match="k is 0"):
        top_k(np.ones((1, 2), np.float32), np.ones((1, 2), np.float32), 0)
    with pytest.raises(LeanmatchError, match=r"\(1, 2\).*\(1, 3\)"):
        top_k(np.ones((1, 2), np.float32), np.ones((1, 3), np.float32), 1)
