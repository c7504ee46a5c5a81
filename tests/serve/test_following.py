"""A server follows its catalogue through damage of every kind, and when it is made anew."""

from __future__ import annotations

import json
import logging
import shutil
import time
from functools import partial

import numpy as np
import pytest
from catalogue_models import WordEncoder, items_of_shop

from leanmatch.errors import FormatError
from leanmatch.index import Catalogue, Item, create_catalogue, put_extra, read_manifest, upsert_items
from leanmatch.index.storage.manifest import REFERENCE
from leanmatch.serve import holding as holding_module
from leanmatch.serve.following import Follower, manifest_digest
from leanmatch.serve.monitoring.drift import build_reference


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def health(client):
    response = client.get("/health")
    assert response.status_code == 200  # it goes on answering: no balancer should take it out
    return response.json()


def metric(client, name):
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def first(client, text):
    answer = client.post("/v1/recommend", json={"texts": [text], "k": 1, "exclude_self": False})
    return answer.json()["results"][0]["recommendations"][0]["id"]


def in_manifest(change):
    def damage(folder):
        path = folder / "manifest.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return damage


def newest(folder, pattern):
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime_ns)


DAMAGES = {
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "half a manifest": lambda folder: (folder / "manifest.json").write_text('{"format": "lean'),
    "no UTF-8": lambda folder: (folder / "manifest.json").write_bytes(b"\xff\xfe"),
    "deep JSON": lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
    "another type": in_manifest(lambda document: document.update(segments=7)),
    "a negative number": in_manifest(lambda document: document["segments"][0].update(rows=-1)),
    "vectors cut off": lambda folder: newest(folder, "*.npy").write_bytes(b"\x93NUMPY"),
    "items of another kind": lambda folder: newest(folder, "*.npz").write_bytes(b"PK\3\4 and no more"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_generation_is_told_and_survived(open_client, folder, encoder, damage, caplog):
    client = open_client()
    identity = read_manifest(folder).identity
    assert health(client) == {
        "status": "ready",
        "items": 40,
        "generation": 1,
        "identity": identity,
        "reason": None,
    }
    good = folder.parent / "good"
    upsert_items(folder, [Item("new", "purple socks")], encoder)
    shutil.copytree(folder, good)
    until(lambda: health(client)["generation"] == 2)
    with caplog.at_level(logging.ERROR, "leanmatch.serve"):
        upsert_items(folder, [Item("newer", "yellow hat")], encoder)
        damage(folder)
        # what was read before the damage may be generation 3; whichever, it answers
        (folder / "manifest.json").exists() and (folder / "manifest.json").write_bytes(
            (folder / "manifest.json").read_bytes() + b" "
        )
        until(lambda: health(client)["status"] == "degraded")
    told = health(client)
    assert "changes are not taken up" in told["reason"] and told["generation"] in (2, 3)
    assert metric(client, "leanmatch_catalogue_following") == 0
    assert metric(client, "leanmatch_catalogue_follow_failures_total") >= 1
    assert first(client, "purple socks") == "new"
    events = [json.loads(record.getMessage()) for record in caplog.records if '"following"' in record.message]
    assert events and "cannot be loaded anew" in events[0]["message"]
    shutil.rmtree(folder)
    shutil.copytree(good, folder)
    upsert_items(folder, [Item("newest", "red lamp")], encoder)
    until(lambda: health(client)["status"] == "ready" and health(client)["items"] == 42)
    assert first(client, "red lamp") == "newest" and metric(client, "leanmatch_catalogue_following") == 1


def test_any_exception_is_survived(open_client, folder, encoder, monkeypatch):
    class Panic(BaseException):
        """As the panics of Rust libraries are: no Exception."""

    client = open_client()
    for error in (MemoryError(), AssertionError("x"), RuntimeError("y"), Panic("z"), RecursionError()):

        def broken(folder, error=error):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(holding_module.Catalogue, "open", broken)
            upsert_items(folder, [Item("n", f"thing {type(error).__name__}")], encoder)
            until(lambda error=error: type(error).__name__ in (health(client)["reason"] or ""))
        until(lambda: health(client)["status"] == "ready")
    assert health(client)["generation"] == 6


def test_a_catalogue_made_anew_at_the_same_place_is_followed(open_client, folder, encoder):
    client = open_client()
    before = health(client)
    other = folder.parent / "other"
    create_catalogue(other, [Item("z", "purple socks"), Item("y", "green door")], encoder)
    shutil.rmtree(folder)
    other.rename(folder)
    until(lambda: health(client)["items"] == 2)
    after = health(client)
    assert before["generation"] == after["generation"] == 1 and before["identity"] != after["identity"]
    assert first(client, "purple socks") == "z" and after["status"] == "ready"


def test_another_dimension_is_swapped_in_whole(open_client, folder, monkeypatch):
    """Encoder and catalogue change together: no batch sees one of them old and the other new."""
    small = WordEncoder(dimension=24)
    client = open_client(small)
    large = WordEncoder(dimension=48)
    large.fingerprint = "another"
    monkeypatch.setattr(holding_module, "encoder_for", lambda *_, **__: large)
    statuses = set()
    shutil.rmtree(folder)
    create_catalogue(folder, items_of_shop(30), large)
    deadline = time.monotonic() + 20
    while health(client)["items"] != 30:
        assert time.monotonic() < deadline
        answer = client.post("/v1/recommend", json={"texts": ["thing number 3"], "k": 1})
        statuses.add(answer.status_code)
    assert statuses <= {200}
    vector = client.post("/v1/embeddings", json={"input": "x", "model": "hash-1"}).json()["data"][0]
    assert np.allclose(vector["embedding"], large(["x"])[0])


def test_what_was_written_is_acknowledged_though_it_cannot_be_loaded(
    open_client, folder, writing, monkeypatch
):
    client = open_client()

    def broken(_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(holding_module.Catalogue, "open", broken)
        body = {"items": [{"id": "n", "text": "purple socks"}]}
        answer = client.post("/v1/items", json=body, headers=writing)
        assert answer.status_code == 200 and answer.json()["added"] == 1
        until(lambda: health(client)["status"] == "degraded")
    assert Catalogue.open(folder).row("n") == 40
    until(lambda: health(client)["generation"] == 2)


def test_a_new_reference_reaches_the_monitor(open_client, folder, encoder):
    client = open_client()

    def source():
        drift = client.get("/v1/status").json()["drift"]
        return drift and drift["reference"]["source"]

    until(lambda: source() is not None)
    reference = build_reference(Catalogue.open(folder), encoder, ["thing number 3"] * 20, "made up")
    put_extra(folder, REFERENCE, reference.write, ".json")
    until(lambda: source() == "made up")


def test_failures_are_logged_now_and_then_and_tried_less_and_less_often(folder, caplog):
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    now, tries, failed = [0.0], [], []

    def load():
        tries.append(now[0])
        raise FormatError("it is damaged")

    async def look():
        with ThreadPoolExecutor(1) as pool:
            follower = Follower(
                partial(manifest_digest, folder),
                load,
                lambda: "old",
                pool,
                1.0,
                failed.append,
                clock=lambda: now[0],
            )
            with caplog.at_level(logging.ERROR, "leanmatch.serve"):
                for _ in range(400):
                    await follower.look()
                    now[0] += 1
            assert follower.problem == "it is damaged" and follower.failures == len(tries) == len(failed)
            tries.clear()
            manifest = folder / "manifest.json"
            manifest.write_bytes(manifest.read_bytes() + b"\n")  # something has happened: it is tried at once
            await follower.look()
            assert len(tries) == 1

    asyncio.run(look())
    pauses = np.diff(tries)
    assert not len(pauses)
    assert 5 <= len(caplog.records) <= 8  # one a minute


def test_pauses_grow_to_a_minute(folder):
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    now, tries = [0.0], []

    def load():
        tries.append(now[0])
        raise OSError("gone")

    async def look():
        with ThreadPoolExecutor(1) as pool:
            follower = Follower(
                partial(manifest_digest, folder),
                load,
                lambda: "old",
                pool,
                1.0,
                lambda _: None,
                clock=lambda: now[0],
            )
            for _ in range(400):
                await follower.look()
                now[0] += 1

    asyncio.run(look())
    pauses = np.diff(tries).tolist()
    assert pauses[:5] == [2, 4, 8, 16, 32] and set(pauses[5:]) == {60}
