from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmatch.data import near_duplicates as near
from leanmatch.data import normalized_text
from leanmatch.data.near_duplicates import near_pairs
from leanmatch.errors import DataError


def brute_force(texts: list[str], threshold: float) -> list[list[int]]:
    sets = [{f" {t} "[i : i + 3] for i in range(len(t))} for t in texts]
    pairs = combinations(range(len(texts)), 2)
    return [[i, j] for i, j in pairs if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold]


@settings(max_examples=60, deadline=None)
@given(
    texts=st.lists(st.text("ab \N{GRINNING FACE}\u4e2d", min_size=1, max_size=9), unique=True, max_size=14),
    threshold=st.sampled_from([0.6, 0.75, 0.9, 1.0]),
)
def test_equals_brute_force_on_small_alphabets(texts: list[str], threshold: float) -> None:
    assert near_pairs(texts, threshold).tolist() == brute_force(texts, threshold)


@pytest.mark.parametrize("block_rows", [1, 7, 4096])
def test_equals_brute_force_on_edited_texts(block_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "BLOCK_ROWS", block_rows)
    random = np.random.default_rng(0)
    words = [f"{a}{b}{c}o" for a in "bdfg" for b in "aeiou" for c in "klmn"]
    texts = [" ".join(random.choice(words, random.integers(5, 30))) for _ in range(60)]
    for text in texts[:50]:
        where = int(random.integers(len(text)))
        texts += [text[:where] + "x" + text[where + 1 :], text[:where] + text[where + 1 :], text + " again"]
    texts = list(dict.fromkeys(texts))
    expected = brute_force(texts, 0.9)
    assert len(expected) > 50
    assert near_pairs(texts).tolist() == expected


def test_edges() -> None:
    assert near_pairs([]).shape == (0, 2) and near_pairs(["a"]).shape == (0, 2)
    assert near_pairs(["aaaa", "b", "aaaaaaa"]).tolist() == [[0, 2]]


def test_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "MAX_PAIRS", 3)
    with pytest.raises(DataError, match="more than 3 pairs"):
        near_pairs(["aaa", "aaaa", "aaaaa", "aaaaaa"])


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("How  do I?", "how do i", True),
        ("\uff21\uff22\uff23 stra\u00dfe", "abc STRASSE", True),
        ("C++ sort", "C# sort", False),
        ("\N{GRINNING FACE}", "\N{PARTY POPPER}", False),
        ("\u0939\u093f", "\u0939\u0941", False),
        ("???", "!!!", False),
    ],
)
def test_normalized_text(one: str, other: str, same: bool) -> None:
    assert (normalized_text(one) == normalized_text(other)) is same
