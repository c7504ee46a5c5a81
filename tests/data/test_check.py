from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from leanmatch import data
from leanmatch.data import PairTable, SplitOptions, check_pairs, read_pairs, split_pairs


def test_counts() -> None:
    long = "how can i install the newest kernel on my ubuntu server today"
    table = PairTable.from_columns(
        {
            "anchor": ["a b", "a b", "A b!", "c", "e", "e", "???", long, "same"],
            "positive": ["c", "c", "c", "a b", "f", "F", "g", long + "s", "Same"],
            "label": [1, 1, 1, 0, 1, 0, 1, 1, 1],
            "split": ["train"] * 3 + ["test"] + ["train"] * 5,
            "kind": ["x"] * 8 + ["y"],
        }
    )
    report = check_pairs(table)
    assert (report.rows, report.splits, report.labels) == (9, {"train": 8, "test": 1}, {"1": 7, "0": 2})
    assert report.slices == {"kind": {"x": 8, "y": 1}} and report.slice_values == {"kind": 2}
    assert (report.exact_duplicates, report.same_pairs, report.reversed_duplicates) == (1, 3, 1)
    assert (report.label_conflicts, report.identical_texts, report.near_duplicates) == (2, 1, 1)
    assert report.blank_texts == {"anchor": 1, "positive": 0}
    assert report.overlap == {"train/test": {"texts": 2, "pairs": 1}}
    anchors = report.lengths["anchor"]["words"]
    assert sum(anchors.counts) == 9 and anchors.longest == 12 and anchors.median == 1.0
    assert check_pairs(table, near_duplicates=False).near_duplicates is None
    assert json.loads(json.dumps(report.to_json()))["texts"] == report.texts


def test_what_programs_write_for_a_missing_value_is_counted() -> None:
    table = PairTable.from_columns(
        {"anchor": ["NaN", "nan bread", "c", " null "], "positive": ["a", "b", "None", "d"]}
    )
    assert check_pairs(table).null_texts == {"anchor": 2, "positive": 1}


def test_names_are_there_and_pyarrow_is_lazy() -> None:
    for name in data.__all__:
        assert getattr(data, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        _ = data.nothing
    code = (
        "import sys, leanmatch.data, leanmatch.cli.data.command\n"
        "print([name for name in ('pyarrow', 'scipy') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_real_question_pairs(shared_data: Path) -> None:
    table = read_pairs(shared_data / "question_pairs.tsv.gz")
    assert len(table) == 59_999 and table.slice_columns == ("domain",)
    split = split_pairs(table, SplitOptions(hold_out=("domain=quora",), near_duplicates=False))
    assert len(split.test_out) == 6_000 and len(split.test_in) == 5_999
    assert set(split.train.column("domain")) == {"askubuntu"}
    tests = set(split.test_in.anchors) | set(split.test_in.positives)
    assert not tests & (set(split.train.anchors) | set(split.train.positives))


def test_the_time_of_a_wide_table_grows_with_its_columns() -> None:
    columns = {f"c{i}": [str(row * i % 7) for row in range(20)] for i in range(8000)}
    table = PairTable.from_columns(
        {"anchor": [f"a {i}" for i in range(20)], "positive": [f"b {i}" for i in range(20)], **columns}
    )
    start = time.process_time()
    report = check_pairs(table, near_duplicates=False)
    assert len(report.slices) == 8000
    assert time.process_time() - start < 10, "about a second; 40 where each look-up lists all names"
