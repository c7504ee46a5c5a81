"""Words in the user's own text, and pieces put together to them."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmatch.interventions import split_words
from leanmatch.interventions.words.splitting import _split_unicode, token_units


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        (" \t\n\x00", []),
        ("Don't stop", ["Don't", "stop"]),
        ("rock 'n' roll.", ["rock", "'", "n", "'", "roll", "."]),
        ("1,000.50 a.b x_y 5.", ["1,000.50", "a", ".", "b", "x", "_", "y", "5", "."]),
        (
            "Caf\u00e9 cafe\u0301 \u0939\u093f\u0928\u094d\u0926\u0940",
            ["Caf\u00e9", "cafe\u0301", "\u0939\u093f\u0928\u094d\u0926\u0940"],
        ),
        (
            "a\U0001f469\u200d\U0001f680b \U0001f44d\U0001f3fd!",
            ["a", "\U0001f469\u200d\U0001f680", "b", "\U0001f44d\U0001f3fd", "!"],
        ),
        (
            "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7 \u260e\ufe0f",
            ["\U0001f1e9\U0001f1ea", "\U0001f1eb\U0001f1f7", "\u260e\ufe0f"],
        ),
        ("\u4e2d\u6587 \u30ab\u30bf", ["\u4e2d", "\u6587", "\u30ab\u30bf"]),
        ("don\u2019t", ["don\u2019t"]),
    ],
)
def test_words(text, words):
    assert [text[a:b] for a, b in split_words(text)] == words


@given(st.text(st.sampled_from("aZ19'., -_\t\x07"), max_size=14))
@settings(max_examples=150, deadline=None)
def test_the_ascii_path_finds_what_the_general_one_finds(text):
    assert [tuple(span) for span in split_words(text).tolist()] == _split_unicode(text)


@given(st.text(max_size=30))
@settings(max_examples=150, deadline=None)
def test_words_cover_everything_visible_once(text):
    spans = split_words(text)
    assert (spans[:, 0] < spans[:, 1]).all()
    assert (spans[1:, 0] >= spans[:-1, 1]).all()
    covered = set()
    for a, b in spans.tolist():
        covered.update(range(a, b))
    outside = [c for i, c in enumerate(text) if i not in covered]
    assert all(c.isspace() or unicodedata.category(c) == "Cc" for c in outside)


def units(text, offsets, unit="word", editable=None):
    found = np.array(offsets).reshape(-1, 2)
    allowed = np.ones(len(found), bool) if editable is None else np.array(editable)
    return [(text[u.start : u.end], u.pieces) for u in token_units(text, found, allowed, unit)]


def test_pieces_join_to_words_and_special_tokens_stay_out():
    text = "Unbelievable caf\u00e9!"
    offsets = [(0, 0), (0, 2), (2, 8), (8, 12), (13, 17), (17, 18), (0, 0)]
    editable = [False, *[True] * 5, False]
    assert units(text, offsets, editable=editable) == [
        ("Unbelievable", (1, 2, 3)),
        ("caf\u00e9", (4,)),
        ("!", (5,)),
    ]
    tokens = units(text, offsets, "token", editable)
    assert tokens == [("Un", (1,)), ("believ", (2,)), ("able", (3,)), ("caf\u00e9", (4,)), ("!", (5,))]


def test_a_word_is_whole_although_the_tokenizer_drops_its_marks():
    text = "cafe\u0301 x"  # the piece covers "cafe" without the accent
    assert units(text, [(0, 4), (6, 7)]) == [("cafe\u0301", (0,)), ("x", (1,))]


def test_bytes_of_an_emoji_are_one_unit():
    text = "go \U0001f680"
    assert units(text, [(0, 2), (2, 4), (3, 4), (3, 4)]) == [("go", (0,)), ("\U0001f680", (1, 2, 3))]


def test_a_piece_over_two_words_makes_them_one():
    assert units("dock, usb", [(0, 5), (6, 9)]) == [("dock,", (0,)), ("usb", (1,))]
    assert units("a-b c", [(0, 2), (1, 3), (4, 5)]) == [("a-b", (0, 1)), ("c", (2,))]


def test_a_bare_space_goes_with_the_next_word():
    assert units("a \u4e2d", [(0, 1), (1, 2), (2, 3)]) == [("a", (0,)), ("\u4e2d", (1, 2))]
    assert units("a ", [(0, 1), (1, 2)]) == [("a", (0, 1))]
    assert units("  ", [(0, 1)]) == [("", (0,))]
