from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leanmatch.data import read_pairs
from leanmatch.errors import DataError, UsageError


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_tsv_is_read_without_quoting(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv.gz", 'anchor\tpositive\tlabel\n"quote 5" disk\tdisk "\t1\n"\t""\t0\n')
    table = read_pairs(path)
    assert table.anchors == ['"quote 5" disk', '"']
    assert table.positives == ['disk "', '""']
    assert table.labels.tolist() == [1, 0]


def test_csv_quoting_crlf_and_bom(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.csv",
        b'\xef\xbb\xbfanchor,positive\r\n"a, ""b""\r\nc",d \xf0\x9f\x98\x80\r\n\r\ne,f\r\n',
    )
    table = read_pairs(path)
    assert table.anchors == ['a, "b"\r\nc', "e"]
    assert table.positives == ["d \N{GRINNING FACE}", "f"]


@pytest.mark.parametrize(
    ("name", "content", "line", "column", "says"),
    [
        ("fields.tsv", "anchor\tpositive\na\tb\na\tb\tc\n", 3, "", "3 fields where the header has 2"),
        ("few.csv", "anchor,positive\na\n", 2, "", "1 fields where the header has 2"),
        ("multi.csv", 'anchor,positive\n"a\nb\nc",d\ne,\n', 5, "positive", "missing or blank"),
        ("blank.tsv", "anchor\tpositive\n \tb\n", 2, "anchor", "missing or blank"),
        ("label.csv", "anchor,positive,label\na,b,1\na,b,2\n", 3, "label", "'label' cannot be read"),
        ("nolabel.csv", "anchor,positive,label\na,b,\n", 2, "label", "'label' cannot be read"),
        ("split.csv", "anchor,positive,split\na,b,tset\n", 2, "split", "'split' cannot be read"),
        ("time.csv", "anchor,positive,timestamp\na,b,June\n", 2, "timestamp", "neither an ISO 8601 date"),
        ("ms.csv", "anchor,positive,timestamp\na,b,1622505600000\n", 2, "timestamp", "milliseconds"),
        ("utf8.csv", b"anchor,positive\na,b\na,\xe9t\xe9\nc,d\n", 3, "", "not valid UTF-8"),
        ("quote.csv", 'anchor,positive\n"a,b\nc,d\n', 2, "", "never closed"),
        ("stray.csv", 'anchor,positive\n"a"b,c\n', 2, "", "RFC 4180"),
        ("bad.jsonl", '{"anchor": "a", "positive": "b"}\n{"anchor": "a"\n', 2, "", "not JSON"),
        ("array.jsonl", '[{"anchor": "a", "positive": "b"}]\n', 1, "", "object is needed, not list"),
        ("null.jsonl", '{"anchor": null, "positive": "b"}\n', 1, "anchor", "missing or blank"),
        ("nan.jsonl", '{"anchor": NaN, "positive": "b"}\n', 1, "anchor", "missing or blank"),
        ("number.jsonl", '{"anchor": 5, "positive": "b"}\n', 1, "anchor", "text is needed, not int"),
        ("half.jsonl", '{"anchor": "\\ud83d", "positive": "b"}\n', 1, "anchor", "surrogate"),
        (
            "nanlabel.jsonl",
            '{"anchor": "a", "positive": "b", "label": NaN}\n',
            1,
            "label",
            "'label' cannot be read",
        ),
    ],
)
def test_bad_row(tmp_path: Path, name: str, content: str | bytes, line: int, column: str, says: str) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(DataError, match=says) as caught:
        read_pairs(path)
    assert f"{name}:{line}" in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column or None)
    assert "on_error='skip'" in str(caught.value.remedy)
    assert "--on-error skip" in caught.value.for_command_line()


def test_skip_counts_and_lists(tmp_path: Path) -> None:
    rows = [
        b"anchor\tpositive\tlabel",
        b"a\tb\t1",
        b"\tb\t1",
        b"a\tb",
        b"x\ty\tmaybe",
        b"\xff\tq\t0",
        b"c\td\t0",
    ]
    path = write(tmp_path / "a.tsv", b"\n".join(rows) + b"\n")
    table = read_pairs(path, on_error="skip")
    assert table.anchors == ["a", "c"]
    assert [(row.line, row.column) for row in table.skipped] == [
        (3, "anchor"),
        (4, ""),
        (5, "label"),
        (6, ""),
    ]
    assert table.skipped[2].value == "'maybe'" and table.skipped[2].remedy
    json.dumps([row.to_json() for row in table.skipped])


def test_first_bad_line_is_the_one_raised(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "anchor,positive,label\na,b,7\nc\n")
    with pytest.raises(DataError) as caught:
        read_pairs(path)
    assert caught.value.line == 2


def test_all_rows_bad(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 2 rows can be used"):
        read_pairs(write(tmp_path / "a.csv", "anchor,positive\na,\nb,\n"), on_error="skip")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.csv.gz"])
def test_empty_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"")
    with pytest.raises(DataError, match="empty"):
        read_pairs(path)


def test_gz_of_nothing_header_only_and_absent(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="empty"):
        read_pairs(write(tmp_path / "none.csv.gz", ""))
    with pytest.raises(DataError, match="no rows"):
        read_pairs(write(tmp_path / "header.csv", "anchor,positive\n"))
    with pytest.raises(DataError, match="no such file"):
        read_pairs(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"\.parquet.*\.gz"):
        read_pairs(write(tmp_path / "a.xlsx", "x"))
    with pytest.raises(DataError, match="UTF-16"):
        read_pairs(write(tmp_path / "wide.csv", "anchor,positive\na,b\n".encode("utf-16")))
    with pytest.raises(DataError, match="no readable Parquet"):
        read_pairs(write(tmp_path / "a.parquet", "no parquet at all"))


def test_truncated_and_false_gzip(tmp_path: Path) -> None:
    packed = gzip.compress(b"anchor,positive\n" + b"".join(b"a%d,b%d\n" % (i, i) for i in range(5000)))
    (tmp_path / "cut.csv.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "plain.csv.gz").write_bytes(b"anchor,positive\na,b\n")
    for name in ("cut.csv.gz", "plain.csv.gz"):
        with pytest.raises(DataError, match="gzip data cannot be read"):
            read_pairs(tmp_path / name, on_error="skip")


def test_unknown_handling_of_bad_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "anchor,positive\na,b\n")
    with pytest.raises(UsageError, match="on_error"):
        read_pairs(path, on_error="ignore")  # type: ignore[arg-type]


def test_jsonl_optional_keys_and_negative_lists(tmp_path: Path) -> None:
    lines = [
        {"anchor": "a", "positive": "b", "negative": ["x", "y"]},
        {"anchor": "c", "positive": "d", "year": 2020, "sale": True, "tags": ["p"]},
    ]
    path = write(tmp_path / "a.jsonl", "\n\n".join(map(json.dumps, lines)))
    table = read_pairs(path)
    assert table.negatives == [["x", "y"], []]
    assert table.column("year") == [None, "2020"]
    assert table.column("sale") == [None, "true"]
    assert table.column("tags") == [None, '["p"]']


def test_parquet_rows_and_types(tmp_path: Path) -> None:
    columns = {
        "anchor": pa.array(["a", None, "c"]).dictionary_encode(),
        "positive": ["x", "y", "z"],
        "label": [True, False, False],
        "price": [1, 2, None],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="missing or blank") as caught:
        read_pairs(tmp_path / "a.parquet")
    assert caught.value.line == 2
    table = read_pairs(tmp_path / "a.parquet", on_error="skip")
    assert (
        table.anchors == ["a", "c"]
        and table.labels.tolist() == [1, 0]
        and table.column("price") == ["1", None]
    )


def test_huge_text(tmp_path: Path) -> None:
    text = "word " * 200_000
    for name, comma in (("a.csv", ","), ("a.tsv", "\t")):
        assert read_pairs(write(tmp_path / name, f"anchor{comma}positive\n{text}{comma}b\n")).anchors == [
            text
        ]


def test_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = "".join(f"a{i},b{i},{i % 2}\n" for i in range(25))
    path = write(tmp_path / "a.csv", "anchor,positive,label\n" + rows)
    whole = read_pairs(path)
    monkeypatch.setattr("leanmatch.data.readers.pairs.BATCH_ROWS", 10)
    assert len(read_pairs(path)) == 25
    assert read_pairs(path).fingerprint() == whole.fingerprint()


def test_batch_of_bad_rows_only_keeps_line_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leanmatch.data.readers.pairs.BATCH_ROWS", 2)
    lines = ["x"] * 5 + ['{"anchor": "a", "positive": "b"}', '{"anchor": "c"}']
    table = read_pairs(write(tmp_path / "a.jsonl", "\n".join(lines)), on_error="skip")
    assert table.anchors == ["a"] and [row.line for row in table.skipped] == [1, 2, 3, 4, 5, 7]


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    texts = pa.array(["a b", "c d"])
    twice = pa.Table.from_arrays([texts, texts, texts], names=["anchor", "positive", "anchor"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    with pytest.raises(DataError, match=r"twice\.parquet.*column 'anchor' is there 2 times"):
        read_pairs(tmp_path / "twice.parquet")
    (tmp_path / "twice.jsonl").write_text('{"anchor": "a", "positive": "b", "anchor": "c"}\n')
    with pytest.raises(DataError, match=r"twice\.jsonl.*1.*the key 'anchor' stands 2 times"):
        read_pairs(tmp_path / "twice.jsonl")
