from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from leanmatch.data import read_pairs
from leanmatch.errors import DataError, UsageError


def lines(path: Path, objects: list[dict[str, object]]) -> None:
    data = "".join(json.dumps(found) + "\n" for found in objects).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    lines(tmp_path / "corpus.jsonl", [{"_id": f"d{i}", "title": f"T{i}", "text": f"x{i}"} for i in range(3)])
    lines(tmp_path / "queries.jsonl", [{"_id": "q0", "text": "zero"}, {"_id": "q1", "text": "one"}])
    (tmp_path / "qrels").mkdir()
    header = "query-id\tcorpus-id\tscore\n"
    (tmp_path / "qrels" / "train.tsv").write_text(header + "q0\td0\t2\nq0\td1\t0\n")
    (tmp_path / "qrels" / "dev.tsv").write_text(header + "q1\td2\t1\n")
    return tmp_path


def test_beir(beir: Path) -> None:
    table = read_pairs(beir)
    rows = zip(table.column("anchor_id"), table.column("positive_id"), table.labels.tolist(), strict=True)
    assert dict.fromkeys(rows) == dict.fromkeys([("q1", "d2", 1), ("q0", "d0", 1), ("q0", "d1", 0)])
    assert table.select_split("valid").positives == ["T2 x2"]
    assert table.select_split("train").column("relevance") == [2.0, 0.0]
    assert table.corpus is not None and table.corpus.ids == ["d0", "d1", "d2"]
    assert table.slice_columns == ()


@pytest.mark.parametrize(
    ("row", "says"),
    [("q9\td0\t1", "no such query"), ("q0\td9\t1", "no such document"), ("q0\td0\tx", "grade")],
)
def test_beir_bad_judgement(beir: Path, row: str, says: str) -> None:
    with (beir / "qrels" / "train.tsv").open("a") as handle:
        handle.write(row + "\n")
    with pytest.raises(DataError, match=says) as caught:
        read_pairs(beir)
    assert caught.value.line == 4 and "train.tsv:4" in str(caught.value)
    assert len(read_pairs(beir, on_error="skip").skipped) == 1


def test_beir_missing_parts(beir: Path) -> None:
    (beir / "qrels" / "train.tsv").rename(beir / "qrels" / "other.tsv")
    with pytest.raises(DataError, match="name is no split"):
        read_pairs(beir)
    (beir / "qrels" / "other.tsv").write_text("a\tb\n1\t2\n")
    (beir / "qrels" / "other.tsv").rename(beir / "qrels" / "train.tsv")
    with pytest.raises(DataError, match="query-id, corpus-id, score"):
        read_pairs(beir)
    (beir / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match=r"corpus\.jsonl: the file is missing"):
        read_pairs(beir)


@pytest.fixture
def xmc(tmp_path: Path) -> Path:
    lines(
        tmp_path / "lbl.json.gz", [{"uid": f"L{i}", "title": f"label {i}", "content": ""} for i in range(3)]
    )
    train = [
        {"uid": "A", "title": "first", "content": "more", "target_ind": [0, 2], "target_rel": [1.0, 0.5]},
        {"uid": "B", "title": "second", "content": "", "target_ind": []},
        {"uid": "C", "title": "third", "content": "", "target_ind": [1, 0]},
    ]
    lines(tmp_path / "trn.json.gz", train)
    lines(tmp_path / "tst.json.gz", [{"uid": "D", "title": "fourth", "content": "", "target_ind": [1]}])
    (tmp_path / "filter_labels_train.txt").write_text("2 0\n")
    return tmp_path


def test_xmc(xmc: Path) -> None:
    table = read_pairs(xmc)
    pairs = list(zip(table.anchors, table.positives, table.column("split"), strict=True))
    assert pairs == [
        ("first more", "label 0", "train"),
        ("first more", "label 2", "train"),
        ("third", "label 1", "train"),
        ("fourth", "label 1", "test"),
    ]
    assert table.column("relevance") == [1.0, 0.5, None, None]
    assert table.corpus is not None and table.corpus.ids == ["L0", "L1", "L2"]
    assert table.column("positive_id")[3] == "L1" and not table.has_labels


@pytest.mark.parametrize(
    ("point", "says"),
    [
        ({"uid": "E", "title": "x", "target_ind": [3]}, "no row of lbl, which has 3"),
        ({"uid": "E", "title": "x", "target_ind": 1}, "list of rows"),
        ({"uid": "E", "title": "", "content": "", "target_ind": [1]}, "has no text"),
        ({"uid": "E", "title": "x", "target_ind": [1], "target_rel": []}, "one value for each"),
    ],
)
def test_xmc_bad_point(xmc: Path, point: dict[str, object], says: str) -> None:
    good = {"uid": "D", "title": "fourth", "target_ind": [1]}
    lines(xmc / "tst.json.gz", [point, good])
    with pytest.raises(DataError, match=says) as caught:
        read_pairs(xmc)
    assert "tst.json.gz:1" in str(caught.value)
    table = read_pairs(xmc, on_error="skip")
    assert len(table.skipped) == 1 and len(table) == 4


def test_xmc_bad_label_keeps_the_numbering(xmc: Path) -> None:
    labels = [{"uid": "L0", "title": "zero"}, {"uid": "L1", "title": ""}, {"uid": "L2", "title": "two"}]
    lines(xmc / "lbl.json.gz", labels)
    with pytest.raises(DataError, match="label has no text"):
        read_pairs(xmc)
    table = read_pairs(xmc, on_error="skip")
    assert table.positives == ["zero", "two"] and len(table.skipped) == 1


def test_xmc_bad_filter(xmc: Path) -> None:
    (xmc / "filter_labels_train.txt").write_text("1 1\n5\n")
    with pytest.raises(DataError, match=r"train\.txt:2: a row and a label"):
        read_pairs(xmc)


def test_other_folder(tmp_path: Path, beir: Path) -> None:
    with pytest.raises(UsageError, match="layout fixes them"):
        read_pairs(beir, columns={"a": "b"})
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match="neither a BEIR nor an XMC folder; it holds: nothing"):
        read_pairs(tmp_path / "sub")
