from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from leanmatch.data import ItemTable, read_items
from leanmatch.data.fingerprints import table_fingerprint
from leanmatch.data.readers.delimited import delimiter_named, sniff_delimiter
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
    assert items.metadata(0) == {"title": "Dock", "text": "Two ports.", "label": "7"}
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
    assert len({items.fingerprint(), joined.fingerprint()}) == 2


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


def test_the_fingerprint_is_that_of_a_table_with_these_columns() -> None:
    items = ItemTable.from_columns(["1", "b"], ["usb dock", "日本 \N{ROCKET}"])
    text = pa.large_string()
    table = pa.table({"id": pa.array(items.ids, text), "text": pa.array(items.texts, text)})
    assert items.fingerprint() == table_fingerprint(table)


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
