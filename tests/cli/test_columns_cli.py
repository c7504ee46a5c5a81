"""A table of clicks from check to compress: its columns are recognized, and remembered by the model."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import training_models as models
from leanmatch.cli.app import app
from leanmatch.formats import read_provenance


def leanmatch(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def write_clicks(path, names=("query", "title", "clicked"), mark=","):
    anchors, positives = models.pair_lists()
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, delimiter=mark)
        writer.writerow(names)
        for row, (anchor, positive) in enumerate(zip(anchors, positives, strict=True)):
            writer.writerow([anchor, positive, int(row % 3 > 0)])
    return path


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    return write_clicks(tmp_path_factory.mktemp("clicks") / "pairs.csv")


@pytest.fixture(scope="module")
def trained(clicks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    models.transformer_model(folder / "source").save_pretrained(str(folder / "base"), create_model_card=False)
    result = leanmatch(
        *("train", clicks, "-o", folder / "m", "--base", folder / "base", "--max-steps", 2),
        *("--batch-size", 8, "--device", "cpu", "--regularizer", "none", "--average", 1),
    )
    assert result.exit_code == 0, result.output
    assert "Reading query as anchor, title as positive, clicked as label; --column to change" in result.stderr
    return folder / "m"


def test_check_counts_non_clicks_and_says_how_it_read_them(clicks, tmp_path):
    result = leanmatch(
        "data", "check", clicks, "--column", "anchor=query", "--column", "positive=title", "--json"
    )
    assert json.loads(result.stdout)["labels"] == {"1": 64, "0": 32}
    assert "Reading clicked as label; --column to change" in result.stderr
    semicolons = write_clicks(tmp_path / "pairs.csv", mark=";")
    result = leanmatch("data", "check", semicolons, "--json")
    assert json.loads(result.stdout)["labels"] == {"1": 64, "0": 32}
    assert "separated by a semicolon" in result.stderr
    unread = leanmatch("data", "check", clicks, "--column", "clicked=clicked", "--json")
    assert json.loads(unread.stdout)["labels"] == {"1": 96, "0": 0}


REMEMBERED = {"anchor": "query", "positive": "title", "label": "clicked"}


def test_the_model_remembers_the_mapping(trained):
    assert read_provenance(trained)["data"]["columns"] == REMEMBERED


@pytest.mark.parametrize("command", ["evaluate", "diagnose"])
def test_the_same_table_needs_no_flags_again(trained, clicks, command):
    result = leanmatch(command, trained, clicks, "--against", "base", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    assert f"clicked as label, as in the training of {trained}" in result.stderr
    assert "rows of the split that the model was trained with" in result.stderr


def test_compress_remembers_the_mapping_and_passes_it_on(trained, clicks, tmp_path):
    result = leanmatch(
        *("compress", trained, "--data", clicks, "-o", tmp_path / "lean", "--method", "int8"),
        *("--keep", "0.5", "--device", "cpu", "--json"),
    )
    assert result.exit_code == 0, result.output
    assert "split as in training" in result.stderr
    assert read_provenance(tmp_path / "lean")["data"]["columns"] == REMEMBERED
    result = leanmatch("evaluate", tmp_path / "lean", clicks, "--device", "cpu", "--json")
    assert result.exit_code == 0 and "clicked as label, as in the training of" in result.stderr


def test_flags_override_and_another_table_is_refused_with_what_to_type(trained, tmp_path):
    other = write_clicks(tmp_path / "other.csv", ("search", "product", "n"))
    refused = leanmatch("evaluate", trained, other, "--device", "cpu")
    assert refused.exit_code == 1
    assert "was trained on a table that has query as anchor, title as positive" in refused.stderr
    flags = refused.stderr.partition("say which columns to use: ")[2].split()
    assert flags == ["--column", "anchor=search", "--column", "positive=product"]
    result = leanmatch("evaluate", trained, other, "--device", "cpu", *flags)
    assert result.exit_code == 0, result.output
    assert "no column 'clicked', which was the label" in result.stderr
    assert "--column label=n" in result.stderr, "zeros and ones that are not read are warned of"
