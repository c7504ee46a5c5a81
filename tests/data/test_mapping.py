"""Columns by other names: what is recognized, what is left to the user, and remedies that work."""

from __future__ import annotations

import json
import re
import shlex
import warnings

import pytest

from leanmatch.cli.pairs import parse_columns
from leanmatch.data import read_pairs
from leanmatch.data.columns.mapping import columns_for
from leanmatch.errors import DataError, UsageError


def write_csv(folder, columns, name="pairs.csv", mark=","):
    rows = zip(*columns.values(), strict=True)
    lines = [mark.join(columns), *(mark.join(map(str, row)) for row in rows)]
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


CLICKS = {
    "query": ["usb dock", "hdmi cable", "usb dock"],
    "title": ["dock with ports", "cable 2m", "garden hose"],
    "clicked": [1, 1, 0],
}


def quietly(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_pairs(path, **options)


def remarks(path, **options):
    found = []
    table = read_pairs(path, tell=lambda mapping: found.extend(mapping.remarks(command=True)), **options)
    return table, found


def test_clicks_are_read_as_labels_and_said(tmp_path):
    path = write_csv(tmp_path, CLICKS)
    table, lines = remarks(path)
    assert lines == ["Reading query as anchor, title as positive, clicked as label; --column to change"]
    assert table.labels.tolist() == [1, 1, 0]
    assert table.columns_read == {"anchor": "query", "positive": "title", "label": "clicked"}
    with pytest.warns(UserWarning, match=r"Reading query as anchor.*columns= to change") as caught:
        read_pairs(path)
    assert caught[0].filename == __file__


def test_a_label_is_recognized_beside_columns_that_are_named(tmp_path):
    path = write_csv(tmp_path, CLICKS)
    table, lines = remarks(path, columns={"anchor": "query", "positive": "title"})
    assert table.labels.tolist() == [1, 1, 0]
    assert lines == ["Reading clicked as label; --column to change"]
    kept, lines = remarks(path, columns={"clicked": "clicked"})
    assert not kept.has_labels and kept.column("clicked") == ["1", "1", "0"]
    assert not any("WARNING" in line for line in lines)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"Query": ["a"], "Product Title": ["b"]}, {"anchor": "Query", "positive": "Product Title"}),
        ({"searchQuery": ["a"], "DOCUMENT": ["b"]}, {"anchor": "searchQuery", "positive": "DOCUMENT"}),
        ({"question1": ["a"], "question2": ["b"]}, {"anchor": "question1", "positive": "question2"}),
        ({"Anchor": ["a"], "query": ["c"], "Positive": ["b"]}, {"anchor": "Anchor", "positive": "Positive"}),
        (
            {"query": ["a", "b"], "title": ["c", "d"], "sku": [7, 8], "date": ["2024-01-01", "2024-01-02"]},
            {"anchor": "query", "positive": "title", "positive_id": "sku", "timestamp": "date"},
        ),
        (  # an id that names two texts stays an ordinary column, and so does a date that is none
            {"query": ["a", "b"], "title": ["c", "d"], "sku": [7, 7], "date": ["monday", "2024-01-02"]},
            {"anchor": "query", "positive": "title"},
        ),
        ({"anchor": ["a"], "positive": ["b"], "query": ["c"]}, {}),
        (
            {"anchor": ["a", "b"], "positive": ["c", "d"], "is_relevant": ["yes", "no"]},
            {"label": "is_relevant"},
        ),
        ({"query": ["a"], "title": ["b"], "product": [17]}, {"anchor": "query", "positive": "title"}),
    ],
)
def test_recognized(tmp_path, columns, expected):
    assert quietly(write_csv(tmp_path, columns)).columns_read == expected


def test_zeros_and_ones_that_are_not_read_as_the_label_are_warned_of(tmp_path):
    columns = {"anchor": ["a", "b"], "positive": ["c", "d"], "sold": [0, 1], "in_stock": [1, 1]}
    _, lines = remarks(write_csv(tmp_path, columns))
    assert len(lines) == 1 and lines[0].startswith("WARNING: no column is read as the label")
    assert "--column label=sold" in lines[0]
    counts = {"anchor": ["a", "b"], "positive": ["c", "d"], "clicked": [0, 3]}
    _, lines = remarks(write_csv(tmp_path, counts))
    assert "'clicked'" in lines[0]
    _, lines = remarks(write_csv(tmp_path, {**counts, "clicked": ["a", "b"], "label": [0, 1]}))
    assert not lines
    _, lines = remarks(
        write_csv(tmp_path, {"anchor": ["a", "b"], "positive": ["c", "d"], "relevance": [0, 2]})
    )
    assert "relevance 0" in lines[0]


def test_scores_that_are_not_read_are_warned_of(tmp_path):
    texts = {"sentence1": ["a", "b"], "sentence2": ["c", "d"]}
    _, lines = remarks(write_csv(tmp_path, {**texts, "Similarity": [0.8, 0.1]}))
    assert len(lines) == 2 and lines[1].startswith("WARNING: column 'Similarity' is not read")
    for column in ({"score": [0.8, 0.8]}, {"score": ["high", "low"]}, {"price": [0.8, 0.1]}):
        _, lines = remarks(write_csv(tmp_path, {**texts, **column}))
        assert not any("WARNING" in line for line in lines), column
    _, lines = remarks(write_csv(tmp_path, {**texts, "score": [0.8, 0.1], "label": [1, 0]}))
    assert not any("WARNING" in line for line in lines)


WRONG = {
    "typo in the file's name": (CLICKS, ["anchor=qeury"]),
    "typo in ours": (CLICKS, ["anchr=query"]),
    "typos in both": (CLICKS, ["anchr=qeury", "postive=titel"]),
    "reversed": (CLICKS, ["query=anchor", "title=positive"]),
    "reversed, one": (CLICKS, ["query=anchor"]),
    "reversed with a typo": (CLICKS, ["qeury=anchor"]),
    "reversed label": (CLICKS, ["clicked=label"]),
    "another case": (CLICKS, ["Anchor=query"]),
    "no such column": (CLICKS, ["anchor=xyzzy"]),
    "two candidates": ({**CLICKS, "product": ["a", "b", "c"]}, []),
    "two labels": ({**CLICKS, "purchased": [0, 1, 0]}, []),
    "nothing known": ({"left side": ["a", "b"], "it's": ["c", "d"], "n": [1, 2]}, []),
    "one known": ({"query": ["a", "b"], "thing": ["c", "d"]}, []),
    "misspelled": ({"query": ["a"], "positve": ["b"], "domain": ["c"]}, []),
    "taken already": ({"query": ["a"], "anchor": ["b"], "positive": ["c"]}, ["anchor=query"]),
    "hides ours": ({"query": ["a"], "anchor": ["b"], "positive": ["c"]}, ["query=anchor"]),
}


@pytest.mark.parametrize("form", ["python", "command"])
@pytest.mark.parametrize(("columns", "options"), WRONG.values(), ids=WRONG)
def test_the_remedy_works_as_it_stands(tmp_path, columns, options, form):
    path = write_csv(tmp_path, columns)
    with pytest.raises(DataError) as caught:
        read_pairs(path, columns=parse_columns(options))
    message = str(caught.value) if form == "python" else caught.value.for_command_line()
    assert ("--column" in message) == (form == "command"), message
    if form == "python":
        mapping = eval(re.search(r"columns=(\{.*?\})", message)[1])
    else:
        words = shlex.split(message.partition("remedy: ")[2].partition(" or --")[0].partition(": ")[2])
        assert words[::2] == ["--column"] * (len(words) // 2), words
        mapping = parse_columns(words[1::2])
    table = quietly(path, columns=mapping)
    assert len(table) == len(next(iter(columns.values())))
    if "query" in columns:
        assert table.anchors == columns["query"]
    if columns is CLICKS:
        assert table.positives == CLICKS["title"] and table.labels.tolist() == [1, 1, 0]


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolon"), ("\t", "tab"), ("|", "pipe")])
def test_other_delimiters_are_found(tmp_path, mark, name):
    table = quietly(write_csv(tmp_path, CLICKS, mark=mark))
    assert table.anchors == CLICKS["query"] and table.labels.tolist() == [1, 1, 0]
    assert quietly(write_csv(tmp_path, CLICKS, mark=mark), delimiter=mark).anchors == CLICKS["query"]


def test_a_delimiter_that_is_not_found_is_in_the_remedy(tmp_path):
    path = write_csv(tmp_path, CLICKS, mark="^")
    with pytest.raises(DataError, match=r"required columns missing") as caught:
        read_pairs(path)
    assert caught.value.remedy.endswith("delimiter='^'")
    assert caught.value.command.endswith("--delimiter '^'")
    assert quietly(path, delimiter="^").anchors == CLICKS["query"]


def test_one_column_cannot_be_two(tmp_path):
    with pytest.raises(UsageError, match="'query' is to be read twice: as 'anchor' and as 'positive'"):
        read_pairs(write_csv(tmp_path, CLICKS), columns={"anchor": "query", "positive": "query"})


def test_bad_rows_name_the_column_of_the_file_and_how_to_keep_it(tmp_path):
    rows = 1100
    columns = {
        "query": [f"q{i}" for i in range(rows)],
        "title": [f"t{i}" for i in range(rows)],
        "clicked": [i % 2 for i in range(rows - 1)] + [7],
    }
    path = write_csv(tmp_path, columns)
    with pytest.raises(DataError, match=r":1101 column 'clicked'") as caught:
        quietly(path)
    assert "--column clicked=clicked" in caught.value.command
    assert len(quietly(path, columns={"clicked": "clicked"})) == rows


def test_json_lines_and_batches_are_read_alike(tmp_path, monkeypatch):
    path = tmp_path / "pairs.jsonl"
    rows = [dict(zip(CLICKS, row, strict=True)) for row in zip(*CLICKS.values(), strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert quietly(path).labels.tolist() == [1, 1, 0]
    monkeypatch.setattr("leanmatch.data.readers.pairs.BATCH_ROWS", 1)
    mappings = []
    assert read_pairs(path, tell=mappings.append).labels.tolist() == [1, 1, 0] and len(mappings) == 1


REMEMBERED = {"anchor": "query", "positive": "title", "label": "clicked"}


def test_a_mapping_is_remembered_for_the_same_columns():
    columns, lines = columns_for(list(CLICKS), REMEMBERED, {}, model="m", path="p")
    assert columns == REMEMBERED
    assert lines == ["Reading query as anchor, title as positive, clicked as label, as in the training of m"]
    columns, _ = columns_for([*CLICKS, "body"], REMEMBERED, {"positive": "body"}, model="m", path="p")
    assert columns == {"anchor": "query", "label": "clicked", "positive": "body"}


def test_a_table_with_our_own_names_or_without_the_label_is_read_for_a_model_too():
    assert columns_for(["anchor", "positive"], REMEMBERED, {}, model="m", path="p") == ({}, [])
    columns, lines = columns_for(["query", "title"], REMEMBERED, {}, model="m", path="p")
    assert columns == {"anchor": "query", "positive": "title"}
    assert lines[1] == "the table has no column 'clicked', which was the label when m was trained"


def test_a_table_with_other_columns_is_refused_with_what_to_type():
    with pytest.raises(DataError, match="m was trained on a table that has query as anchor") as caught:
        columns_for(["search_term", "product"], REMEMBERED, {}, model="m", path="p")
    assert caught.value.command == (
        "say which columns to use: --column anchor=search_term --column positive=product"
    )
