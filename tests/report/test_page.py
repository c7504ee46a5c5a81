"""The page: whole, self-contained, safe against hostile texts, written whole or not at all."""

from __future__ import annotations

import errno
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanmatch.data import PairTable
from leanmatch.errors import MissingExtraError
from leanmatch.report import DiagnoseOptions, diagnose, render_page, write_page
from leanmatch.report.charts import Axis, number

VOID = {"meta", "link", "input", "br", "circle", "line"}


class Page(HTMLParser):
    """Elements by id, what stands in them, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.addresses, self.scripts, self.text = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.addresses += [found[name] for name in ("src", "href", "action", "data") if name in found]
        if tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attributes):
        if tag not in VOID:
            raise AssertionError(f"<{tag}/>")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1] += data
        else:
            self.text.append(data)


def embedded(page):
    return json.loads(page.scripts[0])


def letters(texts):
    import numpy as np

    vectors = np.array([[text.count(c) + 0.01 for c in "abcdef<"] for text in texts], np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def other_letters(texts):
    return letters([text[1:] for text in texts])


HOSTILE = [
    "</script><script>alert(1)</script> a",
    "<!-- b --> <img src=x onerror=alert(1)> b",
    "{{ 7*7 }} c &amp; \u2028 d",
]


@pytest.fixture(scope="module")
def hostile():
    columns = {
        "anchor": [f"{t} a{i}" for i, t in enumerate(HOSTILE * 4)],
        "positive": HOSTILE * 4,
        "<b>col": ["<i>1", "<i>2"] * 6,
    }
    return diagnose(
        letters,
        PairTable.from_columns(columns, "<script>source</script>"),
        against=other_letters,
        options=DiagnoseOptions(resamples=100, min_pairs=1),
        name="<u>m",
        against_name="{{ b }}",
    )


def test_the_page_is_whole_and_loads_nothing(plain):
    page = Page(render_page(plain))
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert {"slices", "words", "concentration", "pairs", "method", "list", "search"} <= set(page.ids)
    assert all(address.startswith("#") or address == "data:," for address in page.addresses)
    text = render_page(plain)
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in text


def test_the_page_has_the_numbers(plain):
    text = render_page(plain)
    page = Page(text)
    part = plain.evaluation.slices["out of distribution"].metrics["MRR@10"]
    assert number(100 * part.value, 1) in page.text
    assert number(plain.words[0].difference, sign=True) in page.text
    found = embedded(page)
    assert found["pairs"] == json.loads(json.dumps(plain.to_json()["pairs"]))
    assert found["slices"] == ["in distribution", "out of distribution"]
    assert "site=toys" in text, "a twin is named beside the slice"


def test_hostile_texts_stay_texts(hostile):
    page = Page(render_page(hostile))
    assert page.open == []
    assert len(page.scripts) == 2
    assert "alert(1)" not in page.scripts[1]
    assert {pair["positive"]["text"] for pair in embedded(page)["pairs"]} == set(HOSTILE)
    whole = "".join(page.text)
    assert "<script>source</script>" in whole and "<u>m" in whole and "{{ b }}" in whole
    assert "49" not in re.findall(r"\d+ c", whole)


def test_a_small_and_dull_case():
    table = PairTable.from_columns({"anchor": ["a b", "?"], "positive": ["b", "c"]})
    found = diagnose(letters, table, against=letters, options=DiagnoseOptions(resamples=100))
    text = render_page(found)
    assert "No word stands in enough pairs, or none surely moved." in text
    assert found.gained() == [] == found.lost()


def test_written_whole_or_not_at_all(plain, tmp_path, monkeypatch):
    path = tmp_path / "new" / "report.html"
    write_page(plain, path)
    before = path.read_text(encoding="utf-8")
    assert before == render_page(plain)

    def full(self, *given, **named):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        write_page(plain, path)
    assert path.read_bytes().decode() == before
    assert [one.name for one in path.parent.iterdir()] == ["report.html"]


def test_without_jinja(plain, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"leanmatch\[report\]"):
        write_page(plain, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@given(st.lists(st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-6), max_size=5))
def test_axes_hold_their_values(values):
    axis = Axis.over(values)
    assert axis.low <= min([0.0, *values]) + 1e-9 and axis.high >= max([0.0, *values]) - 1e-9
    assert 2 <= len(axis.ticks) <= 8
    for value in values:
        assert 0 <= float(axis.at(value).rstrip("%")) <= 100
