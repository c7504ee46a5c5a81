"""The demo's whole road, with a tiny encoder and a made-up graph in the place of the real ones."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import training_models as models
from leanmatch.cli import demo
from leanmatch.cli.app import app
from leanmatch.data import PairTable, write_pairs


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """A base model, and data where the demo would otherwise make it."""
    models.static_model().save_pretrained(str(tmp_path / "base"), create_model_card=False)
    monkeypatch.setattr(demo, "BASE", str(tmp_path / "base"))
    draw = random.Random(1)
    columns: dict[str, list[str]] = {name: [] for name in ("anchor", "positive", "anchor_id", "positive_id")}
    columns |= {"package": [], "split": []}
    items = {}
    for row in range(480):
        package = ("numpy", "scipy", "pandas", "sklearn")[row % 4]
        shared = draw.sample(models.WORDS, 3)
        for side in ("anchor", "positive"):
            words = [*shared, *draw.sample(models.WORDS, 4)]
            name, text = f"{package}.{side}{row}", f"{side}{row}: " + " ".join(words)
            columns[side].append(text)
            columns[f"{side}_id"].append(name)
            items[name] = {"id": name, "text": text, "package": package, "kind": "function"}
        columns["package"].append(package)
        columns["split"].append(("train", "train", "train", "test", "valid")[row // 4 % 5])
    data = tmp_path / "out" / "data"
    data.mkdir(parents=True)
    write_pairs(PairTable.from_columns(columns), data / "pairs.parquet")
    (data / "items.jsonl").write_text("\n".join(map(json.dumps, items.values())) + "\n")
    return tmp_path / "out"


def test_the_whole_road(prepared):
    result = CliRunner().invoke(app, ["demo", "-o", str(prepared), "--quick"], env={"COLUMNS": "140"})
    assert result.exit_code == 0, result.output
    for row in ("base", "plain fine-tuning", "ITVReg", "leanmatch"):
        assert row in result.stdout
    assert "out of distribution" in result.stdout
    assert "leanmatch train pairs.csv" in result.stdout, "what to do next"
    for query in demo.QUERIES:
        assert query in result.stdout
    assert "minutes on 2 cores" in result.stderr.splitlines()[0], "it says at once how long it takes"
    assert (prepared / "model" / "leanmatch.json").exists() and not (prepared / "work").exists()


def test_json_and_a_second_run(prepared):
    for _ in range(2):
        result = CliRunner().invoke(app, ["demo", "-o", str(prepared), "--quick", "--json"])
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        assert set(found["evaluations"]) == {"base", "plain fine-tuning", "ITVReg", "leanmatch"}
        assert [len(r["items"]) for r in found["recommendations"]] == [5, 5, 5]
        assert all(i["id"].startswith("pandas.") for r in found["recommendations"] for i in r["items"])
