"""The matcher in a web page gives what Python gives: tokens, vectors, filters, searches, explanations."""

from __future__ import annotations

import json
import random
import shutil

import numpy as np
import pytest

from leanmatch.errors import UsageError
from leanmatch.index import filter_from_json, filter_to_json, filter_to_text, parse_filter
from leanmatch.index.filters.expression import AllOf, AnyOf, Compare, IsIn, Missing, Not
from leanmatch.serve.explaining import Explainer
from leanmatch.web.catalogue import rounded

START = ({"do": "load"}, {"do": "open"})

PIECES = (
    *("usb", "dock", "Camera", "naïve", "CAFÉ", "e\u0301clair", "ΟΔΟΣ", "İstanbul", "straße", "ﬁne", "ⅷ"),
    *(
        "½",
        "日本語",
        "𠀀𠀁",
        "한국어",
        "ไทย",
        "क्षि",
        "👩\u200d🚀",
        "🇩🇪",
        "🥰",
        "\u200b",
        "\ufeff",
        "\x85",
        "\x00",
    ),
    *("[MASK]", "[SEP]", "3.5", "don't", "usb-c", "__init__", "...", "¿qué?", "“quoted”", "\t", "\n"),
    *("antidisestablishmentarianism", "x" * 120),
)


def texts(count=500):
    """Short and long texts of all kinds."""
    draw = random.Random(7)
    letters = "".join(draw.choice("abc de,f") for _ in range(10_000))
    made = ["", " ", "dock " * 2000, "日" * 10_000, letters]
    while len(made) < count:
        if len(made) % 5 == 0:
            ranges = ((32, 0x3000), (0x10000, 0x1FFFF))
            made.append("".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(8)))
        else:
            words = (draw.choice(PIECES) + draw.choice(("", " ", " ", " ", "-")) for _ in range(5))
            made.append("".join(list(words)[: draw.randrange(6)]))
    return made


def test_tokens_and_vectors(site, encoder, reference, node):
    given = texts()
    loaded, tokens, vectors, empty, wrong = node(
        site,
        [
            {"do": "load"},
            {"do": "tokenize", "texts": given},
            {"do": "encode", "texts": given},
            {"do": "encode", "texts": []},
            {"do": "encode", "texts": ["a", 7]},
        ],
    )
    assert loaded["dimension"] == encoder.dimension and loaded["progress"][0] == loaded["progress"][1] > 1e6
    expected = [encoding.ids for encoding in encoder.encodings(given)]
    assert len(set(map(tuple, expected))) > 250  # many of the characters are unknown ones
    different = [text for text, ours, theirs in zip(given, expected, tokens, strict=True) if ours != theirs]
    assert not different
    cosines = (reference.encode(given) * np.array(vectors)).sum(axis=1)
    assert cosines.min() >= 0.9999
    assert empty == [] and "number" in wrong["error"] and wrong["ours"]


def test_roles_use_the_models_prompts(site, reference, node, tmp_path):
    changed = tmp_path / "site"
    shutil.copytree(site, changed)
    manifest = changed / "model" / "model.json"
    content = json.loads(manifest.read_text(encoding="utf-8"))
    assert content["prompts"] == {"query": "", "document": ""}
    manifest.write_text(json.dumps({**content, "prompts": {"query": "find: ", "document": "item: "}}))
    roles = [{"do": "encode", "texts": ["usb dock"], "role": role} for role in ("Query", "Document", "")]
    _, *found = node(changed, [{"do": "load"}, *roles])
    expected = reference.encode(["find: usb dock", "item: usb dock", "usb dock"])
    assert (expected @ expected.T)[0, 1:].max() < 0.999  # prompts matter
    assert (expected * np.concatenate(found)).sum(axis=1).min() >= 0.9999


FILTERS = (
    'category = "Toys"',
    'category != "Toys"',
    'category < "\U00010000"',
    'category >= "\uffee wide"',
    "category is missing",
    "not category is missing and stock = true",
    "price < 20",
    "price >= 7 and price < 13.5 or price is missing",
    "price in (1, 2, 13, 13.0)",
    "price not in (1, 2)",
    "not price > 9",
    "serial = 1152921504606846978",
    "serial > 1152921504606846976",
    "serial < 1152921504606846976.0",
    "serial in (1152921504606846977, 5)",
    "serial >= 99999999999999999999999",
    "weight = 1.1",
    'weight = "1.1"',
    "weight > 1.1",
    "weight in (20, 1.10)",
    'weight in (20, "1.1")',
    "weight <= -3",
    'weight < "2"',
    "`odd name (kg)` = '07'",
    "stock < true",
    "stock in ()",
    "(category = 'Toys' or category = 'Tools') and not (price < 10 or stock = false)",
    'category = "a \\" quote"',
)
WRONG = (
    "category = 5",
    'price = "cheap"',
    "`odd name (kg)` = true",
    "stock = 1",
    "colour = 1",
    "price <",
    "price < 5 and",
    "price ~ 5",
    "(price < 5",
    "price in 5",
    "category is",
    "price < 1e999",
    "not " * 40 + "price < 1",
    {"column": "price"},
    {"column": "price", "about": 5},
    {"and": []},
    {"column": "price", "in": 5},
    {"column": "price", "eq": None},
    [1],
    {"column": "price", "in": [1] * 10_001},
)


def read_filter(given):
    """A filter in either form."""
    return parse_filter(given) if isinstance(given, str) else filter_from_json(given)


def drawn_filter(draw, catalogue, depth=0):
    """A filter of any form with values that items have, or nearly have."""
    if depth < 3 and draw.random() < 0.45:
        parts = tuple(drawn_filter(draw, catalogue, depth + 1) for _ in range(draw.randint(2, 3)))
        return draw.choice((AllOf(parts), AnyOf(parts), Not(parts[0])))
    name = draw.choice(list(catalogue.manifest.columns))
    all_values = (catalogue.metadata(row).get(name) for row in range(len(catalogue)))
    values = [value for value in all_values if value is not None]
    value = draw.choice(values)
    if name in ("price", "serial"):
        value += draw.choice((0, 0, 1, 0.5)) if name == "price" else draw.choice((0, 1, -1))
    if name == "weight" and draw.random() < 0.5:
        value = float(value)
    if draw.random() < 0.1:
        return Missing(name)
    if draw.random() < 0.25:
        return IsIn(name, (*draw.sample(values, 2), value))
    return Compare(name, draw.choice(("eq", "ne", "lt", "le", "gt", "ge")), value)


def marked(value):
    """JSON in which integers beyond 2 ** 53 are marked: ``calls.mjs`` makes bigints of them."""
    if isinstance(value, dict):
        return {name: marked(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [marked(inner) for inner in value]
    return f"{value}n" if type(value) is int and abs(value) > 2**53 else value


def test_filters(site, catalogue, node):
    draw = random.Random(3)
    drawn = [drawn_filter(draw, catalogue) for _ in range(150)]
    filters = [*map(parse_filter, FILTERS), *drawn]
    expected = [sorted(catalogue.ids[row] for row in catalogue.select(one).rows) for one in filters]
    assert len(set(map(tuple, expected))) > 80
    given = [*FILTERS, *map(filter_to_text, drawn), *(marked(filter_to_json(one)) for one in filters)]
    found = node(site, [*START, *({"do": "ids", "text": "dock", "filter": one} for one in given)])[2:]
    for one, result, wanted in zip(given, found, expected * 2, strict=True):
        assert result == wanted, one


def test_wrong_filters_say_what_the_server_says(site, catalogue, node):
    found = node(site, [*START, *({"do": "ids", "text": "dock", "filter": given} for given in WRONG)])[2:]
    for given, result in zip(WRONG, found, strict=True):
        with pytest.raises(UsageError) as raised:
            catalogue.select(read_filter(given))
        wanted = raised.value.problem.replace(",000", "000")[:17]
        assert result["ours"] and result["error"].startswith(wanted), (given, wanted, result["error"])


def test_searches(site, catalogue, reference, node):
    queries = ["usb c dock", "camera for kids", "日本", "something to drink from", "headphones"]
    where = [None, "price < 30", {"column": "category", "in": ["Toys", "Tools"]}, "category = 'none'"]
    calls = [{"do": "search", "text": text, "k": 7, "filter": given} for text in queries for given in where]
    odd = [{"do": "search", "text": text, "k": k} for text, k in (("dock", 1000), (" ", 3), ("dock", 0))]
    _, opened, *found, whole, blank, none = node(site, [*START, *calls, *odd])
    assert opened["items"] == len(catalogue) and opened["samples"]
    assert [(one["name"], one["type"]) for one in opened["columns"]] == [*catalogue.manifest.columns.items()]
    vectors = reference.encode(queries)
    codes, scales = rounded(catalogue.vectors(range(len(catalogue))))
    scores = vectors @ (codes * scales[:, None]).T
    results = iter(found)
    for row in range(len(queries)):
        for given in where:
            condition = None if given is None else read_filter(given)
            result = next(results)
            rows = [catalogue.row(one["id"]) for one in result]
            passing = range(len(catalogue)) if condition is None else catalogue.select(condition).rows
            best = np.sort(scores[row, list(passing)])[::-1][:7]
            assert [one["rank"] for one in result] == list(range(1, len(best) + 1))
            assert set(rows) <= set(passing)
            assert np.allclose([one["score"] for one in result], scores[row, rows], atol=2e-3)
            assert np.allclose([one["score"] for one in result], best, atol=2e-3)
            assert [one["text"] for one in result] == [catalogue.text(at) for at in rows]
            exact = catalogue.search(vectors[row : row + 1], 7, filters=[condition])[0]
            assert np.allclose([one["score"] for one in result], exact.scores, atol=4e-3)
    assert len(whole) == len(catalogue)
    items = {one["id"]: one["metadata"] for one in whole}
    for row, name in enumerate(catalogue.ids):
        stored = catalogue.metadata(row)
        assert (
            items[name] == {**stored, "serial": marked(stored["serial"]).rstrip("n")}
            if stored["serial"] > 2**53
            else stored
        )
    assert blank == [] and "k is 0" in none["error"]


def test_explanations(site, catalogue, reference, node):
    pairs = [("usb-c dock, don't hurry 👩\u200d🚀", at) for at in (0, 7, 8)]
    pairs += [("café " * 12, 5), ("日本の茶", 6)]
    calls = [{"do": "explain", "text": text, "id": catalogue.ids[at]} for text, at in pairs]
    _, _, *found, missing = node(site, [*START, *calls, {"do": "explain", "text": "a", "id": "nobody"}])
    asked = [(text, [catalogue.text(at)]) for text, at in pairs]
    expected = Explainer(reference).explain([(asked, lambda: False)])[0]
    strongest = 0.0
    for result, [(query, item)] in zip(found, expected, strict=True):
        assert result["level"] == "tokens"
        for words, effects in ((result["query"], query), (result["item"], item)):
            assert [(word["start"], word["end"]) for word in words] == [one[:2] for one in effects]
            numbers = [effect for _, _, effect in effects]
            assert np.allclose([word["importance"] for word in words], numbers, atol=2e-3)
            strongest = max(strongest, *numbers)
    assert strongest > 0.1
    assert "no item 'nobody'" in missing["error"]
