"""One catalogue, and the three stores that hold its items: local, PostgreSQL with pgvector, Qdrant."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "index"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from catalogue_models import WordEncoder, items_of_shop
from postgres_server import pg_url, postgres  # noqa: F401 - fixtures

from leanmatch.index import Item, create_catalogue

ODD = [
    Item(
        "ünï/😀 'x\"",
        "emoji 😀 and 日本 text",
        {"category": "Ödd; DROP TABLE", "price": 2.5, "big": 2**53 + 1, "size": "1.10"},
    ),
    Item("5.0", "a float that is whole", {"price": 5.0, "code": "1.10", "stock": True, "size": "7"}),
    Item("empty", "no metadata at all"),
    Item("large", "a thing of its size", {"size": "8.0", "big": -5}),
]


@pytest.fixture(scope="session")
def encoder():
    return WordEncoder(dimension=16)


@pytest.fixture(scope="session")
def shop():
    """74 items, and columns of every type; the texts of ``size`` are numbers, ``big`` goes beyond float64."""
    return [*items_of_shop(70), *ODD]


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory, shop, encoder):
    folder = tmp_path_factory.mktemp("shop") / "catalogue"
    create_catalogue(folder, shop, encoder)
    return folder


@pytest.fixture
def qdrant_client():
    """Qdrant's client on its own engine in this process."""
    client = pytest.importorskip("qdrant_client", reason="the qdrant extra is not installed")
    made = client.QdrantClient(":memory:")
    yield made
    made.close()


@pytest.fixture
def qdrant_http():
    """Qdrant's HTTP interface on loopback, see :mod:`qdrant_http`."""
    pytest.importorskip("qdrant_client", reason="the qdrant extra is not installed")
    from qdrant_http import QdrantHttp

    made = QdrantHttp()
    yield made
    made.stop()


@pytest.fixture(params=["local", "pgvector", "qdrant", "qdrant over HTTP"])
def opened_store(request, tmp_path):
    """For each kind of store a function that pushes a catalogue to it and opens it."""
    from leanmatch.stores import LocalStore, open_store, push_items, source_of

    opened = []

    def of(folder):
        if request.param == "local":
            copy = tmp_path / f"copy{len(opened)}"
            shutil.copytree(folder, copy)
            made = LocalStore(copy)
        elif request.param != "qdrant":
            http = request.param != "pgvector"
            url = request.getfixturevalue("qdrant_http").url() if http else request.getfixturevalue("pg_url")
            push_items(source_of(folder), url)
            made = open_store(url)
        else:
            from leanmatch.stores.qdrant import QdrantStore, push_to_qdrant

            client = request.getfixturevalue("qdrant_client")
            push_to_qdrant(source_of(folder), None, client=client, name="shop")
            made = QdrantStore(client, "shop")
        opened.append(made)
        return made

    yield of
    for store in opened:
        store.close()


@pytest.fixture
def store(opened_store, catalogue):
    """Each store, with the catalogue's items."""
    return opened_store(catalogue)
