"""``leanmatch encode``, and ``leanmatch index build --vectors``: files to vectors to a catalogue."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("pyarrow", reason="the data extra (pyarrow) is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "batch"))

from batch_models import rows_of_shop, static_model, write_csv, write_jsonl

from leanmatch.cli.app import app
from leanmatch.index import Catalogue, read_manifest


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop")
    static_model(folder / "model")
    write_csv(folder / "a.csv", rows_of_shop(0, 30))
    write_jsonl(folder / "b.jsonl", rows_of_shop(30, 40))
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def test_from_files_to_a_catalogue_without_encoding_again(shop, tmp_path):
    out = tmp_path / "out"
    first = run("encode", shop / "model", shop / "a.csv", shop / "b.jsonl", "-o", out, "--shard", "0/2")
    assert "1 parts are missing" in first.stdout
    last = run("encode", shop / "model", shop / "a.csv", shop / "b.jsonl", "-o", out, "--shard", "1/2")
    assert last.stdout.splitlines() == [
        "10 texts encoded in 1 of 2 parts",
        f"{out} is complete: 40 vectors",
    ]
    built = json.loads(run("index", "build", "--vectors", out, "-o", tmp_path / "cat", "--json").stdout)
    assert (built["items"], built["added"], built["encoded"], built["reused"]) == (40, 40, 0, 40)
    run("index", "build", shop / "model", shop / "a.csv", "-o", tmp_path / "direct")
    ours, direct = Catalogue.open(tmp_path / "cat"), Catalogue.open(tmp_path / "direct")
    for row in range(30):
        assert ours.metadata(row) == direct.metadata(row)
        assert ours.text(row) == direct.text(row)
    assert np.array_equal(ours.vectors(range(30)), direct.vectors(range(30)))
    assert read_manifest(tmp_path / "cat").model == read_manifest(tmp_path / "direct").model
    answer = run("recommend", tmp_path / "cat", "usb dock", "-k", "2", "--where", "price < 10")
    assert "usb" in answer.stdout
    write_csv(tmp_path / "more.csv", rows_of_shop(40, 42))
    added = json.loads(run("index", "add", tmp_path / "cat", tmp_path / "more.csv", "--json").stdout)
    assert added["items"] == 42


def test_what_is_decided_with_the_vectors_cannot_be_given_again(shop, tmp_path):
    out = tmp_path / "out"
    run("encode", shop / "model", shop / "a.csv", "-o", out, "--role", "query")
    refused = run("index", "build", shop / "model", "--vectors", out, "-o", tmp_path / "cat", code=2)
    assert "MODEL is given together with --vectors" in refused.stderr
    refused = run("index", "build", "--vectors", out, "-o", tmp_path / "cat", code=1)
    assert "the role 'query'" in refused.stderr and "--role document" in refused.stderr
    refused = run("index", "build", "--vectors", shop, "-o", tmp_path / "cat", code=1)
    assert "holds no encoded files" in refused.stderr
    refused = run("index", "build", "-o", tmp_path / "cat", code=2)
    assert "MODEL and ITEMS are needed" in refused.stderr
    assert not (tmp_path / "cat").exists()


def test_json_and_remedies_of_the_command_line(shop, tmp_path):
    result = run("encode", shop / "model", shop / "a.csv", "-o", tmp_path / "out", "--json")
    assert json.loads(result.stdout) == {
        "parts": 1,
        "written": 1,
        "rows_encoded": 30,
        "rows_skipped": 0,
        "parts_missing": 0,
        "complete": True,
        "rows": 30,
        "superseded": 0,
    }
    write_csv(tmp_path / "twice.csv", [*rows_of_shop(0, 3), *rows_of_shop(1, 2)])
    refused = run("encode", shop / "model", tmp_path / "twice.csv", "-o", tmp_path / "twice", code=1)
    assert "--on-duplicate last" in refused.stderr and "twice.csv:4" in refused.stderr
    refused = run("encode", tmp_path / "absent", shop / "a.csv", "-o", tmp_path / "x", code=1)
    assert "absent" in refused.stderr
