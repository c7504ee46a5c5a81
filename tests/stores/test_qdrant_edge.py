"""Qdrant's own engine: filters and searches through payload indexes and HNSW, as far as its package goes.

``qdrant-edge-py`` has the engine of the server without its protocol. Its Python binding cannot ask for
booleans (it sends 1 and 0), so filters on them are not tested here, and neither are replication, the server's
optimizers in the background and the protocol itself.
"""

from __future__ import annotations

import numpy as np
import pytest
from catalogue_models import WordEncoder
from store_filters import FILTERS

from leanmatch.index import Catalogue, Item, create_catalogue, parse_filter
from leanmatch.stores import LocalStore, source_of

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed")
pytest.importorskip("qdrant_edge", reason="qdrant-edge-py is not installed")

from qdrant_edge_client import EdgeClient

from leanmatch.stores import qdrant


def opened(folder, catalogue, **more):
    client = EdgeClient(folder, indexing_threshold_kb=10)
    qdrant.push_to_qdrant(source_of(catalogue), None, client=client, name="shop", **more)
    return client, qdrant.QdrantStore(client, "shop")


@pytest.fixture(scope="module")
def edge(tmp_path_factory, catalogue):
    client, store = opened(tmp_path_factory.mktemp("edge"), catalogue)
    yield store
    client.close()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """3,000 items, in a folder."""
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(60)]
    items = [
        Item(f"i{n}", " ".join(rng.choice(words, 5)), {"half": "ab"[n % 2], "part": n % 100, "price": n / 4})
        for n in range(3000)
    ]
    folder = tmp_path_factory.mktemp("many") / "catalogue"
    encoder = WordEncoder(dimension=24)
    create_catalogue(folder, items, encoder)
    return folder, encoder([" ".join(rng.choice(words, 4)) for _ in range(20)])


@pytest.mark.parametrize("condition", [text for text in FILTERS if "stock" not in text])
def test_filters_leave_what_they_leave_in_a_catalogue(edge, catalogue, encoder, condition):
    (hits,) = edge.search(encoder(["thing number 7"]), 100, parse_filter(condition))
    local = Catalogue.open(catalogue)
    passing = local.select(parse_filter(condition)).rows.tolist()
    scores = dict(zip(passing, local.vectors(passing) @ encoder(["thing number 7"])[0], strict=True))
    assert {hit.id: hit.score for hit in hits} == pytest.approx(
        {local.ids[row]: float(score) for row, score in scores.items()}, abs=1e-6
    )


def test_booleans_are_not_asked_for(edge, encoder):
    with pytest.raises(NotImplementedError, match="true and false"):
        edge.search(encoder(["thing"]), 3, parse_filter("stock = true"))


def test_changes_and_samples(tmp_path, catalogue, encoder):
    client, store = opened(tmp_path, catalogue)
    new = [Item("i7", "another thing", {"price": 1.25}), Item("new", "thing number 7")]
    assert store.upsert(new, encoder([item.text for item in new])) == 1
    assert store.delete(["i8", "absent"]) == 1
    items, vectors = store.sample(1000)
    assert len(items) == len(store) == 74 and "i8" not in {item.id for item in items}
    assert np.allclose(vectors, encoder([item.text for item in items]), atol=1e-6)
    client.close()


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_search_through_the_graph_with_filters(tmp_path, many, precision, monkeypatch):
    """Recall of all, half and a hundredth of 3,000 items, through HNSW; where few pass, exactly."""
    folder, queries = many
    monkeypatch.setattr(qdrant, "EXACT_ROWS", 100)
    client, store = opened(tmp_path, folder, precision=precision)
    client.optimize()
    assert client.indexed("shop_g1") > 2000  # the graph is there
    exact = LocalStore(folder)
    for condition in (None, 'half = "a"', "part = 3", "part >= 98", "price < 500 and part != 7"):
        parsed = None if condition is None else parse_filter(condition)
        ours, theirs = store.search(queries, 10, parsed), exact.search(queries, 10, parsed)
        shared = [
            len({hit.id for hit in mine} & {hit.id for hit in best}) / len(best)
            for mine, best in zip(ours, theirs, strict=True)
        ]
        assert all(len(mine) == len(best) for mine, best in zip(ours, theirs, strict=True))
        assert np.mean(shared) >= (1.0 if condition == "part = 3" else 0.98), condition
    client.close()
