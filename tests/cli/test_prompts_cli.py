"""Prompt options and truncated texts of the commands, on a tiny static model."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from leanmatch.cli.app import app
from leanmatch.index import Catalogue
from leanmatch.index.storage.manifest import read_manifest
from leanmatch.runtime import load

pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "interventions"))
import tiny_models as models

ITEMS = ["usb dock", "fast cable", "red marker", "the usb cable", "how the dock"]
QUERIES = ["usb red", "fast", "how red", "cable dock", "the"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "m"
    made = models.static()
    made.tokenizer.enable_truncation(12)
    made.prompts = {"query": "how ", "document": "", "sts": "red "}
    made.save(str(folder))
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def written(path, columns):
    with path.open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(columns)
        rows.writerows(zip(*columns.values(), strict=True))
    return path


@pytest.fixture
def items(tmp_path):
    texts = [*ITEMS, " ".join(["usb"] * 20)]
    return written(tmp_path / "items.csv", {"id": list(range(len(texts))), "text": texts})


def test_a_catalogue_keeps_the_prompts_it_was_made_with(model, items, tmp_path):
    target = tmp_path / "catalogue"
    options = ("--query-prompt", "fast ", "--document-prompt", "the ")
    made = run("index", "build", model, items, "-o", target, "--json", *options)
    document = json.loads(made.stdout)
    assert (document["truncated"], document["tokens_cut_off"]) == (1, 9)
    assert "1 of 6 texts is longer than the model reads" in made.stderr
    identity = read_manifest(target).model
    assert (identity.query_prompt, identity.document_prompt) == ("fast ", "the ")
    encoder = load(model)
    unit = {"normalize_embeddings": True}
    vectors = encoder.encode_document([*ITEMS, "usb " * 20], prompt="the ", **unit)
    for arguments, prompt in (
        ((), "fast "),
        (("--query-prompt", ""), ""),
        (("--prompt-name", "sts"), "red "),
    ):
        shown = run("recommend", target, "usb red", "-k", "6", "--json", *arguments)
        scores = np.sort((encoder.encode(["usb red"], prompt=prompt, **unit) @ vectors.T)[0])[::-1]
        (found,) = json.loads(shown.stdout)["queries"]
        np.testing.assert_allclose([item["score"] for item in found["recommendations"]], scores, atol=1e-5)
    more = written(tmp_path / "more.csv", {"id": ["9"], "text": ["dock"]})
    refused = run("index", "add", target, more, "--document-prompt", "red ", code=2)
    assert "No such option" in refused.output
    run("index", "add", target, more)
    row = Catalogue.open(target).row("9")
    np.testing.assert_allclose(
        Catalogue.open(target)._vectors[row], encoder.encode("dock", prompt="the ", **unit), atol=1e-6
    )
    run("index", "rebuild", target, model)
    assert read_manifest(target).model.document_prompt == "the "
    run("index", "rebuild", target, "--prompt-name", "sts")
    assert read_manifest(target).model.document_prompt == "red "


@pytest.mark.parametrize("runtime", [(), ("--runtime",)])
def test_evaluate_counts_what_is_cut_off_and_takes_prompts(model, tmp_path, runtime):
    pairs = written(tmp_path / "pairs.csv", {"anchor": QUERIES, "positive": [*ITEMS[:4], "usb " * 20]})
    common = ("evaluate", model, pairs, "--asymmetric", "--split", "all", "--json", *runtime)
    own = json.loads(run(*common).stdout)
    assert own["tokens"]["truncated"] == 1 and own["tokens"]["lost"] == 8
    assert any("longer than the model reads" in note for note in own["notes"])
    other = json.loads(run(*common, "--prompt-name", "sts").stdout)
    assert other["tokens"]["lost"] == 9, "the prompt takes room in the longest text"
    assert run(*common, "--prompt-name", "nowhere", code=2).output.count("no prompt named 'nowhere'") == 1
    assert "exclude" in run(*common, "--prompt-name", "sts", "--query-prompt", "a", code=2).output


def test_data_check_counts_what_a_model_cuts_off(model, tmp_path):
    pairs = written(tmp_path / "pairs.csv", {"anchor": QUERIES, "positive": [*ITEMS[:4], "usb " * 20]})
    assert "tokens" not in json.loads(run("data", "check", pairs, "--json").stdout)
    found = json.loads(run("data", "check", pairs, "--json", "--model", model).stdout)["tokens"]
    assert found["anchor"]["texts"] == 5 and found["anchor"]["truncated"] == 0
    assert (found["positive"]["truncated"], found["positive"]["lost"]) == (1, 8)
    shown = run("data", "check", pairs, "--model", model).stdout
    assert "positive texts: 1 of 5 texts is longer than the model reads" in " ".join(shown.split())


def test_explain_takes_prompts(model):
    scores = set()
    for options in ((), ("--query-prompt", "red ", "--document-prompt", "usb "), ("--prompt-name", "sts")):
        found = json.loads(run("explain", model, "usb dock", "red cable", "--json", *options).stdout)
        (pair,) = found["models"].values()
        assert [unit["text"] for unit in pair["anchor"]["units"]] == ["usb", "dock"]
        scores.add(round(pair["score"], 6))
    assert len(scores) == 3, "the prompts change the score"


def test_train_records_prompts(model, tmp_path):
    pairs = written(tmp_path / "pairs.csv", {"anchor": QUERIES * 4, "positive": ITEMS * 4})
    target = tmp_path / "trained"
    settings = ("--base", model, "--max-steps", "2", "--batch-size", "4", "--average", "1", "--weight", "1")
    run("train", pairs, "-o", target, *settings, "--query-prompt", "fast ", "--device", "cpu")
    config = json.loads((target / "config_sentence_transformers.json").read_text())
    assert config["prompts"] == {"query": "fast ", "document": "", "sts": "red "}
    assert json.loads((target / "leanmatch.json").read_text())["options"]["prompts"]["query"] == "fast "
    assert load(target).prompts.query == "fast "
