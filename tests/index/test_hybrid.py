"""Hybrid search of catalogues: against a sum over all items, through changes, filters and damage."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("bm25s", reason="bm25s is not installed (extra hybrid)")
sys.path.insert(0, str(Path(__file__).parent))
from catalogue_models import HashEncoder, items_of_shop

from leanmatch.errors import FormatError, MissingExtraError, UsageError
from leanmatch.index import (
    Catalogue,
    Item,
    WriteOptions,
    create_catalogue,
    delete_items,
    parse_filter,
    read_manifest,
    rebuild_catalogue,
    upsert_items,
)
from leanmatch.index.search import hybrid as hybrid_search
from leanmatch.lexical import lexical_weight

HYBRID = WriteOptions(hybrid=True)
SHOP = [
    Item("a", "Projector XJ-200 white", {"price": 100}),
    Item("b", "Projector xj300 white", {"price": 200}),
    Item("c", "Lamp for XJ 200", {"price": 20}),
    Item("d", "数码相机 包", {"price": 30}),
    Item("e", "🎉", {"price": 1}),
]


def shop(folder, items=SHOP, encoder=None):
    create_catalogue(folder, items, encoder or HashEncoder(), HYBRID)
    return Catalogue.open(folder)


def over_all(catalogue, encoder, text, weight):
    """Identifiers by the weighted sum over every item, best first, and the sums."""
    cosines = catalogue.vectors(range(len(catalogue))).astype(np.float64) @ encoder([text])[0].astype(
        np.float64
    )
    sums = (1 - weight) * cosines + weight * catalogue.lexical(text).astype(np.float64)
    order = np.lexsort((np.arange(len(sums)), -np.round(sums, 6)))
    return [catalogue.ids[row] for row in order], sums[order]


@pytest.mark.parametrize("query", ["XJ-200", "xj200", "XJ 200"])
def test_a_part_number_is_found_in_every_spelling(tmp_path, query):
    catalogue = shop(tmp_path / "c")
    answers = catalogue.recommend(HashEncoder(), [query], 2, lexical_weight=1.0)[0]
    assert {answer.id for answer in answers} == {"a", "c"}
    assert answers[0].lexical > 0.4 and "200" in answers[0].matched
    dense = catalogue.recommend(HashEncoder(), [query], 5, hybrid=False)[0]
    assert dense[0].lexical is None and dense[0].cosine is None and "lexical" not in dense[0].to_json()
    assert answers[0].to_json()["matched"]


@pytest.mark.parametrize("weight", [0.0, 0.2, 0.5, 1.0, None])
def test_nothing_is_missing(tmp_path, weight, monkeypatch):
    monkeypatch.setattr(hybrid_search, "_LEAST_DEPTH", 3)  # so that the bound has to do its work
    encoder = HashEncoder(dimension=4)
    items = [Item(f"i{n}", f"part k{n % 37} z-{n % 11}0 of {'box' * (n % 3)}", {}) for n in range(700)]
    catalogue = shop(tmp_path / "c", items, encoder)
    for text in ("z-50 of box", "k7", "nothing in common 99", "part"):
        found = catalogue.recommend(encoder, [text], 9, lexical_weight=weight, exclude_self=False)[0]
        ids, sums = over_all(catalogue, encoder, text, lexical_weight(text, weight))
        assert [item.id for item in found] == ids[:9]
        np.testing.assert_allclose([item.score for item in found], sums[:9], atol=1e-6)
        for item in found:
            used = lexical_weight(text, weight)
            assert item.score == pytest.approx((1 - used) * item.cosine + used * item.lexical)


def test_more_asked_for_than_there_is_and_exclusions(tmp_path):
    catalogue = shop(tmp_path / "c")
    everything = catalogue.recommend(HashEncoder(), ["XJ-200"], 50)[0]
    assert sorted(item.id for item in everything) == ["a", "b", "c", "d", "e"]
    left = catalogue.recommend(HashEncoder(), ["XJ-200", "🎉"], 50, exclude=["a"])
    assert [len(items) for items in left] == [4, 3]  # the emoji's own item is left out, too


def test_filters(tmp_path):
    catalogue = shop(tmp_path / "c")
    cheap = parse_filter("price < 50")
    found = catalogue.recommend(HashEncoder(), ["xj200 projector"], 9, filter=cheap, lexical_weight=1.0)[0]
    assert found[0].id == "c" and {item.id for item in found} == {"c", "d", "e"}
    many = Catalogue.open(_many(tmp_path / "many"))
    wide = parse_filter("price < 1000")  # not narrow: scanned past the others
    found = many.recommend(HashEncoder(), ["number 1777"], 3, filter=wide, lexical_weight=0.9)[0]
    assert found[0].id == "i1777"
    none = parse_filter("price < 0")
    assert many.recommend(HashEncoder(), ["thing"], 3, filter=none) == [[]]


def _many(folder):
    create_catalogue(folder, items_of_shop(2500), HashEncoder(), HYBRID)
    return folder


def test_changes_rank_as_a_catalogue_made_anew(tmp_path):
    encoder = HashEncoder()
    shop(tmp_path / "c", SHOP)
    upsert_items(tmp_path / "c", [Item("f", "Spare part ZK-99 for XJ-200", {"price": 5})], encoder)
    upsert_items(tmp_path / "c", [Item("b", "Projector XJ-200 black", {"price": 7})], encoder)
    upsert_items(tmp_path / "c", [Item("d", None, {"price": 31})], encoder, patch=True)
    delete_items(tmp_path / "c", ["c"])
    changed = Catalogue.open(tmp_path / "c")
    assert len(changed.manifest.segments) > 1 and changed.hybrid
    items = [Item(name, changed.text(row), changed.metadata(row)) for row, name in enumerate(changed.ids)]
    anew = shop(tmp_path / "new", items)
    for query in ("XJ-200", "zk99", "包", "spare projector"):
        np.testing.assert_allclose(changed.lexical(query), anew.lexical(query), rtol=2e-6, atol=1e-7)
        one = [item.to_json() for item in changed.recommend(encoder, [query], 5)[0]]
        two = [item.to_json() for item in anew.recommend(encoder, [query], 5)[0]]
        assert [item["id"] for item in one] == [item["id"] for item in two]
    rebuild_catalogue(tmp_path / "c", encoder)
    assert len(read_manifest(tmp_path / "c").segments) == 1 and read_manifest(tmp_path / "c").hybrid


def test_approximate_search_and_later_items(tmp_path):
    encoder = HashEncoder()
    create_catalogue(tmp_path / "c", items_of_shop(300), encoder, WriteOptions(kind="hnsw", hybrid=True))
    upsert_items(tmp_path / "c", [Item("late", "late item QZ-4711", {"price": 1.0})], encoder)
    catalogue = Catalogue.open(tmp_path / "c")
    answers = catalogue.recommend(encoder, ["qz4711", "thing number 17"], 3, lexical_weight=0.9)
    assert answers[0][0].id == "late" and answers[1][0].id != "i17"  # the query's own item is left out


def test_terms_are_added_and_removed_by_a_rebuild(tmp_path):
    encoder = HashEncoder()
    create_catalogue(tmp_path / "c", SHOP, encoder)
    plain = Catalogue.open(tmp_path / "c")
    assert not plain.hybrid
    with pytest.raises(UsageError, match="hybrid"):
        plain.recommend(encoder, ["xj"], hybrid=True)
    with pytest.raises(UsageError, match="weight of terms"):
        plain.recommend(encoder, ["xj"], lexical_weight=0.5)
    change = rebuild_catalogue(tmp_path / "c", encoder, HYBRID)
    assert change.hybrid and change.encoded == 0 and Catalogue.open(tmp_path / "c").hybrid
    rebuild_catalogue(tmp_path / "c", encoder, WriteOptions(hybrid=False))
    assert not Catalogue.open(tmp_path / "c").hybrid
    assert not list((tmp_path / "c").glob("*-postings.npy"))


def test_an_open_catalogue_keeps_its_terms_while_another_generation_is_written(tmp_path):
    old = shop(tmp_path / "c")
    upsert_items(tmp_path / "c", [Item("a", "nothing of it", {})], HashEncoder())
    rebuild_catalogue(tmp_path / "c", HashEncoder())
    assert old.recommend(HashEncoder(), ["XJ-200 white"], 1, lexical_weight=1.0)[0][0].id == "a"
    assert Catalogue.open(tmp_path / "c").lexical("XJ-200").max() > 0


def test_weights_out_of_range_are_refused(tmp_path):
    for weight in (-0.1, 1.5, float("nan")):
        with pytest.raises(UsageError, match="lexical_weight"):
            shop(tmp_path / f"c{weight}").recommend(HashEncoder(), ["x"], lexical_weight=weight)


def test_without_bm25s_dense_search_works_and_hybrid_says_what_is_missing(tmp_path, monkeypatch):
    shop(tmp_path / "c")
    monkeypatch.setitem(sys.modules, "bm25s", None)
    catalogue = Catalogue.open(tmp_path / "c")
    assert catalogue.recommend(HashEncoder(), ["xj"], 2, hybrid=False)[0]
    with pytest.raises(MissingExtraError, match="bm25s"):
        catalogue.recommend(HashEncoder(), ["xj"], 2)
    with pytest.raises(MissingExtraError):
        create_catalogue(tmp_path / "d", SHOP, HashEncoder(), HYBRID)
    assert not (tmp_path / "d" / "manifest.json").exists()


def _with_damage(folder, damage):
    """Change an array of the postings and put size and checksum right, as an attacker would."""
    import hashlib

    path = next(folder.glob("*-postings.npy"))
    terms = np.load(next(folder.glob("*-terms.npy")))
    array = np.load(path)
    damage(array, terms)
    np.save(path, array)
    np.save(next(folder.glob("*-terms.npy")), terms)
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["segments"][0]["lexical"].values():
        content = (folder / file["name"]).read_bytes()
        file |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "damage",
    [
        lambda postings, terms: postings[0].__setitem__(0, 99),
        lambda postings, terms: postings[0].__setitem__(0, -1),
        lambda postings, terms: postings[1].__setitem__(0, 0x7FC00000),  # NaN
        lambda postings, terms: terms[1].__setitem__(0, 0),
        lambda postings, terms: terms[1].__setitem__(-1, 5),
        lambda postings, terms: terms[0].__setitem__(0, 2**62),
    ],
)
def test_damage_is_refused(tmp_path, damage):
    shop(tmp_path / "c")
    _with_damage(tmp_path / "c", lambda postings, terms: None)
    Catalogue.open(tmp_path / "c")  # the set-up itself does no harm
    _with_damage(tmp_path / "c", damage)
    with pytest.raises(FormatError, match="damaged"):
        Catalogue.open(tmp_path / "c")


def test_a_file_that_is_gone_and_terms_of_another_rule(tmp_path):
    shop(tmp_path / "c")
    path = tmp_path / "c" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "lexical": "terms-0"}))
    catalogue = Catalogue.open(tmp_path / "c")
    with pytest.raises(FormatError, match="rebuild"):
        catalogue.recommend(HashEncoder(), ["xj"])
    with pytest.raises(FormatError, match="terms-0"):
        upsert_items(tmp_path / "c", [Item("z", "z", {})], HashEncoder())
    rebuild_catalogue(tmp_path / "c", HashEncoder(), HYBRID)
    assert Catalogue.open(tmp_path / "c").recommend(HashEncoder(), ["xj"])[0]
    path.write_text(json.dumps({**json.loads(path.read_text()), "lexical": ""}))
    with pytest.raises(FormatError, match="damaged"):
        Catalogue.open(tmp_path / "c")
