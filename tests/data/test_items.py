from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from leanmatch.data import ItemTable, read_items, read_pairs
from leanmatch.data.readers.delimited import delimiter_named, sniff_delimiter
from leanmatch.data.readers.item_changes import read_changes
from leanmatch.data.readers.items import read_ids
from leanmatch.errors import DataError, UsageError


def test_corpus_form(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl.gz"
    documents = [
        {"_id": "d1", "title": "Dock", "text": "Two ports.", "label": 7},
        {"_id": "d2", "title": "", "text": "Cable"},
    ]
    path.write_bytes(gzip.compress("\n".join(map(json.dumps, documents)).encode()))
    items = read_items(path)
    assert items.ids == ["d1", "d2"] and items.texts == ["Dock Two ports.", "Cable"]
    assert items.metadata(0) == {"title": "Dock", "text": "Two ports.", "label": 7}
    assert items.metadata(1) == {"text": "Cable"}


def test_row_numbers_and_named_columns(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('brand\tname\nacme\t"5" disk\nfoo\tusb\n')
    items = read_items(tmp_path / "a.tsv")
    assert (
        items.ids == ["0", "1"]
        and items.texts == ['"5" disk', "usb"]
        and items.metadata(0) == {"brand": "acme"}
    )
    joined = read_items(tmp_path / "a.tsv", id_column="brand", text_columns=["brand", "name"])
    assert joined.ids == ["acme", "foo"] and joined.texts[1] == "foo usb"


def test_metadata_stays_aligned_when_rows_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text,colour\n1,one,red\n2,,green\n3,three,blue\n")
    with pytest.raises(DataError, match=r"a\.csv:3 column 'text': the text is missing"):
        read_items(tmp_path / "a.csv")
    items = read_items(tmp_path / "a.csv", on_error="skip")
    assert items.ids == ["1", "3"] and items.metadata(1) == {"colour": "blue"}
    assert [row.line for row in items.skipped] == [3]


def test_duplicate_ids_name_both_rows(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\nx,one\ny,two\nx,three\n")
    for mode in ("raise", "skip"):
        with pytest.raises(DataError, match="rows 2 and 4"):
            read_items(tmp_path / "a.csv", on_error=mode)


def test_errors(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,colour,size\nx,red,1\n")
    with pytest.raises(DataError, match="id, colour, size"):
        read_items(tmp_path / "a.csv")
    with pytest.raises(DataError, match="did you mean 'colour'"):
        read_items(tmp_path / "a.csv", text_columns=["color"])
    (tmp_path / "b.csv").write_text("id,text\n")
    with pytest.raises(DataError, match="no items"):
        read_items(tmp_path / "b.csv")
    with pytest.raises(DataError, match="item 1 of a table of 1"):
        ItemTable.from_columns(["a"], ["b"]).metadata(1)
    with pytest.raises(DataError, match="differ in length"):
        ItemTable.from_columns(["a"], [])


@pytest.mark.parametrize(
    ("content", "delimiter"),
    [
        ("id,text\n1,a;b;c\n2,d;e;f\n", ","),
        ("id;text;price\n1;usb dock;19,90\n2;cable, red;5\n", ";"),
        ("id;size, cm;text\n1;2,5;a\n2;3,5;b\n", ";"),
        ('id;text\n1;"a;b"\n2;"c\nd"\n3;x;y\n', ";"),
        ("\ufeffid;text\r\n1;a\r\n", ";"),
        ("id\ttext\n1\ta\n", "\t"),
        ("id|text\n1|a\n", "|"),
        ("text\na;b\nc;d\n", ","),
        ("id;text\n", ";"),
        ("", ","),
        ("id;text\n" + "".join(f"{n};{'x' * 90}\n" for n in range(2000)), ";"),
    ],
)
def test_the_delimiter_is_found(tmp_path: Path, content: str, delimiter: str) -> None:
    (tmp_path / "a.csv").write_text(content, newline="")
    assert sniff_delimiter(tmp_path / "a.csv") == delimiter
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(content.encode()))
    assert sniff_delimiter(tmp_path / "a.csv.gz") == delimiter


def test_semicolons_make_columns_and_an_option_overrides(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id;text;shop\n1;"usb; dock";A\n2;cable;B\n')
    items = read_items(tmp_path / "a.csv")
    assert items.ids == ["1", "2"] and items.texts == ["usb; dock", "cable"]
    assert items.metadata(1) == {"shop": "B"}
    assert read_ids(tmp_path / "a.csv")[0] == ["1", "2"]
    (tmp_path / "b.csv").write_text("id~text\n1~a,b\n")
    assert read_items(tmp_path / "b.csv", delimiter="~").texts == ["a,b"]
    (tmp_path / "c.csv").write_text("id;text\n1;a\n2;b;c\n")
    with pytest.raises(DataError, match="3 fields where the header has 2") as caught:
        read_items(tmp_path / "c.csv")
    assert "semicolon" in caught.value.remedy
    with pytest.raises(UsageError, match="which is jsonl"):
        (tmp_path / "d.jsonl").write_text("{}\n")
        read_items(tmp_path / "d.jsonl", delimiter=";")
    assert delimiter_named("Semicolon") == ";" and delimiter_named("\\t") == "\t"
    for wrong in ("", "ab", "a", '"'):
        with pytest.raises(UsageError, match="the delimiter is"):
            delimiter_named(wrong)


def test_metadata_keeps_what_the_file_says(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"id": 1, "text": "a", "code": "5", "n": 9007199254740993, "f": 1.10, "on": true, "big": 1'
        + "0" * 30
        + ', "list": [1, "é"], "none": null, "empty": ""}\n'
    )
    items = read_items(tmp_path / "a.jsonl")
    assert items.ids == ["1"] and items.metadata(0) == {
        "code": "5",
        "n": 9007199254740993,
        "f": 1.1,
        "on": True,
        "big": 10**30,
        "list": '[1, "é"]',
    }
    (tmp_path / "a.csv").write_text("id,text,code,price,size,on\n1,a,007,19.90,3,true\n2,b,1.10,5,,false\n")
    items = read_items(tmp_path / "a.csv")
    assert items.metadata(0) == {"code": "007", "price": "19.90", "size": 3, "on": True}
    assert items.metadata(1) == {"code": "1.10", "price": "5", "on": False}


def test_changes_hold_only_what_the_file_has(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,price\na,5\nb,\n")
    changes = read_changes(tmp_path / "a.csv")
    assert changes.ids == ["a", "b"] and changes.texts == [None, None]
    assert changes.metadata == [{"price": 5}, {"price": None}]
    (tmp_path / "a.jsonl").write_text('{"id": "a", "price": 5}\n{"id": "b", "text": "new"}\n')
    changes = read_changes(tmp_path / "a.jsonl")
    assert changes.texts == [None, "new"] and changes.metadata == [{"price": 5}, {}]
    (tmp_path / "b.jsonl").write_text('{"id": "a", "text": null}\n')
    with pytest.raises(DataError, match="text is missing or blank"):
        read_changes(tmp_path / "b.jsonl")
    (tmp_path / "c.csv").write_text("price\n5\n")
    with pytest.raises(DataError, match="no column of identifiers"):
        read_changes(tmp_path / "c.csv")
    (tmp_path / "d.csv").write_text("id,price\na,5\na,6\n")
    with pytest.raises(DataError, match="rows 2 and 3"):
        read_changes(tmp_path / "d.csv")
    (tmp_path / "e.csv").write_text("id,price\n,5\nb,6\n")
    with pytest.raises(DataError, match="identifier is missing"):
        read_changes(tmp_path / "e.csv")
    assert read_changes(tmp_path / "e.csv", on_error="skip").ids == ["b"]


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (pa.date32(), 2**30, "1073741824 as date32"),
        (pa.timestamp("us"), 2**62, "4611686018427387904 as timestamp"),
        (pa.timestamp("us", tz="Mars/Olympus"), 5, "Mars/Olympus"),
    ],
)
def test_dates_that_python_has_no_room_for_name_row_and_value(tmp_path: Path, kind, value, said) -> None:
    times = pa.array([None, value], kind)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": ["1", "2"], "text": ["a", "b"], "day": times}), path)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        read_items(path)
    assert (caught.value.line, caught.value.column) == (2, "day")
    assert read_items(path, on_error="skip").ids == ["1"]
    pq.write_table(pa.table({"anchor": ["1", "2"], "positive": ["a", "b"], "day": times}), path)
    with pytest.raises(DataError, match=re.escape(said)) as caught:
        read_pairs(path)
    assert (caught.value.line, caught.value.column) == (2, "day")
    assert len(read_pairs(path, on_error="skip")) == 1


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("us")])
def test_timestamps_that_python_has_no_room_for(tmp_path: Path, kind) -> None:
    path = tmp_path / "a.parquet"
    far = 2**30 if kind == pa.date32() else 2**62
    for first in (5, None):
        times = pa.array([first or 5, far], kind)
        pq.write_table(pa.table({"anchor": ["1", "2"], "positive": ["a", "b"], "timestamp": times}), path)
        with pytest.raises(DataError, match=f"{far} as") as caught:
            read_pairs(path)
        assert (caught.value.line, caught.value.column) == (2, "timestamp")
        assert read_pairs(path, on_error="skip").column("timestamp")[0].year == 1970


@pytest.mark.parametrize(
    ("header", "identifier", "text"),
    [
        ("id,sku,title,body", "id", ("title",)),
        ("SKU,Title,Text", "SKU", ("Title", "Text")),
        ("product id,Product Name,price", "product id", ("Product Name",)),
        ("brand,name", None, ("name",)),
    ],
)
def test_usual_columns_are_found(tmp_path, header, identifier, text):
    width = header.count(",") + 1
    rows = [",".join(f"v{row}{column}" for column in range(width)) for row in range(3)]
    path = tmp_path / "items.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    items = read_items(path)
    assert items.id_column == identifier and items.text_columns == text


def test_several_columns_that_may_be_the_identifier_are_refused_with_what_to_write(tmp_path):
    path = tmp_path / "items.csv"
    path.write_text("sku,asin,title\n1,2,usb dock\n3,4,hdmi cable\n")
    with pytest.raises(DataError, match="several columns may be the identifier: sku, asin") as caught:
        read_items(path)
    assert caught.value.command == "name one: --id-column sku or --id-column asin"
    assert read_items(path, id_column="sku").ids == ["1", "3"]
    path.write_text("sku,asin,title\n1,2,usb dock\n1,4,hdmi cable\n")
    assert read_items(path).id_column == "asin", "an identifier names each row once"
