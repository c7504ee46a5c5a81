from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from leanmatch.data import PairTable, read_pairs, write_pairs
from leanmatch.errors import DataError

ENDINGS = ["csv", "tsv", "jsonl", "parquet", "csv.gz", "tsv.gz", "jsonl.gz", "parquet.gz"]
ANY = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
ROW = st.tuples(ANY.filter(str.strip), ANY.filter(str.strip), st.integers(0, 1), ANY | st.none())
AWKWARD = [('say "hi"\r\nthere\t\N{GRINNING FACE}', "\ufeffx,\x00", 1, None), ('"', "\r", 0, "a\\n")]
AWKWARD[1] = ('"', "x\r", 0, "a\\n")


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=4), ending=st.sampled_from(ENDINGS))
@example(rows=AWKWARD, ending="csv")
@example(rows=AWKWARD, ending="jsonl")
@example(rows=AWKWARD, ending="parquet.gz")
def test_round_trip(rows: list[tuple[str, str, int, str | None]], ending: str) -> None:
    names = ("anchor", "positive", "label", "group")
    columns = {name: list(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}
    table = PairTable.from_columns(columns | {"timestamp": ["2021-06-01T10:00:00.5Z"] * len(rows)})
    unsafe = any(c in text for row in rows for text in (row[0], row[1], row[3] or "") for c in "\t\r\n")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"pairs.{ending}")
        if ending.startswith("tsv") and unsafe:
            with pytest.raises(DataError, match="TSV cannot hold"):
                write_pairs(table, path)
            assert not list(Path(folder).iterdir())
            return
        write_pairs(table, path)
        again = read_pairs(path)
    assert again.anchors == table.anchors and again.column("group") == table.column("group")
    assert again.fingerprint() == table.fingerprint()


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = PairTable.from_columns({"anchor": ["a"], "positive": ["b"]})
    path = tmp_path / "a.csv"
    write_pairs(table, path)
    before = path.read_bytes()

    def broken(_: object) -> object:
        yield {"anchor": "x"}
        raise OSError("disk full")

    monkeypatch.setattr("leanmatch.data.writers._rows", broken)
    with pytest.raises(OSError, match="disk full"):
        write_pairs(table, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_unknown_ending(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="format is not known"):
        write_pairs(PairTable.from_columns({"anchor": ["a"], "positive": ["b"]}), tmp_path / "a.txt")
