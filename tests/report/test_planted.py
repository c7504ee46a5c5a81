"""The planted case: a word that always marks a match is found, and ITVReg holds it back."""

from __future__ import annotations

import numpy as np
import report_models as planted


def auc(diagnosis):
    return diagnosis.evaluation.slices["overall"].metrics["AUC"]


def test_the_case_bites(plain):
    assert auc(plain).base < 0.55, "the base has no way to tell"
    assert auc(plain).value > 0.65, "the shortcut was learned"


def test_the_marker_comes_first(plain):
    first = plain.words[0]
    assert first.word == planted.MARKER
    assert plain.gained()[0] is first
    assert first.low > 0.04 > first.base
    assert len(plain.words) > 10


def test_itvreg_lowers_it(plain, regularized):
    found = {
        name: next(w for w in d.words if w.word == planted.MARKER)
        for name, d in (("plain", plain), ("itv", regularized))
    }
    assert found["itv"].high < found["plain"].low
    assert found["itv"].difference < 0.75 * found["plain"].difference
    for part in plain.parts:
        assert regularized.parts[part].drift.high < plain.parts[part].drift.low, part


def test_parts_and_sampling(plain, table):
    assert set(plain.parts) == {
        "overall",
        "in distribution",
        "out of distribution",
        "site=books",
        "site=toys",
    }
    assert plain.parts["overall"].pairs == 80
    assert plain.parts["site=toys"].pairs == 40
    assert plain.sampling[:2] == (
        "rows: all 160 rows (there is no column 'split')",
        "words: all 80 matching pairs",
    )
    assert (
        plain.faithfulness["model"].comprehensiveness > plain.faithfulness["model"].removed_at_random.mean()
    )


def test_the_explorer_has_the_worst_first(plain, table):
    gains = [pair.gain for pair in plain.pairs]
    assert len(gains) == 60
    assert gains == sorted(gains)
    assert {pair.why for pair in plain.pairs} == {"lost score", "lost rank", "gained", "sample"}
    worst = plain.pairs[0]
    assert worst.anchor.text == table.anchors[worst.row]
    assert worst.gain == (worst.score - worst.base_score) * (1 if worst.label else -1)
    assert (worst.rank is None) == (worst.label == 0)
    assert any(name.startswith("site=") for name in worst.slices)


def test_effects_shown_are_those_of_the_pair(plain, base):
    from leanmatch.interventions import importance

    pair = plain.pairs[5]
    found = importance(base, [pair.anchor.text], [pair.positive.text], sides="anchor")
    np.testing.assert_allclose([unit.effect for unit in pair.anchor.units["base"]], found.effects, atol=1e-6)
    assert pair.base_score == np.float64(pair.base_score)
    np.testing.assert_allclose(pair.base_score, found.scores[0], atol=1e-6)


def test_json_is_json(plain):
    import json

    found = json.loads(json.dumps(plain.to_json(), allow_nan=False))
    assert found["words"][0]["word"] == planted.MARKER
    assert found["parts"]["overall"]["drift"]["value"] == plain.parts["overall"].drift.value
    assert found["pairs"][0]["anchor"]["units"]["model"][0].keys() == {"text", "start", "end", "effect"}
    assert found["evaluation"]["slices"][0]["name"] == "overall"
