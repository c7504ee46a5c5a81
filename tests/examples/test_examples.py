"""The scripts of ``examples/`` as a user runs them, on a tiny random encoder and made-up text."""

from __future__ import annotations

import csv
import json
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import training_models as models
from leanmatch.formats import read_provenance
from leanmatch.formats.artifact.loader import load_compressed
from leanmatch.formats.artifact.reader import read_artifact
from leanmatch.formats.reader import load_matcher

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(load_script):
    """The script as a module; ``main`` takes the arguments of its command line."""
    return lambda name: load_script(f"examples/{name}.py")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    models.transformer_model(folder / "source").save_pretrained(str(folder / "bert"), create_model_card=False)
    return folder / "bert"


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def made_up_pairs(count: int) -> list[dict[str, str]]:
    """Pairs that share three words, in three categories."""
    draw = random.Random(0)
    rows = []
    for row in range(count):
        shared = draw.sample(models.WORDS, 3)
        sides = [" ".join([f"{side}{row}", *shared, *draw.sample(models.WORDS, 2)]) for side in "ab"]
        rows.append({"anchor": sides[0], "positive": sides[1], "category": ("pens", "hats", "cups")[row % 3]})
    return rows


def test_product_titles(example, base, tmp_path, capsys):
    pairs = write_csv(tmp_path / "pairs.csv", made_up_pairs(240))
    output = tmp_path / "model"
    arguments = ["--base", str(base), "--hold-out", "cups", "--steps", "4", "-o", str(output)]
    example("product_titles").main([str(pairs), *arguments])
    said = capsys.readouterr().out
    assert "out of distribution: " in said and "in distribution: " in said
    assert "chosen on validation pairs: " in said
    nearest = re.findall(r"^  (-?\d\.\d{3})  b\d+ ", said, re.MULTILINE)
    assert len(nearest) == 5 and sorted(nearest, key=float, reverse=True) == nearest
    split = read_provenance(output)["split"]
    assert split["options"]["hold_out"] == ["category=cups"]


def test_duplicate_questions(example, base, tmp_path, capsys):
    questions = write_csv(tmp_path / "questions.csv", made_up_pairs(120))
    output = tmp_path / "model"
    arguments = ["--base", str(base), "--steps", "4", "--batch-size", "16", "-o", str(output)]
    example("duplicate_questions").main([str(questions), *arguments])
    said = capsys.readouterr().out
    assert "asks the same as 'b" in said and said.count("without '") == 5
    trained, start = (load_matcher(str(one)).encode(["ba la me"]) for one in (output, base))
    assert not np.allclose(trained, start, atol=1e-6), "it was trained"


def test_compress_classifier(example, base, tmp_path, capsys):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    names = {"pens": 0, "hats": 1}
    folder = tmp_path / "classifier"
    classifier = AutoModelForSequenceClassification.from_pretrained(
        str(base), num_labels=2, label2id=names, id2label={0: "pens", 1: "hats"}
    )
    classifier.save_pretrained(str(folder))
    AutoTokenizer.from_pretrained(str(base)).save_pretrained(str(folder))
    draw = random.Random(0)
    rows = [
        {"text": " ".join(draw.choices(models.WORDS[:20] if row % 2 else models.WORDS[15:], k=6)),
         "label": ("hats", "pens")[row % 2]} for row in range(100)
    ]  # fmt: skip
    texts = write_csv(tmp_path / "texts.csv", rows)
    output = tmp_path / "lean"
    layers = ["--block", "8", "--atoms", "16", "--nonzeros", "2", "--steps", "6"]
    example("compress_classifier").main([str(folder), str(texts), *layers, "-o", str(output)])
    said = capsys.readouterr().out
    before, after = map(
        float, re.search(r"accuracy (\S+) of (\S+) on 20 held-out texts", said).groups()[::-1]
    )
    assert 0 <= after <= 1 and 0 <= before <= 1
    assert f"loaded again: accuracy {after:.3f}" in said
    assert float(re.search(r"(\d\.\d\d)x fewer", said)[1]) > 1.2
    artifact = read_artifact(output)
    assert artifact.report["quality"]["metric"] == "accuracy"
    assert {type(layer.factors).__name__ for layer in artifact.layers.values()} >= {"QuantizedDenseSparse"}
    assert load_compressed(output, device="cpu").config.label2id == names
    assert json.loads((output / "config.json").read_text())["label2id"] == names


@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_every_example_says_what_it_needs(example, script, capsys):
    with pytest.raises(SystemExit) as stop:
        example(script.stem).main(["--help"])
    assert stop.value.code == 0
    assert f"python examples/{script.name}" in capsys.readouterr().out
