"""A catalogue keeps the precision that it was encoded in: --weights from indexing to serving."""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from catalogue_models import HashEncoder, items_of_shop
from typer.testing import CliRunner

import leanmatch
from leanmatch.cli.app import app
from leanmatch.errors import ModelError
from leanmatch.index import Catalogue, create_catalogue, read_manifest, rebuild_catalogue, upsert_items
from leanmatch.serve import ServeOptions, create_app

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
from runtime_models import build

TEXTS = ["usb c dock", "garden chair", "red lamp with a table", "blue kitchen shelf"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    place = tmp_path_factory.mktemp("precision")
    build(place)
    return place / "model"


def run(*arguments):
    return CliRunner().invoke(app, ["index", *map(str, arguments)])


@pytest.fixture
def folder(model, tmp_path):
    """A catalogue in int8."""
    rows = "".join(json.dumps({"id": f"i{n}", "text": text}) + "\n" for n, text in enumerate(TEXTS))
    (tmp_path / "items.jsonl").write_text(rows)
    (tmp_path / "more.jsonl").write_text('{"id": "i9", "text": "wooden chair"}\n')
    done = run(model, tmp_path / "items.jsonl", "-o", tmp_path / "c", "--weights", "int8")
    assert done.exit_code == 0, done.output
    return tmp_path / "c"


def served(folder, **options):
    """A client of a server that is ready, or has failed."""
    from fastapi.testclient import TestClient

    made = TestClient(create_app(ServeOptions(str(folder), poll_seconds=0.05, **options)))
    made.__enter__()
    deadline = time.monotonic() + 20
    while made.get("/health").json()["status"] in ("starting", "loading"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return made


def vectors_of(client, texts):
    rows = client.post("/v1/embeddings", json={"input": texts, "model": "model"}).json()["data"]
    return np.array([row["embedding"] for row in rows], np.float32)


def test_indexed_in_int8_is_served_in_int8(model, folder):
    int8, exact = (leanmatch.load(model, precision=one)(TEXTS) for one in ("int8", "float32"))
    assert np.abs(int8 - exact).max() > 1e-4  # else nothing could be told from this test
    assert read_manifest(folder).model.weights == "int8"
    stored = Catalogue.open(folder).vectors(list(range(len(TEXTS))))
    assert np.allclose(stored, int8, atol=1e-6)
    client = served(folder)
    assert np.allclose(vectors_of(client, TEXTS), int8, atol=1e-6)
    assert client.get("/v1/catalogue").json()["weights"] == "int8"
    asked = {"texts": TEXTS, "k": 1, "exclude_self": False}
    for n, one in enumerate(client.post("/v1/recommend", json=asked).json()["results"]):
        assert one["recommendations"][0]["id"] == f"i{n}"
        assert one["recommendations"][0]["score"] == pytest.approx(1, abs=1e-6)
    # the precision changes under the server: it follows, as it follows another model
    done = run(model, "-o", folder, "--rebuild", "--weights", "float32")
    assert done.exit_code == 0 and read_manifest(folder).model.weights == "float32", done.output
    assert np.allclose(Catalogue.open(folder).vectors(list(range(len(TEXTS)))), exact, atol=1e-6)
    deadline = time.monotonic() + 20
    while client.get("/v1/catalogue").json()["weights"] == "int8":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert np.allclose(vectors_of(client, TEXTS), exact, atol=1e-6)
    client.__exit__(None, None, None)


def test_changes_keep_the_precision_and_others_are_refused(model, folder, tmp_path):
    for more in ([], [model]):
        refused = run(*more, "--add", tmp_path / "more.jsonl", "-o", folder, "--weights", "float32")
        assert refused.exit_code == 1 and "encoded in int8, not in float32" in refused.stderr
        assert "leave --precision" in " ".join(refused.stderr.split())
    for more in ([], [model]):
        done = run(*more, "--add", tmp_path / "more.jsonl", "-o", folder)
        assert done.exit_code == 0, done.output
    assert np.allclose(
        Catalogue.open(folder).vectors([4]),
        leanmatch.load(model, precision="int8")(["wooden chair"]),
        atol=1e-6,
    )
    done = run(model, "-o", folder, "--rebuild", "--json")
    assert json.loads(done.stdout)["encoded"] == 0 and read_manifest(folder).model.weights == "int8"


def test_another_precision_of_queries_is_said_and_goes_with_no_writing(folder, caplog):
    with caplog.at_level(logging.WARNING, "leanmatch.serve"):
        client = served(folder, precision="float32")
    assert "queries are encoded in float32, the items were in int8" in caplog.text
    assert client.get("/health").status_code == 200
    client.__exit__(None, None, None)
    client = served(folder, precision="float32", write_keys=("write-key-1",))
    assert client.get("/health").status_code == 503
    assert "items that come over HTTP would not match" in client.get("/health").text
    client.__exit__(None, None, None)


def test_precisions_of_old_and_other_encoders(tmp_path):
    """Not recorded goes with anything, but is never taken for a known one."""

    class Precise(HashEncoder):
        precision = "int8"

    create_catalogue(tmp_path / "c", items_of_shop(3), HashEncoder())
    assert read_manifest(tmp_path / "c").model.precision == "stored"
    assert upsert_items(tmp_path / "c", items_of_shop(1, start=7), Precise()).added == 1
    assert rebuild_catalogue(tmp_path / "c", Precise()).encoded == 4
    assert read_manifest(tmp_path / "c").model.weights == "int8"
    Precise.precision = "torch"
    with pytest.raises(ModelError, match="encoded in int8, not in torch"):
        upsert_items(tmp_path / "c", items_of_shop(1, start=8), Precise())
    rebuild_catalogue(tmp_path / "c", Precise())
    assert read_manifest(tmp_path / "c").model.precision == "float32"
    Precise.precision = "float32"  # the same arithmetic
    assert upsert_items(tmp_path / "c", items_of_shop(1, start=8), Precise()).added == 1


def test_texts_that_the_model_cuts_are_counted(model, folder):
    encoder = leanmatch.load(model, precision="int8")
    long = "the " * 200
    counts = encoder.count_tokens([long, "usb dock"])
    assert counts.truncated == 1 and counts.lost > 100  # else nothing could be told from this test
    client = served(folder)

    def metric(name):
        lines = client.get("/metrics").text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(name + " "))

    before = metric("leanmatch_truncated_texts_total"), metric("leanmatch_tokens_total")
    body = {"input": [long, "usb dock"], "model": "model"}
    usage = client.post("/v1/embeddings", json=body).json()["usage"]
    assert usage == {
        "prompt_tokens": counts.tokens,
        "total_tokens": counts.tokens,
        "truncated_texts": 1,
    }
    assert client.post("/v1/recommend", json={"texts": [long, "red lamp"]}).status_code == 200
    assert metric("leanmatch_truncated_texts_total") - before[0] == 2
    assert metric("leanmatch_tokens_total") - before[1] > counts.tokens
    client.__exit__(None, None, None)
