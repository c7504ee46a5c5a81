"""Evaluation end to end on made-up pairs."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from leanmatch.data import PairTable
from leanmatch.errors import DataError, ModelError, UsageError
from leanmatch.metrics import (
    DEFAULT_METRICS,
    EvaluationOptions,
    LabelCounts,
    RetrievalProbe,
    evaluate,
    per_query_scores,
    retrieval_score,
)
from leanmatch.metrics.bootstrap import Interval
from leanmatch.metrics.results import verdict_sentence
from leanmatch.metrics.tables import slice_table, summary_table

SLICED = EvaluationOptions(slices=("site",), hold_out=("site=toys",), resamples=300)


def test_slices_metrics_and_verdicts(table, words, letters):
    found = evaluate(words, table, options=SLICED, against=letters, name="words", against_name="letters")
    assert list(found.slices) == [
        "overall",
        "in distribution",
        "out of distribution",
        "site=books",
        "site=toys",
    ]
    overall = found.slices["overall"]
    assert list(overall.metrics) == list(DEFAULT_METRICS)
    test = table.select_split("test")
    assert (overall.n_queries, overall.n_pairs) == (test.labels.sum(), len(test))
    assert overall.n_queries == sum(found.slices[f"site={site}"].n_queries for site in ("books", "toys"))
    result = overall.metrics["MRR@10"]
    assert result.low < result.value < result.high
    assert result.difference == pytest.approx(result.value - result.base)
    assert result.difference_low < result.difference < result.difference_high
    assert result.verdict == "better" and found.verdicts()[0].startswith(
        "overall: words is better than letters by"
    )
    assert found.slices["site=toys"].same_as == "out of distribution"
    assert len(found.verdicts()) == 6
    back = evaluate(letters, table, options=SLICED, against=words).slices["overall"].metrics["MRR@10"]
    assert back.verdict == "worse" and back.difference == pytest.approx(-result.difference)


def test_a_model_against_itself_shows_no_difference(table, words):
    found = evaluate(words, table, options=SLICED, against=words)
    for part in found.slices.values():
        for result in part.metrics.values():
            assert (result.difference, result.difference_low, result.difference_high) == (0, 0, 0)
            assert result.verdict == "no difference seen"


def test_each_distinct_text_is_encoded_once(table, words):
    calls = []

    def counted(texts):
        calls.append(list(texts))
        return words(texts)

    evaluate(counted, table, options=SLICED)
    assert len(calls) == 1 and len(set(calls[0])) == len(calls[0])
    test = table.select_split("test")
    assert set(calls[0]) == {*test.anchors, *test.positives}


def test_values_agree_with_a_loop_over_queries(table, words):
    found = evaluate(words, table, options=EvaluationOptions(split="all", symmetric=True, resamples=100))
    texts = list(
        dict.fromkeys(text for pair in zip(table.anchors, table.positives, strict=True) for text in pair)
    )
    vectors = dict(zip(texts, words(texts), strict=True))
    ranks = []
    for anchor, positive, label in zip(table.anchors, table.positives, table.labels, strict=True):
        if label == 1:
            scores = {text: float(vectors[text] @ vectors[anchor]) for text in texts if text != anchor}
            ranks.append(1 + sum(score > scores[positive] for score in scores.values()))
    want = np.mean([1 / rank if rank <= 10 else 0 for rank in ranks])
    assert found.slices["overall"].metrics["MRR@10"].value == pytest.approx(want)
    assert found.slices["overall"].n_candidates == len(texts)
    assert retrieval_score(words, table) != want  # not symmetric by itself: positives only


def test_quick_scores_are_those_of_the_evaluation(table, words):
    options = EvaluationOptions(split="all", resamples=100)
    full = evaluate(words, table, options=options).slices["overall"]
    for metric in ("MRR@10", "nDCG@10", "Recall@10"):
        scores = per_query_scores(words, table, metric)
        assert scores.shape == (full.n_queries,)
        assert retrieval_score(words, table, metric) == pytest.approx(full.metrics[metric].value)
    with pytest.raises(UsageError, match="PSP@1"):
        RetrievalProbe(table, "PSP@1")
    with pytest.raises(DataError, match="no matching pair"):
        RetrievalProbe(PairTable.from_columns({"anchor": ["a"], "positive": ["b"], "label": [0]}))


@pytest.mark.parametrize(
    ("split", "expected"),
    [("auto", "split 'test'"), ("train", "split 'train'"), ("all", "all 80 rows")],
)
def test_the_split_is_honoured_and_named(table, words, split, expected):
    found = evaluate(words, table, options=EvaluationOptions(split=split, resamples=100))
    assert expected in found.split


def test_without_a_split_column_all_rows_are_used(words):
    table = PairTable.from_columns({"anchor": ["a b", "c d"], "positive": ["a", "d"]})
    found = evaluate(words, table)
    assert "no column 'split'" in found.split
    assert "AUC" not in found.slices["overall"].metrics
    assert any("only 2 queries" in note for note in found.notes)
    assert any("no PSP" in note for note in found.notes)


def test_time_makes_rows_out_of_distribution(table, words):
    found = evaluate(words, table, options=EvaluationOptions(after="2023-01-01", split="all", resamples=100))
    assert found.slices["out of distribution"].n_rows == 32
    both = EvaluationOptions(after="2023-01-01", hold_out=("site=toys",), split="all", resamples=100)
    assert evaluate(words, table, options=both).slices["out of distribution"].n_rows == 56


def test_propensities_come_from_train_rows_or_from_the_caller(table, letters):
    options = EvaluationOptions(resamples=100)
    own = evaluate(letters, table, options=options)
    assert any("PSP: propensities from" in note for note in own.notes)
    first = table.select_split("test").relevant().positives[0]
    given = evaluate(letters, table, options=options, train_label_counts=LabelCounts({first: 500}, 1000))
    assert given.slices["overall"].metrics["PSP@5"].value != own.slices["overall"].metrics["PSP@5"].value
    rows = evaluate(letters, table, options=options, train_label_counts=table.select_split("train"))
    assert rows.slices["overall"].metrics == own.slices["overall"].metrics


def test_a_column_value_without_positives_is_left_out_with_a_note(words):
    table = PairTable.from_columns(
        {
            "anchor": ["a b", "c d", "e"],
            "positive": ["a", "d", "f"],
            "label": [1, 1, 0],
            "site": ["x", "x", "y"],
        }
    )
    found = evaluate(words, table, options=EvaluationOptions(slices=("site",), resamples=100))
    assert list(found.slices) == ["overall", "site=x"]
    assert any(note.startswith("site=y: no matching pair") for note in found.notes)
    with pytest.raises(DataError, match="out of distribution: no matching pair"):
        evaluate(words, table, options=EvaluationOptions(hold_out=("site=y",), resamples=100))


def test_json_and_tables(table, words, letters):
    found = evaluate(words, table, options=SLICED, against=letters)
    back = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [part["name"] for part in back["slices"]] == list(found.slices)
    assert back["slices"][0]["metrics"]["MRR@10"]["verdict"] == "better"
    console = Console(file=io.StringIO(), width=80)
    for name in found.slices:
        console.print(slice_table(found, name))
    console.print(summary_table(found), summary_table(evaluate(words, table)))
    text = console.file.getvalue()
    assert "out of distribution" in text and "none seen" in text and "MRR@10" in text
    assert "…" not in text, "nothing may be cut at 80 columns"


def test_long_model_names_do_not_push_the_differences_out(table, words, letters):
    long = "some/folder/of-a-model-with-a-long-name"
    found = evaluate(words, table, options=SLICED, against=letters, name=long, against_name=long + "2")
    console = Console(file=io.StringIO(), width=80)
    console.print(summary_table(found), slice_table(found, "overall"))
    result = found.slices["overall"].metrics["MRR@10"]
    shown = f"[{100 * result.difference_low:+.1f}, {100 * result.difference_high:+.1f}]"
    assert console.file.getvalue().count(shown) == 2


def test_emoji_markup_and_odd_texts(words):
    texts = ["😀 [bold]", "[/red]", "x" * 20_000, "\u202eabc"]
    table = PairTable.from_columns({"anchor": texts, "positive": [t + " y" for t in texts], "c": ["[/]"] * 4})
    found = evaluate(words, table, options=EvaluationOptions(slices=("c",), resamples=100), name="[/m]")
    Console(file=io.StringIO()).print(summary_table(found), slice_table(found, "c=[/]"))
    assert found.slices["overall"].metrics["P@1"].value == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EvaluationOptions(slices=("sote",)), "no column 'sote'.*\n.*site"),
        (EvaluationOptions(hold_out=("site=games",)), "no row has site=games.*\n.*books, toys"),
        (EvaluationOptions(split="valid"), "no row has split 'valid'.*\n.*test .54 rows., train .26 rows."),
    ],
)
def test_unknown_columns_values_and_splits_list_what_there_is(table, words, options, message):
    with pytest.raises(DataError, match=message):
        evaluate(words, table, options=options)


def test_after_needs_timestamps(words):
    table = PairTable.from_columns({"anchor": ["a"], "positive": ["b"]})
    with pytest.raises(DataError, match="needs a column 'timestamp'"):
        evaluate(words, table, options=EvaluationOptions(after="2020-01-01"))


def broken(change):
    def encode(texts):
        vectors = np.zeros((len(texts), 4), np.float32)
        vectors[:, 0] = 1
        return change(vectors)

    return encode


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: np.where(np.arange(len(v))[:, None] == 1, np.nan, v), "NaN or infinity for 1 of"),
        (lambda v: v[:-1], "shape"),
        (lambda v: v[:, 0], "shape"),
        (lambda v: v.astype(int), "type int"),
        (lambda v: v * 3, "not L2-normalized.*norms from 3 to 3"),
    ],
)
def test_bad_encoders_are_refused(table, words, change, message):
    with pytest.raises(ModelError, match=message):
        evaluate(broken(change), table)
    with pytest.raises(ModelError, match="base gave"):
        evaluate(words, table, against=broken(change))


def test_zero_vectors_are_told(table):
    found = evaluate(broken(lambda v: v * (np.arange(len(v))[:, None] > 2)), table)
    assert any("model gives 3 texts a vector of zeros" in note for note in found.notes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"hold_out": ("site",)}, "hold_out is 'site'"),
        ({"split": "dev"}, "auto, all, train, valid, test"),
        ({"symmetric": "maybe"}, "symmetric is 'maybe'"),
        ({"confidence": 95}, "confidence is 95"),
        ({"resamples": 5}, "5 bootstrap"),
        ({"metrics": ()}, "no metric"),
        ({"metrics": ("MAP",)}, "no metric 'MAP'"),
        ({"propensity": (0, 1)}, "propensity"),
        ({"after": "soon"}, "after is 'soon'"),
    ],
)
def test_options_are_checked_at_once(given, message):
    with pytest.raises(UsageError, match=message):
        EvaluationOptions(**given)


@pytest.mark.parametrize(
    ("difference", "bounds", "expected"),
    [
        (0.012, (0.004, 0.02), "m is better than b by 1.2 points of X (95% interval 0.4 to 2.0; 9 queries)"),
        (
            -0.012,
            (-0.02, -0.004),
            "m is worse than b by 1.2 points of X (95% interval 0.4 to 2.0; 9 queries)",
        ),
        (
            0.001,
            (-0.002, 0.004),
            "no difference seen between m and b in X (+0.1 points, 95% interval -0.2 to +0.4; 9 queries)",
        ),
        (
            0.001,
            (0.0002, 0.002),
            "m is better than b by 0.1 points of X (95% interval 0.02 to 0.2; 9 queries)",
        ),
    ],
)
def test_sentences(difference, bounds, expected):
    found = verdict_sentence(
        "X", difference, Interval(*bounds), name="m", against="b", confidence=0.95, units="9 queries"
    )
    assert found == expected
