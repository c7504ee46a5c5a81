"""Exports: other libraries read them and compute the same."""

from __future__ import annotations

import builtins
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from compressed_models import SMALL, compressed

from leanmatch.compression import CompressionSpec, DenseSparseSpec, Rule, compressed_layers
from leanmatch.errors import FormatError, LeanmatchError, MissingExtraError, UsageError
from leanmatch.formats import read_provenance, save_compressed
from leanmatch.formats.artifact.loader import load_compressed
from leanmatch.formats.exports import densify, export_model
from leanmatch.formats.exports import onnx_file as onnxfile
from leanmatch.formats.reader import load_matcher

TEXTS = ["usb dock", "red camera lens", "how do i mount a drive"]


@pytest.fixture(scope="module")
def model(build_bert, tmp_path_factory):
    return compressed(build_bert(tmp_path_factory.mktemp("bert"), dense=True))


@pytest.fixture(scope="module")
def artifact(model, tmp_path_factory):
    return save_compressed(model, tmp_path_factory.mktemp("artifact") / "m", {"base": "tiny"}).folder


@pytest.fixture(scope="module")
def classifier(bert, tmp_path_factory):
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    made = BertForSequenceClassification(
        BertConfig(vocab_size=90, num_labels=3, initializer_range=0.1, **sizes)
    )
    spec = CompressionSpec((Rule("*encoder.layer.*dense", DenseSparseSpec(**SMALL)),))
    made = compressed(made.eval(), spec, grow=False)
    folder = tmp_path_factory.mktemp("classifier") / "m"
    return save_compressed(made, folder, {"base": "tiny"}, tokenizer=bert.tokenizer).folder


def test_dense_layers_compute_what_the_factors_did(model):
    dense = densify(model)
    assert compressed_layers(model) and not compressed_layers(dense)
    np.testing.assert_allclose(dense.encode(TEXTS), model.encode(TEXTS), atol=1e-5)


def test_sentence_transformers(model, artifact, tmp_path):
    from sentence_transformers import SentenceTransformer

    saved = export_model(artifact, "sentence-transformers", tmp_path / "st", sample=TEXTS)
    found = SentenceTransformer(str(tmp_path / "st"), device="cpu")
    expected = model.encode(TEXTS)
    assert not compressed_layers(found) and not np.allclose(expected[0], expected[1], atol=1e-3)
    np.testing.assert_allclose(found.encode(TEXTS), expected, atol=2e-3)
    assert saved.parity.min_cosine > 0.9999 and "pooler" in saved.notes[0]
    provenance = read_provenance(tmp_path / "st")
    assert provenance["base"] == "tiny" and provenance["exported"]["target"] == "sentence-transformers"


def test_transformers(classifier, artifact, tmp_path):
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    saved = export_model(classifier, "transformers", tmp_path / "t")
    assert saved.notes == ()
    found = AutoModelForSequenceClassification.from_pretrained(tmp_path / "t")
    tokens = AutoTokenizer.from_pretrained(tmp_path / "t")(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        one, two = (m(**tokens).logits for m in (found.eval(), load_compressed(classifier, "cpu")))
    assert one.std(0).max() > 1e-3
    torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)
    bare = export_model(artifact, "transformers", tmp_path / "bare")
    assert "Pooling, Dense, Normalize" in bare.notes[1]
    assert AutoModel.from_pretrained(tmp_path / "bare").config.hidden_size == 32


def test_onnx_of_a_matcher(model, artifact, tmp_path):
    ort = pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    import onnx
    from transformers import AutoTokenizer

    saved = export_model(artifact, "onnx", tmp_path / "o", sample=TEXTS)
    graph = onnx.load(tmp_path / "o" / "model.onnx")
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", onnxfile.OPSET)]
    session = ort.InferenceSession(str(tmp_path / "o" / "model.onnx"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "o")
    for texts in (TEXTS, TEXTS[:1]):
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=24, return_tensors="np")
        (found,) = session.run(None, dict(tokens))
        np.testing.assert_allclose(found, model.encode(texts), atol=2e-3)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)
    content = json.loads((tmp_path / "o" / "leanmatch.json").read_text())
    assert content["onnx"]["outputs"] == ["sentence_embedding"] and saved.parity.min_cosine > 0.9999


def test_onnx_of_a_classifier_and_a_graph_that_differs(classifier, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    from transformers import AutoTokenizer

    saved = export_model(classifier, "onnx", tmp_path / "o")
    assert saved.parity.min_cosine > 0.9999
    real = onnxfile._outputs

    def other(model, features):
        return [value + 1 for value in real(model, features)]

    monkeypatch.setattr(onnxfile, "_outputs", other)
    model = load_compressed(classifier, "cpu")
    tokenizer = AutoTokenizer.from_pretrained(classifier)
    with pytest.raises(FormatError, match="the ONNX graph gives other outputs"):
        onnxfile._compare(model, tokenizer, tmp_path / "o" / "model.onnx", TEXTS)


@pytest.mark.parametrize("library", onnxfile.LIBRARIES)
def test_a_missing_library_names_the_extra(artifact, tmp_path, monkeypatch, library):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == library:
            raise ModuleNotFoundError(name=name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"leanmatch\[export\]"):
        export_model(artifact, "onnx", tmp_path / "o")
    assert os.listdir(tmp_path) == []


def test_mistakes(artifact, classifier, tmp_path):
    with pytest.raises(UsageError, match="one of sentence-transformers, transformers, onnx"):
        export_model(artifact, "tensorflow", tmp_path / "x")
    with pytest.raises(UsageError, match="which sentence-transformers does not read"):
        export_model(classifier, "sentence-transformers", tmp_path / "x")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("years of work")
    with pytest.raises(LeanmatchError, match="exists already"):
        export_model(artifact, "transformers", tmp_path / "x")
    with pytest.raises(FormatError, match="holds no compressed model"):
        export_model(tmp_path / "x", "transformers", tmp_path / "y")
    assert load_matcher(artifact, device="cpu") is not None
