"""What every store does: the same items, scores, filters, changes and errors as a local catalogue."""

from __future__ import annotations

import hashlib
import shutil

import numpy as np
import pytest
from store_filters import FILTERS

from leanmatch.errors import DataError, LeanmatchError, UsageError
from leanmatch.index import Catalogue, Item, parse_filter
from leanmatch.index.storage.manifest import REFERENCE
from leanmatch.index.writer import put_extra
from leanmatch.stores import recommend

ORDERS_OF_TEXT = [
    'category < "Tools"',
    'code >= "05"',
    "size = 1.1",
    "size > 3 and size < 8",
    "size in (7, 8)",
]
EXACT_INTEGERS = ["big = 9007199254740993", "big > 9007199254740992", "big = 9007199254740992"]


def found(store, query, condition, k=100):
    (hits,) = store.search(query, k, None if condition is None else parse_filter(condition))
    return hits


@pytest.fixture
def query(encoder):
    return encoder(["thing number 7"])


def test_search_gives_the_items_with_their_cosines(store, catalogue, query, encoder):
    hits = found(store, query, None)
    local = Catalogue.open(catalogue)
    assert len(hits) == len(store) == len(local) == 74
    scores = {local.ids[row]: score for row, score in enumerate(local.vectors(range(74)) @ query[0])}
    assert max(abs(hit.score - scores[hit.id]) for hit in hits) < 1e-6
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert hits[0].id == "i7" and abs(hits[0].score - 1) < 1e-6
    for hit in hits:
        row = local.row(hit.id)
        assert hit.text == local.text(row)
        expected = local.metadata(row)
        assert hit.metadata == expected
        assert {name: type(value) for name, value in hit.metadata.items()} == {
            name: type(value) for name, value in expected.items()
        }
    assert [hit.id for hit in found(store, query, None, k=3)] == [hit.id for hit in hits[:3]]


@pytest.mark.parametrize("condition", FILTERS)
def test_filters_leave_what_they_leave_in_a_catalogue(store, catalogue, query, condition):
    expected = {hit_id for hit_id in _passing(catalogue, condition)}
    assert {hit.id for hit in found(store, query, condition)} == expected


def test_the_filters_of_these_tests_tell_items_apart(catalogue):
    sizes = [len(_passing(catalogue, condition)) for condition in FILTERS]
    assert sum(0 < size < 74 for size in sizes) >= 18 and len(set(sizes)) >= 10


@pytest.mark.parametrize("condition", ORDERS_OF_TEXT + EXACT_INTEGERS)
def test_what_qdrant_cannot_answer_is_refused_there(store, catalogue, query, condition):
    expected = _passing(catalogue, condition)
    if type(store).__name__ == "QdrantStore":
        with pytest.raises(UsageError, match=r"Qdrant (cannot|compares)"):
            found(store, query, condition)
    else:
        assert {hit.id for hit in found(store, query, condition)} == expected


def _passing(catalogue, condition):
    local = Catalogue.open(catalogue)
    return {local.ids[row] for row in local.select(parse_filter(condition)).rows.tolist()}


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("colour = 1", "no column 'colour'"),
        ('price = "x"', "of type number"),
        ("stock = 1", "of type boolean"),
    ],
)
def test_filters_that_do_not_fit_the_columns(store, query, condition, message):
    with pytest.raises(UsageError, match=message):
        found(store, query, condition)


@pytest.mark.parametrize("text", [None, "{}", '{"what": "another, ünï 😀"}'])
def test_the_reference_is_that_of_the_catalogue(opened_store, catalogue, tmp_path, text):
    folder = tmp_path / "referring"
    shutil.copytree(catalogue, folder)
    if text is not None:
        put_extra(folder, REFERENCE, lambda path: path.write_text(text, encoding="utf-8"), ".json")
    store = opened_store(folder)
    assert store.reference() == (None if text is None else text.encode())
    assert store.info.reference == ("" if text is None else hashlib.sha256(text.encode()).hexdigest())
    assert len(store) == 74


def test_changes_are_seen_by_the_next_search(store, encoder, query):
    new = [
        Item("i7", "another thing", {"category": "Books", "price": 1.25, "stock": False, "code": "77"}),
        Item("new", "thing number 7", {"category": "New", "price": 3}),
    ]
    store.upsert(new, encoder([item.text for item in new]))
    hits = {hit.id: hit for hit in found(store, query, None)}
    assert len(hits) == len(store) == 75
    assert hits["i7"].text == "another thing" and hits["i7"].metadata["price"] == 1.25
    assert hits["new"].metadata == {"category": "New", "price": 3} and abs(hits["new"].score - 1) < 1e-6
    store.upsert(new, encoder([item.text for item in new]))  # the same again changes nothing
    assert len(store) == 75
    assert store.delete(["new", "i8", "absent", "new"]) == 2
    assert len(store) == 73
    assert "i8" not in {hit.id for hit in found(store, query, None)}


def test_items_that_are_not_sound_change_nothing(store, encoder, query):
    before = [hit.id for hit in found(store, query, None)]
    vector = encoder(["thing"])
    for items, vectors in (
        ([Item("x", " ")], vector),
        ([Item("x", "thing"), Item("x", "thing")], np.repeat(vector, 2, axis=0)),
        ([Item("x", "thing", {"stock": "maybe"})], vector),
    ):
        with pytest.raises(DataError):
            store.upsert(items, vectors)
    with pytest.raises(LeanmatchError):
        store.upsert([Item("x", "thing")], vector[:, :3])
    with pytest.raises(LeanmatchError):
        store.upsert([Item("x", "thing")], vector * np.nan)
    assert [hit.id for hit in found(store, query, None)] == before


def test_recommendations_equal_those_of_the_catalogue(store, catalogue, encoder):
    texts = ["thing number 7", "THING  number 9", "usb"]
    expected = Catalogue.open(catalogue).recommend(encoder, texts, 5, filter=parse_filter("price < 30"))
    ours = recommend(store, encoder, texts, 5, filter=parse_filter("price < 30"))
    for mine, theirs in zip(ours, expected, strict=True):
        assert [round(hit.score, 5) for hit in mine] == [round(hit.score, 5) for hit in theirs]
        assert [hit.rank for hit in mine] == [1, 2, 3, 4, 5]
    assert "i7" not in {hit.id for hit in ours[0]} and "i9" not in {hit.id for hit in ours[1]}
    assert recommend(store, encoder, texts[:1], 1, exclude_self=False)[0][0].id == "i7"
    assert recommend(store, encoder, [], 5) == []
    for wrong, k in ((["  "], 5), (["x"], 0)):
        with pytest.raises(LeanmatchError):
            recommend(store, encoder, wrong, k)
