"""Queries, candidates and judgements: who is searched for among what."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.data import ItemTable, PairTable
from leanmatch.errors import DataError
from leanmatch.metrics.ranking.candidates import decide_symmetric, grades, identify
from leanmatch.metrics.ranking.tasks import make_task


def described(table, *, symmetric, rows=None):
    """The task in words: ``{query: relevant texts}``, candidates, excluded (query, candidate) pairs."""
    known = identify(table, symmetric=symmetric)
    chosen = np.arange(len(table)) if rows is None else np.array(rows)
    task = make_task(known, chosen, table.labels, grades(table), symmetric=symmetric)
    queries = [known.texts[t] for t in task.query_texts]
    candidates = [known.texts[t] for t in task.candidate_texts]
    names = [known.texts[known.text_of[i]] for i in task.items]
    relevant = {q: sorted(names[i] for i in task.judgements.of(n)) for n, q in enumerate(queries)}
    excluded = set()
    if task.exclude is not None:
        excluded = {(queries[q], candidates[c]) for q, c in zip(*task.exclude, strict=True)}
    return relevant, candidates, excluded, task


def test_rows_of_one_anchor_are_one_query_and_label_0_brings_only_candidates():
    table = PairTable.from_columns(
        {"anchor": ["q", "q", "q", "r"], "positive": ["a", "b", "c", "d"], "label": [1, 1, 0, 0]}
    )
    relevant, candidates, excluded, _ = described(table, symmetric=False)
    assert relevant == {"q": ["a", "b"]}
    assert candidates == ["a", "b", "c", "d"]
    assert not excluded


def test_symmetric_pairs_search_all_texts_but_themselves():
    table = PairTable.from_columns(
        {"anchor": ["a", "b", "c"], "positive": ["b", "c", "c"], "label": [1, 0, 1]}
    )
    relevant, candidates, excluded, task = described(table, symmetric=True)
    assert relevant == {"a": ["b"]}
    assert candidates == ["a", "b", "c"]
    assert excluded == {("a", "a")}
    assert task.self_pairs == 1


def test_a_slice_has_its_own_candidates():
    table = PairTable.from_columns({"anchor": ["a", "b"], "positive": ["x", "y"]})
    assert described(table, symmetric=False, rows=[1])[:2] == ({"b": ["y"]}, ["y"])


def test_anchor_ids_join_rows_and_items_with_one_text_are_one_candidate():
    table = PairTable.from_columns(
        {
            "anchor": ["q", "q", "q"],
            "positive": ["same", "same", "z"],
            "anchor_id": ["1", "2", "1"],
            "positive_id": ["i", "j", "k"],
        }
    )
    known = identify(table, symmetric=False)
    task = make_task(known, np.arange(3), table.labels, grades(table), symmetric=False)
    assert task.judgements.n_queries == 2
    assert len(task.candidate_texts) == 2
    assert [known.item_names[i] for i in task.items[task.judgements.of(0)]] == [("i", "j"), ("k",)]
    assert [known.item_names[i] for i in task.items[task.judgements.of(1)]] == [("i", "j")]
    assert known.repeated == 1


def test_symmetric_ids_exclude_every_item_with_the_text_of_the_query():
    table = PairTable.from_columns(
        {"anchor": ["t", "u"], "positive": ["u", "t"], "anchor_id": ["1", "2"], "positive_id": ["2", "3"]}
    )
    relevant, candidates, excluded, _ = described(table, symmetric=True)
    assert candidates == ["t", "u"]
    assert relevant == {"t": ["u"], "u": ["t"]}
    assert excluded == {("t", "t"), ("u", "u")}


def test_identifiers_with_two_texts_are_counted():
    table = PairTable.from_columns({"anchor": ["a", "b"], "positive": ["x", "y"], "positive_id": ["1", "1"]})
    assert identify(table, symmetric=False).conflicts == 1


def corpus_table(ids):
    items = ItemTable.from_columns(["1", "2", "3"], ["x", "y", "z"])
    table = PairTable.from_columns({"anchor": ["a", "b"], "positive": ["x", "gone"], "positive_id": ids})
    return PairTable(table.to_arrow(), corpus=items)


def test_a_corpus_is_what_is_searched_and_lost_items_stay_relevant():
    relevant, candidates, _, task = described(corpus_table(["1", "9"]), symmetric=False, rows=[0, 1])
    assert candidates == ["x", "y", "z"]
    assert relevant == {"a": ["x"], "b": ["gone"]}
    assert task.lost == 1


def test_grades_take_the_best_of_repeated_pairs():
    table = PairTable.from_columns({"anchor": ["a", "a"], "positive": ["x", "x"], "relevance": [1, 3]})
    task = described(table, symmetric=False)[3]
    assert task.judgements.grades.tolist() == [3]


@pytest.mark.parametrize("value", [0.5, 0, -1])
def test_grades_must_be_whole_numbers_from_one(value):
    table = PairTable.from_columns({"anchor": ["a"], "positive": ["x"], "label": [1], "relevance": [value]})
    with pytest.raises(DataError, match="whole number from 1"):
        grades(table)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"anchor": ["a", "b"], "positive": ["b", "c"]}, True),
        ({"anchor": ["a", "b"], "positive": ["x", "y"]}, False),
        ({"anchor": ["a", "b"], "positive": ["b", "c"], "positive_id": ["1", "2"]}, False),
        (
            {
                "anchor": ["a", "b"],
                "positive": ["b", "c"],
                "anchor_id": ["1", "2"],
                "positive_id": ["2", "3"],
            },
            True,
        ),
        (
            {
                "anchor": ["a", "b"],
                "positive": ["x", "y"],
                "anchor_id": ["1", "2"],
                "positive_id": ["1", "2"],
            },
            False,
        ),
    ],
)
def test_symmetry_is_decided_by_what_stands_on_both_sides(columns, expected):
    assert decide_symmetric(PairTable.from_columns(columns)).symmetric is expected
    assert decide_symmetric(PairTable.from_columns(columns), not expected).symmetric is not expected


def test_an_id_with_another_text_on_the_other_side_is_someone_else():
    table = PairTable.from_columns(
        {"anchor": ["t", "u"], "positive": ["x", "t"], "anchor_id": ["1", "2"], "positive_id": ["2", "1"]}
    )
    known = identify(table, symmetric=True)
    assert [known.texts[known.text_of[i]] for i in known.queries] == ["t", "u"]
    assert [known.texts[known.text_of[i]] for i in known.items] == ["x", "t"]
    assert known.queries[0] == known.items[1]


def test_ids_that_stand_for_other_texts_on_the_other_side_make_no_symmetric_pairs():
    numbers = [str(i) for i in range(40)]
    table = PairTable.from_columns(
        {
            "anchor": [f"q{i}" for i in range(38)] + ["a", "b"],
            "positive": [f"d{i}" for i in range(38)] + ["a", "b"],
            "anchor_id": numbers,
            "positive_id": numbers,
        }
    )
    found = decide_symmetric(table)
    assert not found.symmetric
    assert found.reason.startswith("2 of 40 ids") and "38 with another text" in found.reason


@pytest.mark.parametrize(("shared", "expected"), [(1, False), (2, True)])
def test_one_shared_text_among_twenty_is_chance_and_exact_matches_do_not_count(shared, expected):
    anchors = [f"q{i}" for i in range(10)] + ["the name of an item"]
    positives = [*(f"q{i + 1}" if i < shared else f"i{i}" for i in range(10)), "the name of an item"]
    assert decide_symmetric(PairTable.from_columns({"anchor": anchors, "positive": positives})).symmetric is (
        expected
    )


def test_one_chance_text_among_thousands_does_not_make_pairs_symmetric():
    anchors = [f"q{i}" for i in range(3000)]
    positives = [f"i{i}" for i in range(2999)] + ["q7"]
    found = decide_symmetric(PairTable.from_columns({"anchor": anchors, "positive": positives}))
    assert not found.symmetric
    assert found.reason.startswith("1 of 5,999")
