"""``--dimensions``: from training to catalogues, evaluation and serving, on a tiny static model."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from leanmatch.cli.app import app
from leanmatch.data import read_pairs
from leanmatch.errors import DataError, ModelError, UsageError
from leanmatch.index import Catalogue, Item, upsert_items
from leanmatch.index.storage.manifest import read_manifest
from leanmatch.metrics import EvaluationOptions, evaluate
from leanmatch.runtime import load

pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
sys.path.insert(0, str(Path(__file__).parents[1] / "interventions"))
import tiny_models as models

ITEMS = ["usb dock", "fast cable", "red marker", "the usb cable", "how the dock", "red dock don"]
QUERIES = ["usb red", "fast", "how red", "cable dock", "the", "don red"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "m"
    models.static().save(str(folder))
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
    return written(tmp_path / "items.csv", {"id": list(range(len(ITEMS))), "text": ITEMS})


def scores_of(catalogue, query):
    shown = run("recommend", catalogue, query, "-k", "20", "--json", "--include-self")
    (found,) = json.loads(shown.stdout)["queries"]
    return [item["score"] for item in found["recommendations"]]


def expected(model, query, dimensions):
    encoder = load(model, truncate_dim=dimensions)
    return np.sort(encoder([*ITEMS]) @ encoder([query])[0])[::-1]


def test_a_catalogue_keeps_its_dimensions(model, items, tmp_path):
    target, whole = tmp_path / "catalogue", tmp_path / "whole"
    run("index", "build", model, items, "-o", whole)
    run("index", "build", model, items, "-o", target, "--dimensions", "5")
    assert read_manifest(whole).model.dimension == 16 and read_manifest(target).model.dimension == 5
    assert json.loads(run("index", "check", target, "--json").stdout)["dimensions"] == 5
    np.testing.assert_allclose(scores_of(target, "usb red"), expected(model, "usb red", 5), atol=1e-5)
    assert abs(np.array(scores_of(whole, "usb red")) - scores_of(target, "usb red")).max() > 0.01
    more = written(tmp_path / "more.csv", {"id": ["new"], "text": ["marker cable"]})
    assert json.loads(run("index", "add", target, more, "--json").stdout)["encoded"] == 1
    assert len(scores_of(target, "usb red")) == 7
    again = json.loads(run("index", "rebuild", target, "--json").stdout)
    assert again["encoded"] == 0 and read_manifest(target).model.dimension == 5
    again = json.loads(run("index", "rebuild", target, model, "--dimensions", "9", "--json").stdout)
    assert again["encoded"] == 7 and read_manifest(target).model.dimension == 9
    for number in (0, 17):
        refused = run("index", "rebuild", target, "--dimensions", number, code=2)
        assert "have 16 dimensions" in " ".join(refused.output.split())
    assert read_manifest(target).model.dimension == 9


def test_encoders_of_other_dimensions_are_refused(model, items, tmp_path):
    target = tmp_path / "catalogue"
    run("index", "build", model, items, "-o", target, "--dimensions", "5")
    with pytest.raises(ModelError, match=r"vectors have 5 dimensions, and those of .* have 16") as refused:
        upsert_items(target, [Item("x", "usb")], load(model))
    assert "truncate_dim=5" in refused.value.remedy
    catalogue = Catalogue.open(target)
    with pytest.raises(DataError, match="5"):
        catalogue.recommend(load(model), ["usb"])
    assert upsert_items(target, [Item("x", "usb")], load(model, truncate_dim=5)).added == 1


def test_files_are_encoded_in_fewer_dimensions(model, items, tmp_path):
    pytest.importorskip("pyarrow", reason="the data extra is not installed")
    out, target = tmp_path / "vectors", tmp_path / "catalogue"
    for number in (0, 17):
        refused = run("encode", model, items, "-o", out, "--dimensions", number, code=2)
        assert f"dimensions is {number}" in refused.output
    assert not list(out.glob("*"))
    run("encode", model, items, "-o", out, "--dimensions", "5")
    assert "the dimension was 5" in run("encode", model, items, "-o", out, code=1).output
    run("index", "build", "--vectors", out, "-o", target)
    assert read_manifest(target).model.dimension == 5
    np.testing.assert_allclose(scores_of(target, "usb red"), expected(model, "usb red", 5), atol=1e-5)


@pytest.fixture
def pairs(tmp_path):
    return written(tmp_path / "pairs.csv", {"anchor": QUERIES * 4, "positive": ITEMS * 4})


def test_evaluation_in_several_dimensions(model, pairs):
    common = ("evaluate", model, pairs, "--asymmetric", "--slices", "none", "--json")
    found = json.loads(run(*common, "--dimensions", "3,16, 8").stdout)
    assert list(found["dimensions"]) == ["16", "8", "3"] and found["name"].endswith("16 dimensions")
    whole = json.loads(run(*common).stdout)

    def values(document):
        return {m["metric"]: m["value"] for m in document["slices"][0]["metrics"].values()}

    assert values(found) == values(found["dimensions"]["16"]) == pytest.approx(values(whole))
    assert values(found["dimensions"]["3"]) != values(whole), "fewer dimensions change the metrics"
    compared = found["dimensions"]["3"]
    assert compared["against"].endswith("16 dimensions") and found["against"] is None
    for number in (8, 3):
        again = json.loads(run(*common, "--dimensions", number).stdout)
        assert list(again["dimensions"]) == [str(number)]
        assert values(again) == pytest.approx(values(found["dimensions"][str(number)]))
    options = EvaluationOptions(symmetric=False, slices=())
    alone = evaluate(load(model, truncate_dim=3), read_pairs(pairs), options=options).slices["overall"]
    for name, value in values(compared).items():
        assert alone.metrics[name].value == pytest.approx(value)
    shown = run(*common[:-1], "--dimensions", "16,3").stdout
    assert "3 dimensions against" in " ".join(shown.split())
    assert "have 16 dimensions" in run(*common, "--dimensions", "17", code=2).output
    assert "whole numbers" in run(*common, "--dimensions", "8,x", code=2).output


def test_evaluation_in_several_dimensions_of_a_hybrid_ranking(model, pairs):
    """Each number of dimensions is compared with the largest, both by terms as well."""
    pytest.importorskip("bm25s", reason="the hybrid extra is not installed")
    vectors = ("evaluate", model, pairs, "--asymmetric", "--slices", "none", "--json")
    common = (*vectors, "--hybrid", "--lexical-weight", "0.9")

    def by_metric(document, what):
        return {m["metric"]: m[what] for m in document["slices"][0]["metrics"].values()}

    found = json.loads(run(*common, "--dimensions", "16,3").stdout)
    few = found["dimensions"]["3"]
    assert few["name"] == "m (hybrid), 3 dimensions" and few["against"] == "m (hybrid), 16 dimensions"
    assert any(
        note.startswith("m (hybrid), 16 dimensions ranks by cosine and terms") for note in few["notes"]
    )
    assert by_metric(few, "base") == pytest.approx(by_metric(found, "value"))
    alone = json.loads(run(*common, "--dimensions", "3").stdout)
    assert by_metric(few, "value") == pytest.approx(by_metric(alone, "value"))
    plain = json.loads(run(*vectors, "--dimensions", "3").stdout)
    assert by_metric(plain, "value") != by_metric(alone, "value"), "terms change the metrics"
    rival = json.loads(run(*common, "--dimensions", "3", "--against", model).stdout)
    whole = json.loads(run(*vectors).stdout)
    assert by_metric(rival, "base") == pytest.approx(by_metric(whole, "value")), "a rival ranks by cosine"


def test_trained_dimensions_are_recorded_and_honoured(model, pairs, tmp_path):
    target = tmp_path / "trained"
    settings = ("--base", model, "--max-steps", "2", "--batch-size", "4", "--average", "1", "--weight", "1")
    run("train", pairs, "-o", target, *settings, "--dimensions", "8,4", "--device", "cpu")
    recorded = json.loads((target / "leanmatch.json").read_text())
    assert recorded["options"]["dimensions"] == [8, 4]
    card = (target / "README.md").read_text()
    assert f'leanmatch.load("{target.name}", truncate_dim=8)' in card and "| 4 |" in card
    encoder = load(target, truncate_dim=4)
    whole = load(target)
    assert encoder.dimension == 4 and whole.dimension == 16
    np.testing.assert_allclose(encoder.encode(QUERIES), whole.encode(QUERIES)[:, :4], atol=1e-6)
    refused = run("train", pairs, "-o", tmp_path / "b", *settings, "--dimensions", "17", code=2)
    assert "have 16 dimensions" in " ".join(refused.output.split())


def test_a_folder_with_truncate_dim_is_honoured(tmp_path):
    made = models.static()
    made.truncate_dim = 6
    made.save(str(tmp_path / "m"))
    encoder = load(tmp_path / "m")
    assert encoder.dimension == encoder.truncate_dim == 6 and encoder.whole_dimension == 16
    assert load(tmp_path / "m", truncate_dim=9).dimension == 9
    with pytest.raises(UsageError, match="truncate_dim is 0"):
        load(tmp_path / "m", truncate_dim=0)
