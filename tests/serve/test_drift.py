"""The drift monitor: shares, indices, verdicts, and that it keeps no text."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "index"))
from catalogue_models import HashEncoder

from leanmatch.errors import FormatError
from leanmatch.index import Catalogue, Item, create_catalogue
from leanmatch.serve.monitoring import languages
from leanmatch.serve.monitoring.drift import (
    Monitor,
    Reference,
    TokenCounter,
    build_reference,
    category_column,
    observe,
    score_index,
    script_of,
    stability_index,
    words_of,
)


@pytest.fixture
def catalogue(folder):
    return Catalogue.open(folder)


@pytest.fixture
def reference(catalogue, encoder):
    return build_reference(catalogue, encoder, [f"thing number {n % 30}" for n in range(400)], "made up")


def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["[UNK]", "thing", "number", *map(str, range(30))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return made


def ask(monitor, catalogue, encoder, texts, counter=None):
    found = catalogue.search(encoder(texts), 1, exclude=[catalogue.same_as(text) for text in texts])
    best = [(float(one.scores[0]), catalogue.metadata(int(one.rows[0]))) for one in found]
    monitor.add(observe(counter or TokenCounter(None), texts, monitor.reference.column, best))


def measures(monitor):
    report = monitor.report()
    return report, {one["name"]: one for one in report["measures"]}


def test_the_same_queries_are_steady(catalogue, encoder, reference):
    monitor = Monitor(reference)
    ask(monitor, catalogue, encoder, [f"thing number {n % 30}" for n in range(300)])
    report, found = measures(monitor)
    assert report["verdict"] == "steady" and report["column"] == "category", report
    assert found["new_words"]["live"] == 0 and found["categories"]["live"] < 0.1
    assert sum(row["live"] for row in report["categories"]) == pytest.approx(1, abs=0.01)


def test_other_queries_are_a_shift(catalogue, encoder, reference):
    monitor = Monitor(reference)
    ask(monitor, catalogue, encoder, [f"совсем другие слова {n}" for n in range(300)])
    report, found = measures(monitor)
    assert report["verdict"] == "strong"
    assert found["new_words"]["live"] > 0.7 and found["new_words"]["level"] == "strong"
    assert found["scripts"]["live"] > 1 and found["scores"]["level"] == "strong"


def test_few_queries_are_not_judged(catalogue, encoder, reference):
    monitor = Monitor(reference)
    ask(monitor, catalogue, encoder, ["совсем другие слова"] * 99)
    assert monitor.report()["verdict"] == "too few queries to say" and not monitor.report()["enough"]


def test_unknown_tokens(catalogue, encoder):
    class WithTokenizer:
        def __call__(self, texts):
            return encoder(texts)

    model = WithTokenizer()
    model.tokenizer = tokenizer()
    reference = build_reference(catalogue, model, ["thing number 1"] * 200, "made up")
    assert reference.profile.tokens == 600 and reference.profile.unknown == 0
    monitor = Monitor(reference)
    ask(monitor, catalogue, encoder, ["thing zebra"] * 100, TokenCounter(model.tokenizer))
    assert measures(monitor)[1]["unknown_tokens"]["live"] == 0.5


def test_it_is_written_without_texts(reference, tmp_path):
    path = tmp_path / "r.json"
    reference.write(path)
    assert "thing" not in path.read_text() and "number" not in path.read_text()
    again = Reference.read(path.read_bytes(), path)
    assert np.array_equal(again.vocabulary, reference.vocabulary) and again.column == reference.column
    assert again.profile.scripts == reference.profile.scripts and again.held_out == reference.held_out
    sound = json.loads(path.read_text())
    wrong = (
        {"queries": 1e400},
        {"scores": [float("nan")]},
        {"scripts": {"Latin": "x"}},
        {"categories": [[]]},
        {"column": 3},
        {"source": None},
        {"vocabulary": "AAA"},
    )
    hurt = [json.dumps({**sound, **change}) for change in wrong]
    for damage in ("", "{}", '{"format": "other"}', "[]", '{"format": ' + "[" * 100_000, *hurt):
        path.write_text(damage)
        with pytest.raises(FormatError, match="is no reference"):
            Reference.read(path.read_bytes(), path)


def test_stability_index_is_the_formula():
    p, q = {"a": 30, "b": 70}, {"a": 60, "b": 40}
    expected = sum(
        ((q[k] + 0.5) / 101 - (p[k] + 0.5) / 101) * math.log(((q[k] + 0.5) / 101) / ((p[k] + 0.5) / 101))
        for k in p
    )
    assert stability_index(p, q) == pytest.approx(expected) and expected > 0.25
    assert stability_index({"a": 3}, {"a": 9}) == 0
    scores = np.random.default_rng(0).normal(size=5000)
    assert (
        score_index(list(scores), list(scores[::2])) < 0.01
        and score_index(list(scores), list(scores + 1)) > 0.25
    )
    assert score_index([1.0] * 50, [1.0] * 50) == 0 and score_index([], [1.0]) == 0


def test_words_and_scripts():
    assert words_of("Usb  DOCK") == words_of("usb dock") != words_of("usb")
    assert [script_of(text) for text in ("usb 3", "шина", "数据 x", "123", "ひらがな")] == [
        "Latin",
        "Cyrillic",
        "Han",
        "none",
        "Hiragana",
    ]


def test_the_server_feeds_it(client):
    deadline = time.monotonic() + 20
    while client.get("/v1/status").json()["drift"] is None:  # made after the first answers
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for n in range(3):
        client.post("/v1/recommend", json={"texts": [f"thing {n}", "x"], "k": 1})
    client.post("/v1/recommend", json={"texts": ["a"], "k": 1, "filter": "price < 3"})
    report = client.get("/v1/status").json()["drift"]
    assert report["queries"] == 6 and "items" in report["reference"]["source"]


def short_queries():
    """Made up, by language."""
    lines = Path(__file__).with_name("short_queries.txt").read_text(encoding="utf-8").splitlines()
    return [line.split("\t") for line in lines]


def test_no_language_is_told_wrongly():
    pytest.importorskip("py3langid", reason="py3langid is not installed (extra serve)")
    import py3langid

    language_of = languages.identifier()
    queries = short_queries()
    told = [(query, language_of(query), name) for name, query in queries]
    assert [one for one in told if one[1] not in (None, one[2])] == []
    assert sum(one[1] is not None for one in told) > 0.4 * len(queries) > 70
    alone = sum(py3langid.classify(query)[0] != name for name, query in queries)
    assert alone > 50  # py3langid alone: there is something to be careful about
    for text in (
        "sort an array",
        "usb c dock",
        "a",
        "",
        "123",
        "!!!",
        "coffee maker",
        "\ud800 broken text here",
    ):
        assert language_of(text) in (None, "en"), text
    assert language_of("数据库连接超时怎么办") == "zh"


def test_a_shift_of_languages(catalogue, encoder):
    pytest.importorskip("py3langid", reason="py3langid is not installed (extra serve)")
    english = ["how do i update my card details", "noise cancelling headphones", "find nearest neighbours"]
    german = [
        "warum wurde meine zahlung abgelehnt",
        "günstige flüge nach rom für zwei personen",
        "schreibtisch höhenverstellbar",
    ]
    short = ["red dress", "usb c dock", "sort an array"]
    reference = build_reference(catalogue, encoder, (english + short) * 35, "made up")
    assert reference.profile.languages == {"en": 105} and reference.profile.queries == 210
    for texts, level in ((english + short, "steady"), (german + short, "strong")):
        monitor = Monitor(reference)
        ask(monitor, catalogue, encoder, texts * 25)
        report, found = measures(monitor)
        assert found["languages"]["level"] == level and report["languages_note"] is None
        assert found["scripts"]["level"] == "steady"  # which cannot see it
    assert {row["name"]: row["live"] for row in report["languages"]} == {"en": 0, "de": 1}
    assert report["languages_told"] == {"live": 75, "queries": 150}


def test_languages_of_short_queries_are_not_compared(catalogue, encoder):
    pytest.importorskip("py3langid", reason="py3langid is not installed (extra serve)")
    reference = build_reference(catalogue, encoder, ["how do i update my card details"] * 210, "made up")
    monitor = Monitor(reference)
    ask(monitor, catalogue, encoder, ["sort an array"] * 150)
    report, found = measures(monitor)
    assert "languages" not in found and report["languages"] == []
    assert "0 live queries can be told, 210 texts of the reference" in report["languages_note"]


def test_without_a_language_identifier(catalogue, encoder, reference, monkeypatch):
    monkeypatch.setitem(sys.modules, "py3langid", None)
    languages.identifier.cache_clear()
    try:
        monitor = Monitor(reference)
        ask(monitor, catalogue, encoder, ["thing number 1"] * 100)
        report, found = measures(monitor)
        assert "languages" not in found and "py3langid is not installed" in report["languages_note"]
    finally:
        languages.identifier.cache_clear()


def test_a_reference_from_before_languages(catalogue, encoder, reference, tmp_path):
    pytest.importorskip("py3langid", reason="py3langid is not installed (extra serve)")
    reference.write(tmp_path / "r.json")
    document = json.loads((tmp_path / "r.json").read_text())
    document["languages"] = {"br": 400}
    assert document.pop("languages_by")
    (tmp_path / "r.json").write_text(json.dumps(document))
    report, found = measures(Monitor(Reference.read((tmp_path / "r.json").read_bytes(), "r.json")))
    assert "languages" not in found and "leanmatch index reference" in report["languages_note"]


def test_texts_of_numbers_are_no_category(tmp_path):
    items = [Item(str(n), f"thing {n}", {"price": f"{n % 3}.90", "shop": "AB"[n % 2]}) for n in range(9)]
    create_catalogue(tmp_path / "c", items, HashEncoder())
    catalogue = Catalogue.open(tmp_path / "c")
    assert catalogue.manifest.columns == {"price": "text", "shop": "text"}
    assert category_column(catalogue) == "shop"
