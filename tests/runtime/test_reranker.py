"""Cross-encoders on the native kernels against sentence-transformers' own, float32 and int8."""

import json
import shutil

import numpy as np
import pytest
from rerankers import pair_tokenizer, saved_reranker

pytest.importorskip("sentence_transformers", reason="the train extra is not installed")

from leanmatch.errors import DataError, ModelError, UsageError
from leanmatch.models import TorchReranker
from leanmatch.runtime import NativeReranker, load_reranker
from leanmatch.runtime.architectures import UnsupportedError

WORDS = ["usb", "c", "dock", "docking", "station", "type", "hdmi", "hub", "cable", "red", "blue", "camera"]
PAIRS = [
    ("usb c", "dock hub"),
    ("dock hub", "usb c"),
    ("red", "camera camera"),
    ("usb " * 30, "hdmi cable"),
    ("usb", "hdmi cable " * 30),
    ("", ""),
    ("🎉", "unknown words"),
    ("usb c", "dock hub"),
]


@pytest.fixture(scope="module")
def tokenizer():
    return pair_tokenizer(WORDS)


@pytest.mark.parametrize("kind", ["Bert", "Electra", "Roberta", "DistilBert"])
def test_scores_are_those_of_sentence_transformers(tmp_path, tokenizer, kind):
    folder, theirs = saved_reranker(tmp_path, tokenizer, kind)
    expected = np.asarray(theirs.predict(PAIRS, show_progress_bar=False), np.float64)
    assert np.ptp(expected) > 0.003
    ours = load_reranker(folder, precision="float32", runtime="native")
    assert isinstance(ours, NativeReranker) and ours.max_tokens == 24
    np.testing.assert_allclose(ours.scores(PAIRS), expected, atol=2e-5)
    if kind in {"Bert", "Electra"}:
        assert abs(expected[0] - expected[1]) > 1e-4  # the order of the texts, and so the types, matter
    torch_scores = load_reranker(folder, runtime="torch").scores(PAIRS)
    np.testing.assert_allclose(torch_scores, expected, atol=1e-6)


def test_token_types_reach_the_score(tmp_path, tokenizer):
    from safetensors.numpy import load_file, save_file

    folder, _ = saved_reranker(tmp_path, tokenizer)
    before = load_reranker(folder, precision="float32").scores(PAIRS)
    tensors = load_file(folder / "model.safetensors")
    name = "bert.embeddings.token_type_embeddings.weight"
    tensors[name][1] = tensors[name][0]
    save_file(tensors, folder / "model.safetensors")
    assert np.abs(load_reranker(folder, precision="float32").scores(PAIRS) - before).max() > 1e-3


def test_without_token_types_where_the_tokenizer_gives_none(tmp_path, tokenizer):
    from sentence_transformers import CrossEncoder

    folder, _ = saved_reranker(tmp_path, tokenizer)
    file = folder / "tokenizer_config.json"
    options = json.loads(file.read_text())
    before = load_reranker(folder, precision="float32").scores(PAIRS)
    file.write_text(json.dumps({**options, "model_input_names": ["input_ids", "attention_mask"]}))
    theirs = CrossEncoder(str(folder), device="cpu").predict(PAIRS, show_progress_bar=False)
    ours = load_reranker(folder, precision="float32", runtime="native").scores(PAIRS)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert np.abs(ours - before).max() > 1e-3


def test_logits_where_the_model_says_so(tmp_path, tokenizer):
    import torch

    folder, theirs = saved_reranker(tmp_path, tokenizer, activation=torch.nn.Identity())
    expected = theirs.predict(PAIRS, show_progress_bar=False)
    scores = load_reranker(folder, precision="float32", runtime="native").scores(PAIRS)
    np.testing.assert_allclose(scores, expected, atol=1e-4)


def test_int8_is_near(tmp_path, tokenizer):
    folder, theirs = saved_reranker(tmp_path, tokenizer)
    expected = np.asarray(theirs.predict(PAIRS, show_progress_bar=False), np.float64)
    ours = load_reranker(folder)
    assert ours.precision == "int8"
    assert np.abs(ours.scores(PAIRS) - expected).max() < 0.15 * np.ptp(expected) + 0.01


def test_no_pairs(tmp_path, tokenizer):
    folder, _ = saved_reranker(tmp_path, tokenizer)
    assert load_reranker(folder).scores([]).shape == (0,)
    assert load_reranker(folder, runtime="torch").scores([]).shape == (0,)


def test_what_the_runtime_lacks_goes_to_sentence_transformers(tmp_path, tokenizer):
    import torch

    folder, theirs = saved_reranker(tmp_path, tokenizer, activation=torch.nn.Tanh())
    with pytest.raises(UnsupportedError, match="Tanh"):
        load_reranker(folder, runtime="native")
    ours = load_reranker(folder)
    assert isinstance(ours, TorchReranker)
    np.testing.assert_allclose(ours.scores(PAIRS), theirs.predict(PAIRS, show_progress_bar=False), atol=1e-6)


def test_errors(tmp_path, tokenizer):
    folder, _ = saved_reranker(tmp_path / "good", tokenizer)
    two, _ = saved_reranker(tmp_path / "two", tokenizer, labels=2)
    for runtime in ("native", "torch"):
        with pytest.raises(ModelError, match="2 scores"):
            load_reranker(two, runtime=runtime)
        with pytest.raises(ModelError):
            load_reranker(tmp_path / "nowhere", runtime=runtime)
    with pytest.raises(UsageError, match="runtime"):
        load_reranker(folder, runtime="onnx")
    with pytest.raises(DataError, match="surrogate"):
        load_reranker(folder).scores([("a\ud800", "b")])
    damaged = tmp_path / "damaged"
    shutil.copytree(folder, damaged)
    from safetensors.numpy import load_file, save_file

    tensors = load_file(damaged / "model.safetensors")
    tensors["classifier.bias"][:] = np.nan
    save_file(tensors, damaged / "model.safetensors")
    with pytest.raises(ModelError, match="NaN"):
        load_reranker(damaged)
    del tensors["bert.pooler.dense.weight"]
    tensors["classifier.bias"][:] = 0
    save_file(tensors, damaged / "model.safetensors")
    with pytest.raises(ModelError, match=r"lacks bert\.pooler\.dense\.weight"):
        load_reranker(damaged, runtime="native")
    config = json.loads((folder / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**config, "model_type": "funnel"}))
    with pytest.raises(UnsupportedError, match="funnel"):
        load_reranker(damaged, runtime="native")
