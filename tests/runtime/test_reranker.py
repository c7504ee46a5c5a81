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


@pytest.mark.parametrize("runtime", ["native", "torch"])
def test_predict_and_rank_are_those_of_a_cross_encoder(tmp_path, tokenizer, runtime):
    import torch

    folder, theirs = saved_reranker(tmp_path, tokenizer)
    ours = load_reranker(folder, precision="float32", runtime=runtime)
    expected = theirs.predict(PAIRS)
    assert np.ptp(expected) > 0.003
    found = ours.predict(PAIRS, batch_size=3)
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5)
    one = ours.predict(list(PAIRS[0]))
    assert one.shape == theirs.predict(PAIRS[0]).shape == () and abs(one - expected[0]) < 2e-5
    for identity in (torch.nn.Identity(), torch.tanh):
        logits = theirs.predict(PAIRS, activation_fn=identity)
        assert np.abs(logits - expected).max() > 0.1
        np.testing.assert_allclose(ours.predict(PAIRS, activation_fn=identity), logits, atol=1e-4)
    tensor = ours.predict(PAIRS, convert_to_tensor=True)
    assert torch.equal(tensor, torch.stack(ours.predict(PAIRS, convert_to_numpy=False)))
    np.testing.assert_allclose(tensor.numpy(), expected, atol=2e-5)
    assert ours.predict([]).shape == (0,) and ours.rank("usb", []) == []
    documents = ["dock hub", "camera camera", "hdmi cable", "red type station"]
    wanted = theirs.rank("usb c", documents, top_k=3, return_documents=True)
    got = ours.rank("usb c", documents, top_k=3, return_documents=True, batch_size=2)
    assert [(row["corpus_id"], row["text"]) for row in got] == [
        (row["corpus_id"], row["text"]) for row in wanted
    ]
    np.testing.assert_allclose([row["score"] for row in got], [row["score"] for row in wanted], atol=2e-5)
    assert set(ours.rank("usb c", documents)[0]) == {"corpus_id", "score"}


def test_evaluators_of_sentence_transformers_take_a_reranker(tmp_path, tokenizer):
    from sentence_transformers.cross_encoder.evaluation import (
        CrossEncoderCorrelationEvaluator,
        CrossEncoderRerankingEvaluator,
    )

    folder, theirs = saved_reranker(tmp_path, tokenizer)
    ours = load_reranker(folder, precision="float32")
    assert isinstance(ours, NativeReranker)
    samples = [
        {"query": query, "positive": [WORDS[row], WORDS[row + 1]], "negative": WORDS[row + 2 : row + 6]}
        for row, query in enumerate(["usb c", "red camera", "hdmi", "dock station"])
    ]
    ranking = CrossEncoderRerankingEvaluator(samples, name="made-up")
    expected, found = ranking(theirs), ranking(ours)
    assert 0 < expected["made-up_mrr@10"] < 1 and found == pytest.approx(expected, abs=1e-6)
    assert ours.model_card_data.evaluations[0]["metrics"] == found
    related = CrossEncoderCorrelationEvaluator(PAIRS[:5], [0.1, 0.9, 0.2, 0.8, 0.4])
    assert related(ours) == pytest.approx(related(theirs), abs=1e-4)


def test_what_predict_refuses(tmp_path, tokenizer):
    ours = load_reranker(saved_reranker(tmp_path, tokenizer)[0])
    with pytest.raises(UsageError, match=r"no prompt before a pair; 'search: '"):
        ours.predict(PAIRS, prompt="search: ")
    with pytest.raises(UsageError, match="batch_size is 0"):
        ours.predict(PAIRS, batch_size=0)
    with pytest.raises(UsageError, match="top_k is 0"):
        ours.rank("usb", ["c"], top_k=0)
    for wrong in (["usb"], [("usb", "c"), ("usb",)], [("usb", "c"), ("usb", 3)], [("usb", "c"), None]):
        with pytest.raises(DataError, match=r"row [12]: an input is no pair of texts \(found"):
            ours.predict(wrong)


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
