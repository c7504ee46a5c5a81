"""Drift of word types and of parts of the data, against loops that read as the definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from leanmatch.errors import UsageError
from leanmatch.interventions import importance
from leanmatch.interventions.words.drift import Bootstrap, align, part_drift, word_drift

QUICK = Bootstrap(resamples=200)
WORDS = ["apple", "beet", "Corn", "corn", "date", "egg"]


def encoder(seed):
    table = np.random.default_rng(seed).random((26, 6))

    def encode(texts):
        return np.array([sum((table[ord(c) % 26] for c in t), np.zeros(6)) for t in texts], np.float32)

    return encode


@pytest.fixture(scope="module")
def both():
    draw = np.random.default_rng(0)
    sides = [[" ".join(draw.choice(WORDS, draw.integers(1, 5))) for _ in range(40)] for _ in range(2)]
    return importance(encoder(0), *sides), importance(encoder(1), *sides)


def test_word_types_by_hand(both):
    model, base = both
    weights = np.random.default_rng(1).random(40) + 0.5
    found = {word.word.casefold(): word for word in word_drift(model, base, weights=weights, bootstrap=QUICK)}
    assert set(found) == {"apple", "beet", "corn", "date", "egg"}
    for name, word in found.items():
        rows = [row for row, text in enumerate(model.words()) if text.casefold() == name]
        weight = weights[model.pair[rows]]
        moved = model.effects[rows] - base.effects[rows]
        assert word.count == len(rows)
        assert word.pairs == len(set(model.pair[rows].tolist()))
        assert word.difference == pytest.approx((moved * weight).sum() / weight.sum())
        assert word.base == pytest.approx((base.effects[rows] * weight).sum() / weight.sum())
        assert word.model - word.base == pytest.approx(word.difference)
        assert word.low < word.difference < word.high
        assert word.strength == max(word.low, -word.high, 0)
    strengths = [word.strength for word in word_drift(model, base, bootstrap=QUICK)]
    assert strengths == sorted(strengths, reverse=True)
    assert strengths[0] > 0, "something must have moved"


def test_intervals_of_words_cover_the_truth():
    """An effect that is added to one word is inside its interval about as often as promised."""
    draw = np.random.default_rng(0)
    model, base = (importance(encoder(0), ["apple beet"] * 30, ["egg"] * 30) for _ in range(2))
    is_apple = np.array(model.words()) == "apple"
    hits = 0
    for _ in range(100):
        noise = np.where(is_apple, 0.1 + 0.05 * draw.standard_normal(len(model)), 0.0)
        moved = replace(model, effects=base.effects + noise)
        (apple,) = [word for word in word_drift(moved, base, bootstrap=QUICK) if word.word == "apple"]
        hits += apple.low <= 0.1 <= apple.high
    assert 85 <= hits <= 99


def test_rare_words_are_left_out(both):
    model, base = both
    assert word_drift(model, base, min_pairs=1000, bootstrap=QUICK) == []


def test_parts_by_hand(both):
    model, base = both
    pairs = np.arange(5, 30)
    weights = np.random.default_rng(1).random(40) + 0.5
    found = part_drift(model, base, pairs, weights=weights, bootstrap=QUICK)
    rows = np.flatnonzero(np.isin(model.pair, pairs))
    weight = weights[model.pair[rows]]
    squares = weight * (model.effects[rows] - base.effects[rows]) ** 2
    assert found.drift.value == pytest.approx(squares.sum() / (weight * base.effects[rows] ** 2).sum())
    for name, one in (("model", model), ("base", base)):
        top = sum(
            weights[pair] * max(0.0, one.effects[one.rows(pair, side)].max())
            for pair in pairs
            for side in (0, 1)
        )
        total = sum(2 * weights[pair] * one.scores[pair] for pair in pairs)
        share = getattr(found, name)
        assert share.value == pytest.approx(top / total)
        assert share.low < share.value < share.high
    assert found.difference.value == pytest.approx(found.model.value - found.base.value)
    assert found.texts == 50


def test_a_model_against_itself_has_not_moved(both):
    model, _ = both
    found = part_drift(model, model, np.arange(40), bootstrap=QUICK)
    assert found.drift == (0.0, 0.0, 0.0)
    assert found.difference == (0.0, 0.0, 0.0)
    assert {word.strength for word in word_drift(model, model, bootstrap=QUICK)} == {0.0}


def test_sampled_texts_do_not_count_for_concentration():
    sides = ["apple beet corn", "egg"], ["date", "egg"]
    one = importance(encoder(0), *sides, max_units=2)
    found = part_drift(one, one, np.arange(2), bootstrap=QUICK)
    assert found.texts == 3


def test_nothing_to_say():
    empty = importance(encoder(0), [""], [""])
    found = part_drift(empty, empty, np.arange(1), bootstrap=QUICK)
    assert found.drift == (None, None, None) == found.model
    assert found.to_json()["drift"] == {"value": None, "low": None, "high": None}
    assert word_drift(empty, empty, bootstrap=QUICK) == []


def test_units_that_only_one_model_has_are_left_out(both):
    model, _ = both
    fewer = importance(encoder(1), model.anchors, model.positives, max_units=2)
    rows, base_rows = align(model, fewer)
    assert 0 < len(rows) == len(fewer) < len(model)
    np.testing.assert_array_equal(model.offsets[rows], fewer.offsets[base_rows])
    np.testing.assert_array_equal(model.pair[rows], fewer.pair[base_rows])


def test_errors(both):
    model, base = both
    with pytest.raises(UsageError, match="same pairs"):
        align(model, replace(base, anchors=("other",) * 40))
    with pytest.raises(UsageError, match="at least 100"):
        word_drift(model, base, bootstrap=Bootstrap(resamples=5))
    with pytest.raises(UsageError, match="between 0 and 1"):
        part_drift(model, base, np.arange(3), bootstrap=Bootstrap(confidence=1.5))
