"""What agreement says of the metric: exact cases, and its interval against the truth of many queries."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.compression.planner import evidence as module
from leanmatch.compression.planner.evidence import Judgement, amplify, kept_by_agreement, moved, overlap
from leanmatch.metrics.encoding import SideVectors


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def same(vectors):
    return SideVectors(vectors, vectors)


def test_a_move_of_1_is_the_model_itself_and_longer_ones_go_further():
    rng = np.random.default_rng(0)
    dense = unit(rng.standard_normal((50, 16)))
    compressed = unit(dense + 0.1 * rng.standard_normal(dense.shape))
    np.testing.assert_allclose(amplify(same(dense), same(compressed), 1.0).queries, compressed, atol=1e-6)
    moves = [moved(same(dense), amplify(same(dense), same(compressed), a)) for a in (0.0, 1.0, 2.0, 4.0)]
    assert moves[0] == pytest.approx(0, abs=1e-6) and moves == sorted(moves) and moves[2] > 3 * moves[1]


def test_queries_and_documents_of_their_own():
    rng = np.random.default_rng(0)
    sides = [unit(rng.standard_normal((6, 8))) for _ in range(4)]
    sides[0][:3] = sides[2][:3] = 0  # never a query
    dense, other = SideVectors(*sides[:2]), SideVectors(*sides[2:])
    lost = [1 - float(a @ b) for a, b in zip(sides[0][3:], sides[2][3:], strict=True)]
    lost += [1 - float(a @ b) for a, b in zip(sides[1], sides[3], strict=True)]
    assert moved(dense, other) == pytest.approx(np.mean(lost), abs=1e-6)
    assert np.isfinite(amplify(dense, other, 3.0).queries).all()


def test_overlap_counts_what_both_find():
    found = np.array([[1, 2, 3], [4, 5, -1]])
    assert overlap(found, found) == 1.0
    assert overlap(found, np.array([[3, 9, 8], [5, 4, -1]])) == pytest.approx((1 / 3 + 1) / 2)


def test_an_equal_model_keeps_everything():
    dense = np.random.default_rng(0).random(100)
    assert kept_by_agreement(dense, [dense] * 5, [0.0] * 5) is None
    kept, low, high = kept_by_agreement(dense, [dense] * 5, [0.01, 0.02, 0.04, 0.09, 0.16])
    assert (kept, low, high) == (1.0, 1.0, 1.0)


def test_a_loss_in_proportion_to_the_move_is_found_exactly():
    moves = np.array([0.01, 0.02, 0.04, 0.09, 0.16])
    dense = np.full(40, 0.5)
    kept, low, high = kept_by_agreement(dense, [dense * (1 - 0.8 * move) for move in moves], moves)
    assert (
        kept == pytest.approx(1 - 0.8 * 0.01) and low == pytest.approx(kept) and high == pytest.approx(kept)
    )


def retrieval(queries, seed, error):
    """Texts in pairs, a model that moves their vectors at random, and the score of each query."""
    rng = np.random.default_rng(seed)
    documents = unit(rng.standard_normal((queries, 24)))
    dense = np.concatenate([unit(documents + 0.24 * rng.standard_normal(documents.shape)), documents])
    compressed = unit(dense + error * rng.standard_normal(dense.shape))

    def values(vectors):
        scores = vectors.queries[:queries] @ vectors.documents[queries:].T
        rank = (scores > np.diag(scores)[:, None]).sum(axis=1)
        return np.where(rank < 10, 1 / (rank + 1.0), 0.0)

    def neighbours(vectors, k):
        return np.argsort(-(vectors.queries[:queries] @ vectors.documents[queries:].T), axis=1)[:, :k]

    made = [Judgement(values(same(vectors)), same(vectors)) for vectors in (dense, compressed)]
    return made, values, neighbours


def test_the_interval_is_narrower_than_that_of_ranks_and_holds_the_truth():
    """120 queries at a time; the truth is the mean over many such draws from the same world."""
    from leanmatch.compression.planner.quality import compare

    direct, agreed = [], []
    for seed in range(24):
        (dense, compressed), values, neighbours = retrieval(120, seed, 0.05)
        found = module.gather(dense, compressed, values, neighbours)
        assert 0 < found["moved"] < 0.1 and 0.5 < found["overlap"] < 1 and found["rank_correlation"] > 0.9
        quality = compare("MRR@10", dense.scores, compressed.scores)
        direct.append((quality.kept, quality.low, quality.high))
        agreed.append((found["kept"], found["low"], found["high"]))
    truth = np.mean([kept for kept, _, _ in direct])
    widths = [np.mean([high - low for _, low, high in rows]) for rows in (direct, agreed)]
    assert widths[1] < 0.85 * widths[0], widths
    inside = sum(low <= truth <= high for _, low, high in agreed)
    assert inside >= 18, (truth, agreed)


def test_tasks_without_vectors_have_no_evidence():
    scores = Judgement(np.ones(3))
    assert module.gather(scores, scores, None, None) is None
