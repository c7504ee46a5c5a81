"""Token edits, against what a loop over tokens would do."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmatch.errors import ModelError, UsageError
from leanmatch.interventions import INTERVENTIONS, UNITS, TokenVocabulary, edit_texts

PAD, CLS, SEP, MASK = 0, 1, 2, 3
TOKENS = {
    "[PAD]": 0,
    "[CLS]": 1,
    "[SEP]": 2,
    "[MASK]": 3,
    "un": 4,
    "##believ": 5,
    "##able": 6,
    "red": 7,
    "fox": 8,
}
VOCABULARY = TokenVocabulary.build(TOKENS, special_ids=[PAD, CLS, SEP, MASK], mask_id=MASK, pad_id=PAD)

texts = st.lists(st.lists(st.integers(4, 8), max_size=7), min_size=1, max_size=6)


def padded(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    framed = [[CLS, *row, SEP] for row in rows]
    width = max(map(len, framed)) + 1
    return {
        "input_ids": torch.tensor([row + [PAD] * (width - len(row)) for row in framed]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in framed]),
        "token_type_ids": torch.zeros(len(rows), width, dtype=torch.long),
        "modality": "text",
    }


def bag(rows: list[list[int]]) -> dict[str, torch.Tensor]:
    offsets = [0]
    for row in rows[:-1]:
        offsets.append(offsets[-1] + len(row))
    return {
        "input_ids": torch.tensor([t for row in rows for t in row], dtype=torch.long),
        "offsets": torch.tensor(offsets),
    }


def unpack(features: dict[str, torch.Tensor]) -> list[list[int]]:
    """Token ids of every text, without padding."""
    if "offsets" in features:
        ends = [*features["offsets"].tolist()[1:], len(features["input_ids"])]
        ids = features["input_ids"].tolist()
        return [ids[a:b] for a, b in zip(features["offsets"].tolist(), ends, strict=True)]
    masks = features["attention_mask"].bool()
    return [ids[mask].tolist() for ids, mask in zip(features["input_ids"], masks, strict=True)]


def words_of(row: list[int]) -> list[list[int]]:
    """Positions of each word: a piece in 5, 6 continues the word before it, if there is one."""
    words: list[list[int]] = []
    for position, token in enumerate(row):
        if token in (5, 6) and words:
            words[-1].append(position)
        else:
            words.append([position])
    return words


@given(texts, st.sampled_from(INTERVENTIONS), st.sampled_from(UNITS), st.integers(1, 3), st.booleans())
@settings(max_examples=200, deadline=None)
def test_every_copy_is_the_text_with_one_token_or_word_edited(rows, kind, unit, per_text, as_bag):
    features = bag(rows) if as_bag else padded(rows)
    before = {key: value.clone() for key, value in features.items() if isinstance(value, torch.Tensor)}
    edited = edit_texts(features, VOCABULARY, kind=kind, per_text=per_text, unit=unit)
    assert all(torch.equal(features[key], value) for key, value in before.items()), "the input was modified"
    copies = unpack(edited.features)
    assert len(copies) == len(rows) * per_text == len(edited.changed)
    for index, copy in enumerate(copies):
        row = rows[index // per_text]
        frame = (lambda inner: inner) if as_bag else (lambda inner: [CLS, *inner, SEP])
        if not edited.changed[index]:
            assert copy == frame(row)
            emptied = (
                as_bag
                and kind == "delete"
                and (len(row) == 1 or (unit == "word" and len(words_of(row)) == 1))
            )
            assert not row or emptied
            continue
        units = words_of(row) if unit == "word" else [[i] for i in range(len(row))]
        start = int(edited.first[index]) - (0 if as_bag else 1)
        (positions,) = [word for word in units if start in word]
        if kind == "delete":
            assert copy == frame([t for i, t in enumerate(row) if i not in positions])
        elif kind == "mask":
            assert copy == frame([MASK if i in positions else t for i, t in enumerate(row)])
        else:
            inner = copy if as_bag else copy[1:-1]
            assert len(inner) == len(row)
            assert all(a == b for i, (a, b) in enumerate(zip(inner, row, strict=True)) if i not in positions)
            assert {inner[i] for i in positions} <= {t for r in rows for t in r}


def test_positions_are_uniform():
    torch.manual_seed(0)
    edited = edit_texts(padded([[4, 7, 8, 7]]), VOCABULARY, per_text=4000)
    counts = torch.bincount(edited.first, minlength=6)
    assert counts[0] == 0, "[CLS] is never edited"
    assert ((counts[1:5] - 1000).abs() < 120).all()


def test_same_generator_state_same_draw():
    draws = []
    for _ in range(2):
        torch.manual_seed(3)
        draws.append(
            edit_texts(padded([[4, 5, 6, 7, 8]] * 20), VOCABULARY, kind="replace").features["input_ids"]
        )
    assert torch.equal(*draws)
    torch.manual_seed(4)
    assert not torch.equal(
        draws[0], edit_texts(padded([[4, 5, 6, 7, 8]] * 20), VOCABULARY).features["input_ids"]
    )


def test_vocabularies_that_mark_word_starts():
    tokens = {"\u2581red": 0, "fox": 1, "\u2581": 2, "</s>": 3}
    vocabulary = TokenVocabulary.build(tokens, special_ids=[3], mask_id=None, pad_id=3)
    assert vocabulary.word_start.tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "swap"}, "unknown intervention 'swap'"),
        ({"unit": "phrase"}, "unknown unit 'phrase'"),
        ({"per_text": 0}, "at least 1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(UsageError, match=message):
        edit_texts(padded([[4]]), VOCABULARY, **options)


def test_masking_without_a_mask_token():
    vocabulary = TokenVocabulary.build(TOKENS, special_ids=[PAD], mask_id=None, pad_id=PAD)
    with pytest.raises(UsageError, match="mask token"):
        edit_texts(padded([[4]]), vocabulary, kind="mask")


def test_a_model_without_text_tokenizer():
    with pytest.raises(ModelError, match="no text tokenizer"):
        TokenVocabulary.from_model(object())
