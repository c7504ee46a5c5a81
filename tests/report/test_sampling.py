"""Which rows a diagnosis looks at."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.data import PairTable
from leanmatch.errors import UsageError
from leanmatch.interventions import as_readers
from leanmatch.metrics import EvaluationOptions
from leanmatch.metrics.slices import make_slices
from leanmatch.report import DiagnoseOptions
from leanmatch.report.pairs import Remembering, ranks_of, scores_of, worth_looking_at
from leanmatch.report.sampling import sample_pairs, sample_rows, strata_of


def encode(texts):
    vectors = np.array([[text.count(c) + 0.01 for c in "abcdef"] for text in texts], np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def table():
    rows = 400
    return PairTable.from_columns(
        {
            "anchor": [f"a b {'c ' * (i % 5)}x{i}" for i in range(rows)],
            "positive": [f"d e y{i}" for i in range(rows)],
            "label": [0 if i % 4 == 3 else 1 for i in range(rows)],
            "site": ["small" if i % 10 == 0 else "large" for i in range(rows)],
        }
    )


@pytest.fixture
def strata(table):
    return strata_of(
        make_slices(table, EvaluationOptions(slices=("site",), hold_out=("site=small",))), len(table)
    )


def drawn(table, strata, **options):
    settings = {"max_pairs": 60, "max_words": 24, "budget": 10**9, "seed": 0} | options
    texts = table.anchors, table.positives
    return sample_pairs(as_readers(encode), texts, np.flatnonzero(table.labels == 1), strata, **settings)


def test_strata_follow_the_slices(strata, table):
    assert len(np.unique(strata)) == 2
    assert len(set(strata[::10].tolist())) == 1
    assert (strata_of(make_slices(table, EvaluationOptions()), len(table)) == 0).all()


def test_rows_are_drawn_in_proportion(strata):
    rows = sample_rows(strata, 100, seed=0)
    assert len(set(rows.tolist())) == 100
    assert (np.diff(rows) > 0).all()
    assert np.count_nonzero(rows % 10 == 0) == 10
    assert not np.array_equal(rows, sample_rows(strata, 100, seed=1))
    assert len(sample_rows(strata, 1000, seed=0)) == 400


def test_pairs_are_drawn_alike_from_every_part_and_weighted(table, strata):
    sample = drawn(table, strata)
    small = sample.rows % 10 == 0
    assert (np.count_nonzero(small), np.count_nonzero(~small)) == (30, 30)
    assert (table.labels[sample.rows] == 1).all()
    matching = table.labels == 1
    assert sample.weights[small].sum() == pytest.approx(np.count_nonzero(matching[::10]))
    assert sample.weights.sum() == pytest.approx(np.count_nonzero(matching))
    assert "60 of 300 matching pairs, 30 to 30 from each of 2 parts" in sample.sentence


def test_the_budget_ends_the_sample(table, strata):
    sample = drawn(table, strata, budget=2000)
    cost = sum(
        len(text) * len(text.split())
        for row in sample.rows
        for text in (table.anchors[row], table.positives[row])
    )
    assert 0 < len(sample.rows) < 60
    assert cost <= 2000
    assert "budget of 2,000" in sample.sentence
    assert len(drawn(table, strata, budget=1).rows) == 1, "one pair is always looked at"


def test_all_pairs_where_there_are_few(table, strata):
    sample = drawn(table, strata, max_pairs=1000)
    assert sample.sentence == "words: all 300 matching pairs"
    assert (sample.weights == 1).all()


def test_texts_are_encoded_once():
    calls = []
    remembering = Remembering(lambda texts: calls.append(list(texts)) or encode(texts), name="m")
    first = remembering.encode_query(["a", "b", "a"])
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(remembering.encode_document(["b", "c"])[0], first[1])
    assert calls == [["a", "b"], ["c"]]


@pytest.mark.parametrize("symmetric", [False, True])
def test_ranks_by_hand(symmetric):
    draw = np.random.default_rng(0)
    texts = ["".join(draw.choice(list("abcdef"), 5)) for _ in range(24)]
    table = PairTable.from_columns(
        {"anchor": texts[:12], "positive": texts[8:20], "label": [1] * 10 + [0, 0]}
    )
    ranks = ranks_of(encode, table, symmetric)
    candidates = set(table.positives) | (set(table.anchors) if symmetric else set())
    for row, (anchor, positive) in enumerate(zip(table.anchors, table.positives, strict=True)):
        if table.labels[row] == 0:
            assert ranks[row] == 0
            continue
        aside = {p for a, p in zip(table.anchors, table.positives, strict=True) if a == anchor}
        aside |= {anchor} if symmetric else set()
        own, others = encode([anchor])[0], sorted(candidates - aside)
        mine = float(own @ encode([positive])[0])
        assert ranks[row] == 1 + sum(float(own @ vector) > mine + 1e-6 for vector in encode(others))
    assert len(set(ranks.tolist())) > 3
    np.testing.assert_allclose(
        scores_of(encode, table), (encode(table.anchors) * encode(table.positives)).sum(axis=1), atol=1e-6
    )


def test_pairs_worth_looking_at():
    labels = np.array([1, 1, 1, 0, 1, 1], np.int8)
    base = np.zeros(6)
    scores = np.array([-0.5, 0.4, 0.0, 0.3, 0.1, 0.0])
    ranks, base_ranks = np.array([1, 1, 9, 0, 1, 1]), np.ones(6, np.int64)
    chosen = worth_looking_at(labels, scores, base, ranks, base_ranks, most=5, usual=np.array([5, 4]))
    assert chosen == {0: "lost score", 3: "lost score", 2: "lost rank", 1: "gained", 5: "sample"}


@pytest.mark.parametrize("name", ["max_rows", "max_pairs", "budget", "max_words", "min_pairs", "shown"])
def test_options_out_of_range(name):
    with pytest.raises(UsageError, match=f"{name} is 0"):
        DiagnoseOptions(**{name: 0})


def test_unknown_intervention():
    with pytest.raises(UsageError, match="one of mask, delete, replace"):
        DiagnoseOptions(intervention="swap")
