"""One API over a catalogue and over a store in PostgreSQL; and a store that goes and comes back."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from catalogue_models import WordEncoder, items_of_shop
from fastapi.testclient import TestClient
from postgres_server import Postgres

sys.path.insert(0, str(Path(__file__).parents[1] / "batch"))
sys.path.insert(0, str(Path(__file__).parent))
from batch_models import static_model
from servers import address_of, workers_of

from leanmatch import load
from leanmatch.index import Catalogue, Item, create_catalogue, parse_filter
from leanmatch.index.storage.manifest import REFERENCE
from leanmatch.index.writer import put_extra
from leanmatch.serve import Limits, ServeOptions, create_app
from leanmatch.serve.monitoring.drift import build_reference
from leanmatch.serve.running import _announcement
from leanmatch.serve.stored import StoreHolding
from leanmatch.stores import UnreachableError, push_items, source_of


def until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ask(client, text="number 7", **more):
    return client.post("/v1/recommend", json={"texts": [text], "k": 3, **more})


def ids(response):
    assert response.status_code == 200, response.text
    return [item["id"] for item in response.json()["results"][0]["recommendations"]]


@pytest.fixture(params=["local", "pgvector"])
def place(request, folder):
    """The catalogue's folder, and a store with its items."""
    if request.param == "local":
        return str(folder)
    url = request.getfixturevalue("pg_url")
    push_items(source_of(folder), url)
    return url


@pytest.fixture
def client(open_client, place):
    return open_client(catalogue=place)


FILTERS = [None, 'category = "Toys" and price < 10', "price is missing", "not stock = true", 'code > "03"']


@pytest.mark.parametrize("condition", FILTERS)
def test_recommendations_are_those_of_the_catalogue(client, folder, encoder, condition):
    parsed = None if condition is None else parse_filter(condition)
    (expected,) = Catalogue.open(folder).recommend(encoder, ["THING number 7"], 30, filter=parsed)
    response = ask(client, "THING number 7", k=30, filter=condition)
    items = response.json()["results"][0]["recommendations"]
    assert len(items) == len(expected) > 3 and "i7" not in ids(response)
    assert [item["score"] for item in items] == pytest.approx([one.score for one in expected], abs=2e-6)
    texts = {one.id: one.text for one in expected}
    assert {item["id"]: item["text"] for item in items} == texts
    metadata = {one.id: one.metadata for one in expected}
    assert {item["id"]: item["metadata"] for item in items} == metadata
    assert [item["rank"] for item in items] == list(range(1, len(items) + 1))


def test_exclusions(client):
    whole = ids(ask(client, k=40))
    assert len(whole) == 40
    assert ids(ask(client, k=40, exclude=[*whole[:12], "nobody"])) == whole[12:]
    assert ids(ask(client, "thing number 7", k=1, exclude_self=False)) == ["i7"]


def test_words_are_explained(client):
    item = ask(client, "number 7 please", explain=True).json()["results"][0]["recommendations"][0]
    query = item["explanation"]["query"]
    assert [(word["start"], word["end"]) for word in query] == [(0, 6), (7, 8), (9, 15)]
    assert max(word["importance"] for word in query) > 0.05


def test_what_the_page_shows(client):
    until(lambda: client.get("/v1/status").json()["drift"] is not None)
    document = client.get("/v1/catalogue").json()
    assert (document["items"], document["generation"], document["model"]) == (40, 1, "hash-1")
    columns = {column["name"]: column for column in document["columns"]}
    assert [value["value"] for value in columns["category"]["values"]] == ["Books", "Tools", "Toys"]
    assert (columns["price"]["type"], columns["price"]["max"]) == ("number", 19.5)
    assert document["samples"]
    suggestions = client.get("/v1/suggest", params={"q": "thing number 3"}).json()["suggestions"]
    assert suggestions[0] == "thing number 3"
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["dimension"]) == ("hash-1", 24)
    assert "<html" in client.get("/").text


def test_the_drift_monitor_sees_queries_of_another_kind(client):
    until(lambda: client.get("/v1/status").json()["drift"] is not None)
    for number in range(60):
        ask(client, f"никогда {number}")
    drift = client.get("/v1/status").json()["drift"]
    measures = {measure["name"]: measure for measure in drift["measures"]}
    assert any(measure["live"] > 0.2 for measure in measures.values())


def test_items_that_are_changed_are_found_at_once(client, writing):
    new = {"id": "n", "text": "purple socks", "metadata": {"category": "New", "price": 3}}
    change = client.post("/v1/items", json={"items": [new]}, headers=writing).json()
    assert (change["added"], change["updated"], change["items"]) == (1, 0, 41)
    assert ids(ask(client, "purple socks", exclude_self=False))[0] == "n"
    change = client.post(
        "/v1/items", json={"items": [{"id": "n", "text": "yellow hat"}]}, headers=writing
    ).json()
    assert (change["added"], change["updated"], change["items"]) == (0, 1, 41)
    assert ids(ask(client, "yellow hat", exclude_self=False))[0] == "n"
    change = client.post("/v1/items/delete", json={"ids": ["n", "i3", "gone"]}, headers=writing).json()
    assert (change["deleted"], change["unknown"], change["items"]) == (2, 1, 39)
    assert client.delete("/v1/items/n", headers=writing).status_code == 404
    assert not {"n", "i3"} & set(ids(ask(client, k=100)))
    until(lambda: client.get("/health").json()["items"] == 39)
    assert client.post("/v1/items", json={"items": [new]}).status_code in (401, 403)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"filter": "colour = 1"}, "the columns are: category"),
        ({"filter": 'price = "x"'}, "type number"),
        ({"filter": "price <"}, "a value"),
        ({"rerank": True}, "no reranker"),
        ({"hybrid": True}, "searches by vectors alone|no terms"),
    ],
)
def test_requests_that_are_refused(client, body, said):
    response = ask(client, **body)
    assert response.status_code == 400, response.text
    assert re.search(said, response.json()["error"]["message"])


def test_servers_share_one_store(open_client, folder, pg_url, writing, encoder):
    push_items(source_of(folder), pg_url)
    first, second = open_client(catalogue=pg_url), open_client(catalogue=pg_url)
    first.post("/v1/items", json={"items": [{"id": "n", "text": "purple socks"}]}, headers=writing)
    assert ids(ask(second, "purple socks", exclude_self=False))[0] == "n"
    until(lambda: second.get("/health").json()["items"] == 41)
    create_catalogue(folder.parent / "larger", [Item(f"l{n}", f"thing {n}") for n in range(90)], encoder)
    answers, stop = [], threading.Event()

    def go_on():
        while not stop.is_set():
            answers.append(ids(ask(second, "thing 7", k=90)))

    reader = threading.Thread(target=go_on)
    reader.start()
    push_items(source_of(folder.parent / "larger"), pg_url)
    for server in (first, second):
        until(lambda server=server: server.get("/health").json()["generation"] == 2)
        assert server.get("/v1/catalogue").json()["items"] == 90
    stop.set()
    reader.join()
    kinds = [{name[0] for name in answer} for answer in answers]
    assert all(kind in ({"i", "n"}, {"l"}) for kind in kinds) and len(answers) > 1
    assert set(ids(ask(first, "thing 7", k=90))) == {f"l{n}" for n in range(90)} - {"l7"}


def test_a_store_that_goes_and_comes_back(open_client, folder, writing):
    server = Postgres()
    push_items(source_of(folder), server.url)
    client = open_client(catalogue=server.url, limits=Limits(timeout_seconds=20.0))
    before = ask(client).json()
    server.stop()
    response = ask(client)
    assert response.status_code == 503 and response.headers["retry-after"] == "2"
    error = response.json()["error"]
    assert "PostgreSQL cannot be reached" in error["message"] and error["code"] == "store_unavailable"
    until(lambda: client.get("/health").status_code == 503)
    told = client.get("/health").json()
    assert told["status"] == "unavailable" and "cannot be reached" in told["reason"]
    begin = time.monotonic()
    change = client.post("/v1/items", json={"items": [{"id": "n", "text": "hat"}]}, headers=writing)
    assert (ask(client).status_code, change.status_code) == (503, 503)
    assert time.monotonic() - begin < 5  # nobody waits in line for what is known to be down
    vectors = client.post("/v1/embeddings", json={"model": "hash-1", "input": "hat"})
    assert vectors.status_code == 200  # the model is here
    server.start()
    try:
        until(lambda: client.get("/health").status_code == 200)
        assert ask(client).json() == before
        change = client.post("/v1/items", json={"items": [{"id": "n", "text": "hat"}]}, headers=writing)
        assert change.json()["added"] == 1
    finally:
        server.stop()


@contextmanager
def started(url, *more):
    """``leanmatch serve`` of a store, which need not be there: the process and its address."""
    command = [sys.executable, "-m", "leanmatch", "serve", url, "--port", "0", *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            address = address_of(process)
            threading.Thread(target=process.stderr.read, daemon=True).start()  # so that it never waits for us
            yield process, address
        finally:
            if process.poll() is None:
                for child in workers_of(process):
                    os.kill(child, signal.SIGKILL)
                process.kill()


def answer(method, url, **more):
    """The answer, None while nobody listens."""
    try:
        return httpx.request(method, url, timeout=30, **more)
    except httpx.TransportError:
        return None


def health(address):
    response = answer("GET", f"{address}/health")
    return (0, {}) if response is None else (response.status_code, response.json())


def test_the_drift_monitor_has_the_reference_of_the_catalogue(open_client, folder, pg_url, encoder):
    """The same report from a store as from the catalogue; and one that is pushed later is taken up."""

    def refer(source, texts):
        reference = build_reference(Catalogue.open(folder), encoder, texts, source)
        put_extra(folder, REFERENCE, reference.write, ".json")
        push_items(source_of(folder), pg_url)

    def drift(client):
        return client.get("/v1/status").json()["drift"]

    refer("clicks.csv", [f"thing number {n}" for n in range(30)])
    local, stored = open_client(), open_client(catalogue=pg_url)
    for client in (local, stored):
        until(lambda client=client: drift(client) is not None)
        for number in range(120):
            ask(client, f"number {number % 40} please")
    report = drift(stored)
    assert report == drift(local)
    assert report["reference"] == {"source": "clicks.csv", "queries": 30} and report["enough"]
    assert any(measure["live"] > 0 for measure in report["measures"])
    refer("later.csv", [f"thing number {n}" for n in range(20)])
    until(lambda: drift(stored)["reference"] == {"source": "later.csv", "queries": 20})


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_starts_before_its_store(tmp_path, workers):
    postgres = Postgres()
    model = static_model(tmp_path / "lean")
    create_catalogue(tmp_path / "c", [Item("a", "red dock"), Item("b", "usb cable")], load(model))
    push_items(source_of(tmp_path / "c"), postgres.url)
    postgres.stop()
    try:
        with started(postgres.url, "--workers", workers) as (process, address):
            until(lambda: health(address)[1].get("status") == "unavailable", 200)
            code, told = health(address)
            assert code == 503 and "PostgreSQL cannot be reached" in told["reason"]
            question = {"json": {"texts": ["usb cable 1"], "k": 1}}
            refused = answer("POST", f"{address}/v1/recommend", **question)
            assert refused.status_code == 503 and refused.headers["retry-after"] == "2"
            error = refused.json()["error"]
            assert error["code"] == "store_unavailable" and "cannot be reached" in error["message"]
            assert process.poll() is None
            postgres.start()
            waiting = 20 * int(workers)  # each new connection is to any of the workers
            until(lambda: all(health(address)[0] == 200 for _ in range(waiting)), 200)
            assert ids(answer("POST", f"{address}/v1/recommend", **question)) == ["b"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) in (0, -signal.SIGTERM)
    finally:
        postgres.stop()


@pytest.mark.parametrize(("workers", "code"), [("1", 2), ("2", 1)])
def test_a_store_that_comes_back_without_items_ends_the_server(workers, code):
    postgres = Postgres()
    postgres.stop()
    try:
        with started(postgres.url, "--workers", workers) as (process, address):
            until(lambda: health(address)[1].get("status") == "unavailable", 200)
            postgres.start()
            assert process.wait(200) == code
    finally:
        postgres.stop()


def test_a_qdrant_that_does_not_answer_is_waited_for():
    pytest.importorskip("qdrant_client", reason="the qdrant extra is not installed")
    options = ServeOptions(catalogue="qdrant://127.0.0.1:1/items", poll_seconds=0.05)
    with TestClient(create_app(options)) as client:
        until(lambda: client.get("/health").json()["status"] == "unavailable")
        told = client.get("/health")
        assert told.status_code == 503 and "Qdrant cannot be reached" in told.json()["reason"]
        assert ask(client).json()["error"]["code"] == "store_unavailable"


def test_a_drift_monitor_that_lacked_its_store_is_made_later(open_client, folder, pg_url, monkeypatch):
    push_items(source_of(folder), pg_url)
    made, lost = StoreHolding.reference, []

    def reference(self, engine, counter):
        if len(lost) < 2:
            lost.append(1)
            raise UnreachableError("PostgreSQL cannot be reached: gone")
        return made(self, engine, counter)

    monkeypatch.setattr(StoreHolding, "reference", reference)
    client = open_client(catalogue=pg_url)
    until(lambda: client.get("/v1/status").json()["drift"] is not None)
    assert len(lost) == 2


def test_another_model_is_refused_when_it_starts_and_when_it_is_pushed_later(
    open_client, folder, pg_url, tmp_path, encoder
):
    push_items(source_of(folder), pg_url)
    other = static_model(tmp_path / "other", seed=1)
    with TestClient(create_app(ServeOptions(catalogue=pg_url, model=str(other)))) as client:
        until(lambda: client.get("/health").json()["status"] != "starting")
        told = client.get("/health")
        assert told.status_code == 503 and "encoded with the model hash-1" in told.json()["status"]
    client = open_client(catalogue=pg_url)
    ids(ask(client))
    create_catalogue(tmp_path / "others", items_of_shop(9), WordEncoder(dimension=24, name="hash-2"))
    push_items(source_of(tmp_path / "others"), pg_url)
    until(lambda: ask(client).status_code == 503)
    assert "now holds vectors of the model hash-2" in ask(client).json()["error"]["message"]
    until(lambda: client.get("/health").json()["status"] != "ready")
    push_items(source_of(folder), pg_url)
    until(lambda: ask(client).status_code == 200)


def test_a_model_of_its_own_folder(pg_url, tmp_path):
    """The encoder is opened by ``--model``; the store knows the folder that it was pushed with."""
    model = static_model(tmp_path / "lean")
    create_catalogue(tmp_path / "c", [Item("a", "red dock"), Item("b", "usb cable")], load(model))
    push_items(source_of(tmp_path / "c"), pg_url)
    moved = model.rename(tmp_path / "moved")
    with TestClient(create_app(ServeOptions(catalogue=pg_url, model=str(moved)))) as client:
        until(lambda: client.get("/health").status_code == 200)
        assert ids(ask(client, "usb cable 1"))[0] == "b"


def test_a_password_is_not_shown():
    url = "postgresql://ann:secret-1@db:5432/shop#items"
    said = _announcement(ServeOptions(catalogue=url), 8080)
    assert "postgresql://ann:***@db:5432/shop#items" in said and "secret-1" not in said


def test_a_store_in_which_nothing_was_pushed(pg_url):
    with TestClient(create_app(ServeOptions(catalogue=pg_url))) as client:
        until(lambda: "nothing was pushed" in client.get("/health").json()["status"])
