"""Recommendations from a made-up encoder: letters counted."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pytest

from leanmatch.data import ItemTable
from leanmatch.errors import DataError, UsageError
from leanmatch.index import Recommender

pytest.importorskip("faiss", reason="faiss-cpu is not installed")

TEXTS = ["usb dock", "usb cable", "red camera", "Usb  Dock", "tripod"]


def letters(texts):
    counts = np.array(
        [[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts], dtype=np.float32
    )
    counts = counts.reshape(len(texts), 26)
    return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)


@pytest.fixture
def items():
    return ItemTable.from_columns(list("abcde"), TEXTS, {"price": ["9", None, "3", "9", "1"]})


def test_ranks_scores_and_metadata(items):
    (rows,) = Recommender(letters, items).recommend(["usb docks"], k=3)
    assert [one.rank for one in rows] == [1, 2, 3] and [one.id for one in rows][:2] == ["a", "d"]
    assert rows[0].text == "usb dock" and rows[0].metadata == {"price": "9"} and rows[2].metadata == {}
    assert 1 >= rows[0].score >= rows[1].score >= rows[2].score
    assert json.loads(json.dumps(rows[0].to_json()))["rank"] == 1


def test_the_query_itself_is_left_out_in_any_spelling(items):
    recommender = Recommender(letters, items)
    with_self, without = (recommender.recommend([" USB dock"], exclude_self=one)[0] for one in (False, True))
    assert [one.id for one in with_self][:2] == ["a", "d"] and len(with_self) == 5
    assert not {"a", "d"} & {one.id for one in without} and [one.rank for one in without] == [1, 2, 3]


def test_several_texts_and_none(items):
    recommender = Recommender(letters, items)
    assert [rows[0].id for rows in recommender.recommend(["camera", "cable"], k=1)] == ["c", "b"]
    assert recommender.recommend([]) == []


def test_given_vectors_are_used(items):
    calls = []
    recommender = Recommender(
        lambda texts: calls.append(list(texts)) or letters(texts), items, vectors=letters(TEXTS)
    )
    recommender.recommend(["tripods"])
    assert calls == [["tripods"]]
    with pytest.raises(DataError, match="5 identifiers for 4 vectors"):
        Recommender(letters, items, vectors=letters(TEXTS[:4]))


def test_refusals(items):
    with pytest.raises(DataError, match="row 2: a text is missing or blank"):
        Recommender(letters, items).recommend(["a", " "])
    with pytest.raises(UsageError, match="k is 0"):
        Recommender(letters, items).recommend(["a"], k=0)
    with pytest.raises(DataError, match="no items"):
        Recommender(letters, ItemTable.from_columns([], []))


def test_dates_become_text():
    day = datetime.date(2024, 1, 2)
    items = ItemTable.from_columns(["a"], ["usb"], {"day": [day]})
    (rows,) = Recommender(letters, items).recommend(["dock"], exclude_self=True)
    assert rows[0].metadata == {"day": day} and rows[0].to_json()["metadata"] == {"day": "2024-01-02"}
