from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanmatch.data import (
    ItemTable,
    PairTable,
    SplitOptions,
    load_split,
    normalized_text,
    split_pairs,
    write_manifest,
)
from leanmatch.data.splitting.parts import PARTS, Split
from leanmatch.errors import DataError, FormatError, UsageError

FAR = ["zq", "wv", "kj", "xp"]


def words(i: int) -> str:
    """A text that is no near-duplicate of another number's."""
    return " ".join(f"{digit}{FAR[k % 4]}{i * 7919 % 1009}" for k, digit in enumerate(f"{i:04d}"))


def table_of(count: int, **columns: list[Any]) -> PairTable:
    anchors = [f"anchor {words(i)}" for i in range(count)]
    positives = [f"positive {words(i + 5000)}" for i in range(count)]
    return PairTable.from_columns({"anchor": anchors, "positive": positives} | columns)


def disjoint(split: Split) -> bool:
    rows = np.concatenate([split.rows[name] for name in PARTS])
    return len(np.unique(rows)) == len(rows)


def texts(table: PairTable) -> set[str]:
    return {normalized_text(text) for text in table.anchors + table.positives}


def test_random_shares_and_seed() -> None:
    table = table_of(200)
    split = split_pairs(table, SplitOptions(valid_fraction=0.1, test_fraction=0.2))
    assert [len(split.rows[name]) for name in PARTS] == [140, 20, 40, 0] and disjoint(split)
    again, other = (
        split_pairs(table, split.options),
        split_pairs(table, SplitOptions(test_fraction=0.2, seed=1)),
    )
    assert np.array_equal(again.rows["train"], split.rows["train"])
    assert not np.array_equal(other.rows["train"], split.rows["train"])
    assert split.leakage.total == 0 and not split.notes


@settings(max_examples=30, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 1)), min_size=5, max_size=60
    )
)
def test_random_splits_share_no_text(pairs: list[tuple[int, int, int]]) -> None:
    anchors, positives, labels = (list(column) for column in zip(*pairs, strict=True))
    table = PairTable.from_columns(
        {
            "anchor": [words(i) for i in anchors],
            "positive": [words(i).upper() + "!" for i in positives],
            "label": labels,
        }
    )
    split = split_pairs(table, SplitOptions(test_fraction=0.3, valid_fraction=0.3, leakage="report"))
    parts = [texts(getattr(split, name)) for name in ("train", "valid", "test_in")]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert split.leakage.total == 0 and disjoint(split)


def test_one_large_component_is_said() -> None:
    table = PairTable.from_columns({"anchor": ["hub"] * 50, "positive": [words(i) for i in range(50)]})
    split = split_pairs(table)
    assert len(split.train) == 50 and "the largest such group has 50 rows" in split.notes[0]


def test_random_negatives_do_not_tie_everything_together() -> None:
    base = table_of(100)
    anchors = base.anchors * 2
    positives = base.positives + base.positives[1:] + base.positives[:1]
    table = PairTable.from_columns({"anchor": anchors, "positive": positives, "label": [1] * 100 + [0] * 100})
    split = split_pairs(table, SplitOptions(test_fraction=0.2, valid_fraction=0.2))
    assert len(split.test_in.relevant()) >= 15 and len(split.train) < 200
    assert not texts(split.train) & texts(split.test_in)
    assert any("tie" in note for note in split.notes) and any("left out" in note for note in split.notes)


def test_an_empty_value_is_not_the_word_none() -> None:
    groups = ["None", None] * 10
    columns = {
        "anchor": [f"a{i}" for i in range(20)],
        "positive": [f"b{i}" for i in range(20)],
        "group": groups,
    }
    split = split_pairs(PairTable.from_columns(columns), SplitOptions(hold_out=("group=None",)))
    assert len(split.test_out) == 10


def test_hold_out_groups() -> None:
    table = table_of(40, category=["Toys", "Games", "Tools", "Office"] * 10, site=["x"] * 39 + ["y"])
    split = split_pairs(table, SplitOptions(hold_out=("category=Toys", "category=Games", "site=y")))
    out = zip(split.test_out.column("category"), split.test_out.column("site"), strict=True)
    assert len(split.test_out) == 21 and all(c in {"Toys", "Games"} or s == "y" for c, s in out)
    assert set(split.train.column("category")) == {"Tools", "Office"} and disjoint(split)


def test_split_column_is_honoured() -> None:
    table = table_of(
        40, split=(["train"] * 6 + ["val", "test", "test", "test"]) * 4, group=["a"] * 20 + ["b"] * 20
    )
    split = split_pairs(table, SplitOptions(hold_out=("group=b",)))
    assert [len(split.rows[name]) for name in PARTS] == [12, 2, 6, 6]
    assert set(split.test_out.column("split")) == {"test"} and set(split.train.column("group")) == {"a"}
    assert "14 held-out rows that are not marked test" in split.notes[0]
    no_test = table.filter(
        [s != "test" or g == "a" for s, g in zip(*map(table.column, ("split", "group")), strict=True)]
    )
    assert len(split_pairs(no_test, SplitOptions(hold_out=("group=b",))).test_out) == 14
    no_valid = table.filter([name != "valid" for name in table.column("split")])
    drawn = split_pairs(no_valid, SplitOptions(valid_fraction=0.25))
    assert [len(drawn.rows[name]) for name in PARTS] == [18, 6, 12, 0]


def test_after() -> None:
    times = ["2021-05-31T23:59:59Z", "2021-06-01", "1622505600", "2021-06-01T01:00:00+02:00"] * 10
    split = split_pairs(table_of(40, timestamp=times), SplitOptions(after="2021-06-01"))
    assert split.rows["test_out"].tolist() == [i for i in range(40) if i % 4 in (1, 2)]


LEAKY = {
    "anchor": [
        f"train question {words(1)} one",
        "b b",
        "Shared TEXT!",
        words(3) + " long enough for one edit x",
        words(9),
    ],
    "positive": [words(11), "a a", words(12), words(13), words(19)],
    "split": ["train"] * 5,
}
TESTS = {
    "anchor": ["a, a", "shared text", words(3) + " long enough for one edit y"],
    "positive": ["B B", words(21), words(22)],
    "split": ["test"] * 3,
}


@pytest.fixture
def leaky() -> PairTable:
    return PairTable.concat([PairTable.from_columns(LEAKY), PairTable.from_columns(TESTS)])


def test_leakage_is_removed(leaky: PairTable) -> None:
    split = split_pairs(leaky, SplitOptions(valid_fraction=0.0))
    assert split.rows["train"].tolist() == [0, 4] and len(split.test_in) == 3
    assert split.leakage.counts["train in test"] == {"same_pair": 1, "same_text": 1, "near_text": 1}
    assert split.leakage.examples["train in test"] == {
        "same_pair": [[1, 5]],
        "same_text": [[2, 6]],
        "near_text": [[3, 7]],
    }
    assert split.leakage.removed["train"] == 3 and split.leakage.total == 3
    assert any("3 of 5 training rows" in note for note in split.notes)


def test_leakage_is_reported_or_ignored(leaky: PairTable) -> None:
    reported = split_pairs(leaky, SplitOptions(valid_fraction=0.0, leakage="report"))
    assert len(reported.train) == 5 and reported.leakage.total == 3 and not reported.leakage.removed
    ignored = split_pairs(leaky, SplitOptions(valid_fraction=0.0, leakage="ignore"))
    assert len(ignored.train) == 5 and not ignored.leakage.counts
    exact = split_pairs(leaky, SplitOptions(valid_fraction=0.0, near_duplicates=False))
    assert exact.rows["train"].tolist() == [0, 3, 4]


def test_train_does_not_leak_into_given_valid() -> None:
    columns = {"anchor": ["x", "x", "q"], "positive": ["y", "z", "r"], "split": ["train", "valid", "train"]}
    split = split_pairs(PairTable.from_columns(columns))
    assert split.rows["train"].tolist() == [2] and split.leakage.counts["train in valid"]["same_text"] == 1


def test_positives_of_a_catalogue_may_be_shared() -> None:
    columns = {
        "anchor": [words(i) for i in range(20)],
        "positive": ["item"] * 20,
        "split": ["train"] * 10 + ["test"] * 10,
    }
    table = PairTable.from_columns(columns)
    with pytest.raises(DataError, match="all 10 training rows share texts"):
        split_pairs(table, SplitOptions(shared_positives=False, valid_fraction=0.1))
    with pytest.raises(DataError, match="shared_positives=True"):
        split_pairs(table, SplitOptions(valid_fraction=0.0))
    assert len(split_pairs(table, SplitOptions(shared_positives=True, valid_fraction=0.0)).train) == 10
    corpus = ItemTable.from_columns(["1"], ["item"])
    with_corpus = PairTable.from_arrow(table.to_arrow(), corpus=corpus)
    assert len(split_pairs(with_corpus).train) == 9


def test_manifest_reproduces_the_split(tmp_path: Path) -> None:
    table = table_of(60, category=["Toys", "Games", "Tools"] * 20)
    split = split_pairs(table, SplitOptions(hold_out=("category=Toys",), seed=3))
    write_manifest(split, tmp_path / "split.json")
    again = load_split(PairTable.from_arrow(table.to_arrow(), source="elsewhere"), tmp_path / "split.json")
    assert again.options == split.options and again.leakage == split.leakage and again.notes == split.notes
    for name in PARTS:
        assert np.array_equal(again.rows[name], split.rows[name])
        assert getattr(again, name).fingerprint() == getattr(split, name).fingerprint()


def test_manifest_refuses(tmp_path: Path) -> None:
    table = table_of(30)
    path = tmp_path / "split.json"
    write_manifest(split_pairs(table), path)
    with pytest.raises(DataError, match=r"fingerprint [0-9a-f]{12}"):
        load_split(table.take(range(29)), path)
    good = json.loads(path.read_text())
    damaged = {
        "no split manifest": {"format": "x"},
        "has version 2": good | {"version": 2},
        "checksum": good | {"parts": good["parts"] | {"train": good["parts"]["test_in"] | {"sha256": "0"}}},
        "damaged": good | {"parts": {}},
        "is damaged": good | {"parts": good["parts"] | {"valid": good["parts"]["valid"] | {"bits": "!"}}},
    }
    for says, content in damaged.items():
        path.write_text(json.dumps(content))
        with pytest.raises(FormatError, match=says):
            load_split(table, path)
    path.write_text("{")
    with pytest.raises(FormatError, match="no JSON"):
        load_split(table, path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"hold_out": ("Toys",)}, "COLUMN=VALUE"),
        ({"after": "June"}, "neither an ISO 8601"),
        ({"valid_fraction": -0.1}, "valid_fraction is -0.1"),
        ({"test_fraction": float("nan")}, "test_fraction is nan"),
        ({"valid_fraction": 0.5, "test_fraction": 0.5}, "leave nothing to train on"),
        ({"leakage": "drop"}, "remove, report, ignore"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_bad_options(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        SplitOptions(**options)


def test_impossible_splits() -> None:
    table = table_of(8, category=["Toys", "Games"] * 4)
    timed = table_of(2, timestamp=["2020-01-01", "2020-02-01"])
    with pytest.raises(DataError, match=r"no column 'group'(.|\n)*category"):
        split_pairs(table, SplitOptions(hold_out=("group=a",)))
    with pytest.raises(DataError, match=r"category=Tools(.|\n)*Games, Toys"):
        split_pairs(table, SplitOptions(hold_out=("category=Tools",)))
    with pytest.raises(DataError, match="no column 'timestamp'"):
        split_pairs(table, SplitOptions(after="2020-01-01"))
    dated = table_of(2, seen_on=["2020-01-01", "2020-02-01"], size=["8", "9"], code=["a-1", "b-2"])
    with pytest.raises(DataError, match="no column 'timestamp'") as caught:
        split_pairs(dated, SplitOptions(after="2020-01-01"))
    assert caught.value.command == "name the column of times: --column timestamp=seen_on"
    with pytest.raises(DataError, match=r"at or after 2021(.|\n)*2020-02-01"):
        split_pairs(timed, SplitOptions(after="2021-01-01"))
    with pytest.raises(DataError, match="left to train on: test_in 0, test_out 2"):
        split_pairs(timed, SplitOptions(after="2019-01-01"))
