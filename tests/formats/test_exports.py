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
from test_docs import code_blocks

from leanmatch.compression import CompressionSpec, DenseSparseSpec, Rule, compressed_layers
from leanmatch.errors import FormatError, LeanmatchError, MissingExtraError, ModelError, UsageError
from leanmatch.formats import check_target, read_provenance, save_compressed
from leanmatch.formats.artifact.loader import load_compressed
from leanmatch.formats.exports import densify, export_model
from leanmatch.formats.exports import onnx_file as onnxfile
from leanmatch.formats.exports.graph import outputs_of
from leanmatch.formats.exports.graphs import compare_graph
from leanmatch.formats.exports.source import open_source
from leanmatch.formats.parity import ODD_TEXTS
from leanmatch.formats.reader import load_matcher

TEXTS = ["usb dock", "red camera lens", "how do i mount a drive"]


@pytest.fixture(scope="module", autouse=True)
def really_write_onnx():
    """Tracing takes seconds: a model is traced once, and later exports of it begin with a copy of its graph.

    Yields the function that always traces.
    """
    real, made = onnxfile.write_onnx, {}

    def write(source, path):
        if source.name not in made:
            names = real(source, path)
            made[source.name] = names, path.read_bytes()
        names, graph = made[source.name]
        path.write_bytes(graph)
        return names

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxfile, "write_onnx", write)
        yield real


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


def run_onnx(folder, texts):
    ort = pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    from transformers import AutoTokenizer

    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]
    tokens = AutoTokenizer.from_pretrained(folder)(texts, padding=True, truncation=True, return_tensors="np")
    (found,) = session.run(["sentence_embedding"], {name: tokens[name] for name in names})
    return names, found


def test_onnx_of_a_matcher(model, artifact, tmp_path):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    import onnx

    saved = export_model(artifact, "onnx", tmp_path / "o", sample=TEXTS)
    graph = onnx.load(tmp_path / "o" / "model.onnx")
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", onnxfile.OPSET)]
    for texts in (TEXTS, TEXTS[:1], [*ODD_TEXTS]):
        names, found = run_onnx(tmp_path / "o", texts)
        assert names == ["input_ids", "attention_mask"]
        np.testing.assert_allclose(found, model.encode(texts), atol=2e-3)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)
    content = json.loads((tmp_path / "o" / "leanmatch.json").read_text())
    assert content["onnx"]["outputs"] == ["sentence_embedding"] and saved.parity.min_cosine > 0.9999
    assert content["onnx"]["max_tokens"] == 24 and content["base"] == "tiny"


@pytest.fixture(scope="module")
def stock(build_bert, tmp_path_factory):
    """An uncompressed model with a Dense layer, prompts and no Normalize module."""
    from sentence_transformers import SentenceTransformer

    made = build_bert(tmp_path_factory.mktemp("stock"), dense=True, pooling="max", num_hidden_layers=1)
    with torch.no_grad():
        for value in made.parameters():
            if value.ndim == 2:
                value.mul_(5.0)
    modules = [module for module in made if type(module).__name__ != "Normalize"]
    made = SentenceTransformer(modules=modules, prompts={"query": "find: "}, device="cpu")
    folder = tmp_path_factory.mktemp("saved") / "m"
    made.save_pretrained(str(folder))
    return made, folder


@pytest.fixture(scope="module")
def whole(stock, tmp_path_factory):
    """The stock model as ONNX in float32: one export takes seconds."""
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    return export_model(stock[1], "onnx", tmp_path_factory.mktemp("whole") / "o", sample=TEXTS)


def test_onnx_of_an_uncompressed_model(stock, whole):
    made, folder = stock
    expected = made.encode(TEXTS)
    assert expected.std(0).max() > 1e-2
    names, found = run_onnx(whole.folder, TEXTS)
    assert names == ["input_ids", "attention_mask"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert "no Normalize module" in whole.notes[0] and "find: " in whole.notes[1]
    content = read_provenance(whole.folder)
    assert content["onnx"]["prompts"]["query"] == "find: " and content["base"] == str(folder)
    assert "library_name: onnx" in (whole.folder / "README.md").read_text()


def test_the_snippet_of_the_card_runs(stock, whole, monkeypatch):
    monkeypatch.chdir(whole.folder.parent)
    (block,) = code_blocks((whole.folder / "README.md").read_text(), frozenset({"python"}))
    names = {}
    exec(block.replace('"model.onnx"', '"o/model.onnx"'), names)
    np.testing.assert_allclose(names["vectors"], stock[0].encode(["usb c dock"]), rtol=1e-4, atol=1e-5)


def test_the_page_runs_as_printed(stock, whole, monkeypatch, tmp_path, repository):
    (tmp_path / "onnx").symlink_to(whole.folder)
    monkeypatch.chdir(tmp_path)
    page = (repository / "docs" / "how-to" / "export.md").read_text(encoding="utf-8")
    (block,) = code_blocks(page, frozenset({"python"}))
    names = {}
    exec(block, names)
    np.testing.assert_allclose(names["vectors"], stock[0].encode(["usb c dock"]), rtol=1e-4, atol=1e-5)


def test_t5_is_exported_with_plain_attention(static, tmp_path):
    """torch cannot export its fused one; the model keeps it."""
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    from sentence_transformers import SentenceTransformer
    from tiny_bert import fast_tokenizer, module
    from tokenizers import Tokenizer
    from transformers import T5Config, T5EncoderModel

    tokenizer = static[0].tokenizer  # of `tokenizers`
    tokenizer = fast_tokenizer(Tokenizer.from_str(tokenizer.to_str()), model_max_length=48)
    sizes = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    T5EncoderModel(T5Config(vocab_size=len(tokenizer), **sizes)).save_pretrained(tmp_path / "t5")
    tokenizer.save_pretrained(tmp_path / "t5")
    modules = [module("Transformer")(str(tmp_path / "t5"), max_seq_length=24), module("Pooling")(32, "mean")]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(tmp_path / "m"))
    assert export_model(tmp_path / "m", "onnx", tmp_path / "o").parity.min_cosine > 0.9999
    made = load_matcher(tmp_path / "m", "cpu")
    np.testing.assert_allclose(run_onnx(tmp_path / "o", TEXTS)[1], made.encode(TEXTS), rtol=1e-3, atol=1e-5)


def test_onnx_of_a_static_encoder(static, tmp_path):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    static.save_pretrained(str(tmp_path / "s"))
    export_model(tmp_path / "s", "onnx", tmp_path / "o")
    texts = [*TEXTS, ""]
    names, found = run_onnx(tmp_path / "o", texts)
    assert names == ["input_ids", "attention_mask"] and not found[-1].any()
    np.testing.assert_allclose(found, static.encode(texts), atol=1e-6)
    check_target(tmp_path / "o", overwrite=True)  # a folder of ours, although it has no config.json


def test_onnx_in_8_bits_by_the_command(stock, whole, tmp_path):
    from typer.testing import CliRunner

    from leanmatch.cli.app import app

    made, folder = stock
    line = ["export", str(folder), "--to", "onnx", "--int8", "-o", str(tmp_path / "o"), "--json"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    saved = json.loads(result.stdout)
    _, found = run_onnx(tmp_path / "o", TEXTS)
    assert cosines(found, made.encode(TEXTS)).min() > 0.95
    assert 0.95 <= saved["min_cosine"] < whole.parity.min_cosine and saved["bytes"] < whole.bytes
    assert read_provenance(tmp_path / "o")["onnx"]["precision"] == "int8"
    assert sorted(path.name for path in (tmp_path / "o").glob("*.onnx")) == ["model.onnx"]


def cosines(one, two):
    return (one * two).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)


@pytest.mark.parametrize("int8", [False, True])
def test_openvino(stock, model, artifact, tmp_path, int8):
    openvino = pytest.importorskip("openvino", reason="the openvino extra is not installed")
    if int8:
        pytest.importorskip("nncf", reason="the openvino extra is not installed")
    from transformers import AutoTokenizer

    made, folder = (model, artifact) if int8 else stock
    target = tmp_path / "v"
    export_model(folder, "openvino", target, int8=int8, sample=TEXTS)
    names = {path.name for path in target.glob("*openvino*")}
    assert names == {"openvino_model.xml", "openvino_model.bin"} and not list(target.glob("*.onnx"))
    compiled = openvino.Core().compile_model(str(target / "openvino_model.xml"), "CPU")
    inputs = [entry.any_name for entry in compiled.inputs]
    assert inputs == ["input_ids", "attention_mask"]
    assert compiled.outputs[0].any_name == "sentence_embedding"
    tokenizer = AutoTokenizer.from_pretrained(target)
    tokens = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="np")
    found = compiled({name: tokens[name] for name in inputs})["sentence_embedding"]
    assert cosines(found, made.encode(TEXTS)).min() > (0.95 if int8 else 0.999)
    assert read_provenance(target)["openvino"]["precision"] == ("int8" if int8 else "float32")


def test_onnx_of_a_classifier(classifier, tmp_path):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    saved = export_model(classifier, "onnx", tmp_path / "o")
    assert saved.parity.min_cosine > 0.9999 and saved.notes == ()
    assert read_provenance(tmp_path / "o")["onnx"]["outputs"] == ["output_0"]


@pytest.mark.parametrize(("name", "int8"), [("stock", False), ("stock", True), ("classifier", False)])
def test_a_graph_that_differs_is_refused(stock, classifier, name, int8):
    source = open_source(stock[1] if name == "stock" else classifier)

    def same(features):
        return outputs_of(source, TEXTS[: len(features["input_ids"])])

    def other(features):
        return [value + 9 * np.arange(value.shape[-1]) for value in same(features)]

    assert compare_graph(source, same, TEXTS, int8=int8).min_cosine > 0.9999
    with pytest.raises(FormatError, match="the graph gives other outputs") as caught:
        compare_graph(source, other, TEXTS, int8=int8)
    assert ("without int8" in caught.value.remedy) == int8


def test_a_model_that_torch_cannot_export_is_told(stock, tmp_path, monkeypatch, really_write_onnx):
    pytest.importorskip("onnxruntime", reason="the export extra is not installed")
    monkeypatch.setattr(onnxfile, "write_onnx", really_write_onnx)

    def fail(*_, **__):
        raise RuntimeError("no such operator\nmore")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(FormatError, match=r"cannot export .* to ONNX: RuntimeError: no such operator"):
        export_model(stock[1], "onnx", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_openvino_names_its_extra(stock, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match=r"leanmatch\[openvino\]"):
        export_model(stock[1], "openvino", tmp_path / "o")
    assert os.listdir(tmp_path) == []


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


def test_mistakes(artifact, classifier, stock, tmp_path):
    with pytest.raises(UsageError, match="one of sentence-transformers, transformers, onnx, openvino"):
        export_model(artifact, "tensorflow", tmp_path / "x")
    with pytest.raises(UsageError, match="which sentence-transformers does not read"):
        export_model(classifier, "sentence-transformers", tmp_path / "x")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "thesis.tex").write_text("years of work")
    with pytest.raises(LeanmatchError, match="exists already"):
        export_model(artifact, "transformers", tmp_path / "x")
    with pytest.raises(ModelError, match="no model folder"):
        export_model(tmp_path / "x", "transformers", tmp_path / "y")
    with pytest.raises(UsageError, match="int8 with the export 'transformers'"):
        export_model(artifact, "transformers", tmp_path / "y", int8=True)
    with pytest.raises(UsageError, match="is not compressed"):
        export_model(stock[1], "sentence-transformers", tmp_path / "y")
    assert load_matcher(artifact, device="cpu") is not None
