"""Qdrant's client over HTTP: faults of the network and of the server, keys, and a push that is killed.

``test_contract.py`` runs the whole contract over the same interface.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from leanmatch.index import Item, create_catalogue
from leanmatch.stores import StoreError, open_store, push_items, source_of
from leanmatch.stores.protocol import UnreachableError

pytest.importorskip("qdrant_client", reason="the qdrant extra is not installed")

CHILD = """
import sys
from leanmatch.stores import push_items, qdrant, source_of
qdrant.BATCH_BYTES = 16 * 16 * 10
push_items(source_of(sys.argv[1]), sys.argv[2])
"""


@pytest.fixture
def pauses(monkeypatch):
    """How long was waited before each new attempt; nothing waits."""
    waited = []
    monkeypatch.setattr("leanmatch.stores.retrying.time.sleep", waited.append)
    return waited


@pytest.fixture
def store(qdrant_http, catalogue):
    push_items(source_of(catalogue), qdrant_http.url())
    opened = open_store(qdrant_http.url())
    yield opened
    opened.close()


def ids(store, encoder, k=100):
    return {hit.id for hit in store.search(encoder(["thing number 7"]), k)[0]}


def test_requests_go_to_the_endpoints_of_the_client(qdrant_http, store, encoder):
    assert len(ids(store, encoder)) == len(store) == 74
    store.delete(["i8"])
    store.sample(5)
    seen = {(method, pattern) for method, pattern, _ in qdrant_http.seen}
    assert {("PUT", "/collections/{}/points"), ("PUT", "/collections/{}/index")} <= seen
    assert {
        ("POST", f"/collections/{{}}/points{end}") for end in ("", "/scroll", "/count", "/delete")
    } <= seen
    assert ("POST", "/collections/{}/points/query/batch") in seen


@pytest.mark.parametrize(
    ("fault", "waited"),
    [
        ((503, {}), [0.1, 0.2, 0.4]),
        ((500, {}), [0.1, 0.2, 0.4]),
        ((429, {}), [0.1, 0.2, 0.4]),
        ((429, {"Retry-After": "2"}), [2, 2, 2]),
        ((429, {"Retry-After": "60"}), [10, 10, 10]),
        ((429, {"Retry-After": "Mon, 30 Nov 2026 04:00:00 GMT"}), [0.1, 0.2, 0.4]),
    ],
)
def test_a_server_that_cannot_now_is_asked_again(qdrant_http, store, encoder, pauses, fault, waited):
    before = len(qdrant_http.seen)
    qdrant_http.faults = [fault] * 3
    assert len(ids(store, encoder)) == 74
    assert not qdrant_http.faults and pauses == waited and len(qdrant_http.seen) >= before + 4
    qdrant_http.faults = [fault] * 5
    with pytest.raises(UnreachableError, match="Qdrant cannot be reached"):
        ids(store, encoder)


def test_a_request_that_is_refused_is_not_repeated(qdrant_http, store, encoder, pauses):
    qdrant_http.faults = [(400, {})]
    with pytest.raises(StoreError, match=r"Qdrant says: .*400 \(Bad Request\)"):
        ids(store, encoder)
    assert not pauses


def test_a_server_that_stops_and_comes_back(qdrant_http, store, encoder, pauses):
    qdrant_http.stop()
    with pytest.raises(UnreachableError, match="check the address"):
        ids(store, encoder)
    assert pauses == [0.1, 0.2, 0.4, 0.8]
    qdrant_http.start()
    assert len(ids(store, encoder)) == 74


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_the_key_is_sent(qdrant_http, catalogue, monkeypatch, encoder):
    qdrant_http.key = "secret"
    with pytest.raises(StoreError, match="API key"):
        push_items(source_of(catalogue), qdrant_http.url())
    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    push_items(source_of(catalogue), qdrant_http.url(), precision="int8")
    store = open_store(qdrant_http.url())
    assert len(ids(store, encoder)) == 74
    store.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGKILL")
def test_a_killed_push_shows_the_old_items_and_goes_on(qdrant_http, store, encoder, tmp_path):
    create_catalogue(tmp_path / "new", [Item(f"n{n}", f"new thing {n}") for n in range(300)], encoder)
    old = ids(store, encoder, 1000)
    killed = []
    for _ in range(3):
        before = batches_of(qdrant_http)
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path / "new"), qdrant_http.url()])
        while child.poll() is None and batches_of(qdrant_http) < before + 8:
            time.sleep(0.001)
        child.send_signal(signal.SIGKILL)
        assert child.wait() != 0, "it ended before it was killed"
        killed.append(qdrant_http.client.count("shop_g2").count)
        assert ids(store, encoder, 1000) == old
    assert killed == sorted(set(killed)) and killed[0] > 0 and killed[-1] < 300
    assert push_items(source_of(tmp_path / "new"), qdrant_http.url()).generation == 2
    assert ids(store, encoder, 1000) == {f"n{n}" for n in range(300)}
    names = {collection.name for collection in qdrant_http.client.get_collections().collections}
    assert names == {"leanmatch_stores", "shop_g2"}


def batches_of(server):
    return sum((method, pattern) == ("PUT", "/collections/{}/points") for method, pattern, _ in server.seen)
