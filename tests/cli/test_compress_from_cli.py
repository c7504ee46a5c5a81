"""``leanmatch compress --from``, which trains a compressed model further, and ``--texts``."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from compress_models import FewLayers, compress

import training_models as models
from leanmatch.compression.planner import states
from leanmatch.compression.planner.tasks import Matching
from leanmatch.formats.artifact.reader import read_artifact


@pytest.fixture(scope="module")
def lean(base, pairs, tmp_path_factory):
    output = tmp_path_factory.mktemp("lean") / "m"
    result = compress(base, pairs, output, "--macs", "1.3x", "--minutes", "0.01")
    assert result.exit_code == 0, result.output
    return output


def steps_of(artifact):
    """Steps of the last call that made the model."""
    evaluated = artifact.provenance["training"]["evaluated"]
    return next(state["training"]["steps"] for state in evaluated if state["chosen"])


def test_a_compressed_model_is_trained_further(base, pairs, lean, tmp_path, monkeypatch):
    begun = []
    train = states.train_factors

    def recorded(model, teacher, task, options, *arguments, **named):
        begun.append(options.begin)
        return train(model, teacher, task, options, *arguments, **named)

    monkeypatch.setattr(states, "train_factors", recorded)
    flags = ("--from", lean, "--keep", "0.9", "--allow-lower", "--minutes", "0.02")
    result = compress(base, pairs, tmp_path / "m", *flags, "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    first, second = (read_artifact(folder) for folder in (lean, tmp_path / "m"))
    evaluated = summary["evaluated"]
    assert summary["from"] == str(lean) and [state["trained"] for state in evaluated] == [False, True]
    assert evaluated[0]["compressed"] == pytest.approx(first.report["quality"]["compressed"]), (
        "as it was saved"
    )
    assert evaluated[1]["training"]["steps"] > 0 and "before more training" in result.stderr
    assert second.report["spec"] == first.report["spec"]
    assert second.report["bytes"]["layers"] == first.report["bytes"]["layers"]
    moved = [
        name
        for name, layer in first.layers.items()
        if not np.array_equal(layer.factors.dense(), second.layers[name].factors.dense())
    ]
    assert bool(moved) == evaluated[1]["chosen"]
    started = second.provenance["training"]["start"]
    steps = steps_of(first)
    assert started["steps"] == steps and len(started["fingerprint"]) == 64
    assert begun == [steps], "the texts of the first training do not come first again"
    third = compress(base, pairs, tmp_path / "m", *flags[2:], "--from", tmp_path / "m", "--overwrite")
    assert third.exit_code == 0 and "before more training" in third.stdout
    started = read_artifact(tmp_path / "m").provenance["training"]["start"]
    assert started["steps"] == steps + steps_of(second)


def test_a_model_without_an_encoder_layer_is_trained_further(base, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr("leanmatch.cli.compress.task.clock_of", FewLayers)
    first = compress(base, pairs, tmp_path / "m", "--faster", "1.9x", "--minutes", "0.01")
    assert first.exit_code == 0, first.output
    flags = ("--from", tmp_path / "m", "--minutes", "0.01", "--json")
    result = compress(base, pairs, tmp_path / "n", *flags)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert len(summary["dropped"]) == 1 and summary["faster"] == 2.0
    assert read_artifact(tmp_path / "n").config["num_hidden_layers"] == 1


def test_what_cannot_be_trained_further(base, pairs, lean, tmp_path):
    none = compress(base, pairs, tmp_path / "n", "--from", base)
    assert none.exit_code == 1 and "is not a compressed model" in none.stderr
    other = models.transformer_model(tmp_path / "source")
    other[0].auto_model.encoder.layer = other[0].auto_model.encoder.layer[:1]
    other[0].auto_model.config.num_hidden_layers = 1
    other.save_pretrained(str(tmp_path / "other"), create_model_card=False)
    unlike = compress(tmp_path / "other", pairs, tmp_path / "n", "--from", lean)
    assert unlike.exit_code == 1 and "was not made from this model" in unlike.stderr
    record = tmp_path / "bare" / "leanmatch.json"
    shutil.copytree(lean, tmp_path / "bare")
    told = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps({name: value for name, value in told.items() if name != "training"}))
    bare = compress(base, pairs, tmp_path / "n", "--from", tmp_path / "bare")
    assert bare.exit_code == 1 and "has no plan or no record of training" in bare.stderr
    assert not (tmp_path / "n").exists()


def test_more_texts_without_labels_are_learned_from(base, pairs, tmp_path, monkeypatch):
    learned = []
    prepare = Matching.prepare

    def recorded(self, *arguments):
        learned.extend(self.texts)
        return prepare(self, *arguments)

    monkeypatch.setattr(Matching, "prepare", recorded)
    rows = list(csv.DictReader(pairs.open()))
    held = next(row["anchor"] for row in rows if row["split"] == "valid")
    items = tmp_path / "items.csv"
    items.write_text(f"title\nbala dini cela\n{held.upper()}\nbala dini cela\n", encoding="utf-8")
    fixed = ("--method", "int8", "--keep", "0.5", "--texts", items)
    result = compress(base, pairs, tmp_path / "m", *fixed)
    assert result.exit_code == 0, result.output
    assert "more texts to learn from: 1 (1 left out" in result.stderr
    assert learned[-1] == "bala dini cela" and held.upper() not in learned
    assert read_artifact(tmp_path / "m").provenance["texts"] == {"source": str(items), "texts": 1}
    wrong = compress(base, pairs, tmp_path / "n", "--text-column", "title")
    assert wrong.exit_code == 2 and "names a column of --texts, which is not given" in wrong.stderr
