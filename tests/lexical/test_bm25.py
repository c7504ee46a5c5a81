"""BM25 against the formula in float64, in one part and in many, with documents that are gone."""

import math
from collections import Counter

import numpy as np
import pytest

pytest.importorskip("bm25s", reason="bm25s is not installed (extra hybrid)")

from leanmatch.errors import MissingExtraError
from leanmatch.lexical import LexicalScorer, build_postings, terms
from leanmatch.lexical.bm25 import K1

WORDS = ["sony", "rx100", "case", "xj-200", "相机", "black", "16gb", "for", "the", "lens", "🎉"]


def some_texts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 8))) for _ in range(count)]


def formula(query, texts):
    """The documented formula, a document after another."""
    counted = [Counter(terms(text)) for text in texts]
    wanted = sorted(set(terms(query)))
    df = {term: sum(term in counts for counts in counted) for term in wanted}
    idf = {term: math.log(1 + (len(texts) - df[term] + 0.5) / (df[term] + 0.5)) for term in wanted}
    attainable = sum(idf.values()) / (K1 + 1)
    return [
        sum(idf[term] * counts[term] / (K1 + counts[term]) for term in wanted) / attainable if wanted else 0.0
        for counts in counted
    ]


def scorer_of(*parts):
    return LexicalScorer([(build_postings(texts), np.asarray(alive, bool)) for texts, alive in parts])


QUERIES = ["Sony XJ 200 case", "xj200", "相机 unknown words", "🎉", "the the the", "lens 16GB"]


@pytest.mark.parametrize("query", QUERIES)
def test_one_part_is_the_formula(query):
    texts = some_texts(57)
    scores = scorer_of((texts, [True] * 57))(query)
    np.testing.assert_allclose(scores, formula(query, texts), rtol=2e-6, atol=1e-7)
    assert query == "🎉" or scores.max() > 0


@pytest.mark.parametrize("query", QUERIES)
def test_parts_with_gone_documents_score_as_one_made_anew(query):
    first, second, third = some_texts(40, 1), some_texts(9, 2), ["xj-200 only here zq77"]
    alive = np.random.default_rng(3).random(40) < 0.6
    assert 0 < alive.sum() < 40
    scorer = scorer_of((first, alive), (second, [True] * 9), (third, [True]))
    left = [text for text, there in zip(first, alive, strict=True) if there] + second + third
    scores = scorer(query)
    np.testing.assert_allclose(scores, formula(query, left), rtol=2e-6, atol=1e-7)
    np.testing.assert_allclose(scores, scorer_of((left, [True] * len(left)))(query), rtol=2e-6, atol=1e-7)


def test_one_means_every_term_once():
    scores = scorer_of((["xj-200 case", "xj-200", "case", "other"], [True] * 4))("xj-200 case")
    assert scores[0] == pytest.approx(1) and 0 < scores[2] < scores[1] < 1 and scores[3] == 0


def test_nothing_there():
    assert scorer_of()("xj").shape == (0,)
    assert scorer_of(([], []))("xj").shape == (0,)
    assert scorer_of((["🎉", "!"], [True, True]))("xj").tolist() == [0, 0]
    assert scorer_of((["xj", "xk"], [False, False]))("xj").shape == (0,)


def test_shared_terms_come_rarest_first():
    scorer = scorer_of((["sony camera xj-200", "sony camera", "sony"], [True] * 3))
    assert scorer.shared("Sony XJ200 camera", "SONY camera XJ-200") == [
        "xj",
        "xj200",
        "200",
        "camera",
        "sony",
    ]
    assert scorer.shared("nothing", "sony") == []


def test_without_bm25s_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bm25s", None)
    with pytest.raises(MissingExtraError, match="hybrid") as caught:
        build_postings(["xj"])
    assert caught.value.extra == "hybrid"
