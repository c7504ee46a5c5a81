"""Interactions by their definition, and measures of faithfulness on importances that are right and wrong."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leanmatch.errors import UsageError
from leanmatch.interventions import faithfulness, importance, interactions

sys.path.insert(0, str(Path(__file__).parent))
import tiny_models as models


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return models.bert(tmp_path_factory.mktemp("bert"))


def score(model, left, right):
    return float(np.dot(*model.encode([left, right])))


def test_interactions_are_what_the_definition_says(bert):
    (found,) = interactions(bert, ["usb red dock"], ["the dock"])
    assert found.words() == (["usb", "red", "dock"], ["the", "dock"])
    without = ["red dock", "usb dock", "usb red"], ["dock", "the"]
    for t, left in enumerate(without[0]):
        for u, right in enumerate(without[1]):
            expected = (
                score(bert, "usb red dock", "the dock")
                - score(bert, left, "the dock")
                - score(bert, "usb red dock", right)
                + score(bert, left, right)
            )
            assert found.values[t, u] == pytest.approx(expected, abs=1e-6)
    assert np.abs(found.values).max() > 1e-2
    effects = importance(bert, ["usb red dock"], ["the dock"]).effects
    np.testing.assert_allclose(np.r_[found.anchor_effects, found.positive_effects], effects, atol=1e-6)
    assert np.array(found.to_json()["values"]).shape == (3, 2)


def test_words_that_match_depend_on_each_other():
    def bag(texts):
        words = ["usb", "dock", "red"]
        return np.array([[text.split().count(word) for word in words] for text in texts], np.float32)

    (found,) = interactions(bag, ["usb dock"], ["dock red"])
    assert np.unravel_index(found.values.argmax(), found.values.shape) == (1, 0)


def test_a_text_with_itself_and_empty_texts(bert):
    same, empty = interactions(bert, ["usb dock", ""], ["usb dock", "red"], intervention="mask")
    np.testing.assert_allclose(same.values, same.values.T, atol=1e-6)
    assert empty.values.shape == (0, 1)
    (drawn,) = interactions(bert, ["usb"], ["red"], intervention="replace", corpus=["fast"])
    assert np.isfinite(drawn.values).all()


def test_a_right_importance_is_more_faithful_than_chance_and_than_its_reverse(bert):
    draw = np.random.default_rng(0)
    anchors = [" ".join(draw.choice(models.WHOLE, 6)) for _ in range(12)]
    positives = [" ".join(draw.choice(models.WHOLE, 5)) for _ in range(12)]
    found = importance(bert, anchors, positives)
    right = faithfulness(bert, found)
    wrong = faithfulness(bert, replace(found, effects=-found.effects))
    assert right.texts == 24
    assert right.comprehensiveness > right.removed_at_random.mean() > wrong.comprehensiveness
    assert right.sufficiency < right.kept_at_random.mean() < wrong.sufficiency
    np.testing.assert_allclose(right.removed_at_random, wrong.removed_at_random, atol=1e-6)
    assert set(right.to_json()) >= {"comprehensiveness", "sufficiency_at_random", "removed"}


def test_the_first_share_takes_the_top_word_away():
    def bag(texts):
        return np.array([[t.count("a"), t.count("b"), 1] for t in texts], np.float32)

    found = importance(bag, ["a b b"], ["a"], sides="anchor")
    curve = faithfulness(bag, found, shares=[0.1, 1.0])
    vectors = bag(["a b b", "b b", "", "a"])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = vectors @ vectors[3]
    assert curve.removed.tolist() == pytest.approx([scores[0] - scores[1], scores[0] - scores[2]])
    assert curve.kept[1] == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"intervention": "replace"}, "one of delete, mask"),
        ({"shares": []}, "above 0"),
        ({"shares": [0.0]}, "above 0"),
        ({"shares": [1.5]}, "at most 1"),
    ],
)
def test_errors(options, message):
    found = importance(models.count_letters, ["a b"], ["a"])
    with pytest.raises(UsageError, match=message):
        faithfulness(models.count_letters, found, **options)


def test_samples_and_empty_texts_cannot_be_judged():
    sampled = importance(models.count_letters, ["a b c"], ["a"], max_units=1)
    with pytest.raises(UsageError, match="leave max_units out"):
        faithfulness(models.count_letters, sampled)
    with pytest.raises(UsageError, match="no text has a unit"):
        faithfulness(models.count_letters, importance(models.count_letters, [""], [""]))
