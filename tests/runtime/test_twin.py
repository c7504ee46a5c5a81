"""A model in memory on the native runtime: equal vectors of the moment's weights, or torch and a reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import training_models as models
from leanmatch.errors import ModelError
from leanmatch.models import RoleEncoder
from leanmatch.runtime import TwinEncoders, tokenization, twin
from leanmatch.runtime.tokenization import KnownTokenizer, TextTokenizer, read_tokenizer
from leanmatch.training.selection.evaluator import encode_function

TEXTS = ["bala cela", "dini fopo gula hame " * 9, "", "kini bala", "bala cela"]


@pytest.fixture(params=["transformer", "static"])
def model(request, tmp_path):
    return models.static_model() if request.param == "static" else models.transformer_model(tmp_path / "bert")


def test_vectors_are_those_of_the_weights_at_the_call(model):
    encoder_of = TwinEncoders(encode_function, pytest.fail)
    before = encode_function(model)(TEXTS)
    first = encoder_of(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    after = encode_function(model)(TEXTS)
    assert np.abs(after - before).max() > 1e-3, "the weights did move"
    np.testing.assert_allclose(first(TEXTS), before, atol=1e-5)
    np.testing.assert_allclose(encoder_of(model)(TEXTS), after, atol=1e-5)


def test_torch_takes_no_part_once_vectors_were_found_equal(model):
    calls = []

    def counted(one):
        encode = encode_function(one)
        return lambda texts: calls.append(len(texts)) or encode(texts)

    encoder_of = TwinEncoders(counted, pytest.fail)
    encoder_of(model)(TEXTS)
    encoder_of(model)(TEXTS)
    assert calls == [13, 1], "the texts that are compared, once"


def test_what_the_length_limit_of_training_cuts_is_cut(tmp_path):
    model = models.transformer_model(tmp_path / "bert")
    whole = encode_function(model)(TEXTS)
    model.max_seq_length = 6
    cut = encode_function(model)(TEXTS)
    assert np.abs(whole - cut).max() > 1e-3
    np.testing.assert_allclose(TwinEncoders(encode_function, pytest.fail)(model)(TEXTS), cut, atol=1e-5)


def nudged(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def test_each_list_of_texts_is_tokenized_once_for_all_weights(model, monkeypatch):
    """By role, and to the same bits as an encoder without a memory."""
    model.prompts = {"query": "kini: ", "document": ""}
    tokenized = []
    real = TextTokenizer.encodings

    def counted(self, texts, prompt=""):
        tokenized.extend(prompt + text for text in texts)
        return real(self, texts, prompt)

    monkeypatch.setattr(TextTokenizer, "encodings", counted)
    encoder_of = TwinEncoders(encode_function, pytest.fail)
    encoder_of(model)  # compares its vectors with torch's
    for turn in range(3):
        fresh = RoleEncoder(twin.native_twin(nudged(model), read_tokenizer))
        expected = fresh.encode_query(TEXTS), fresh.encode_document(TEXTS)
        encoder = encoder_of(model)
        tokenized.clear()
        np.testing.assert_array_equal(encoder.encode_query(TEXTS), expected[0])
        np.testing.assert_array_equal(encoder.encode_document(TEXTS), expected[1])
        assert np.abs(expected[0] - expected[1]).max() > 1e-3
        assert sorted(tokenized) == sorted([*{*TEXTS}, *{f"kini: {text}" for text in TEXTS}]) * (turn == 0)


def test_what_changes_beside_the_weights_is_tokenized_anew(tmp_path):
    bert = models.transformer_model(tmp_path / "bert")
    encoder_of = TwinEncoders(encode_function, pytest.fail)

    def check():
        expected = encode_function(bert)(TEXTS)
        np.testing.assert_allclose(encoder_of(bert)(TEXTS), expected, atol=1e-5)
        return expected

    whole = check()
    bert.max_seq_length = 6
    cut = check()
    vocabulary = bert.tokenizer.get_vocab()
    other = json.loads(bert.tokenizer.backend_tokenizer.to_str())
    other["model"]["vocab"]["bala"], other["model"]["vocab"]["cela"] = vocabulary["cela"], vocabulary["bala"]
    bert.tokenizer._tokenizer = Tokenizer.from_str(json.dumps(other))
    swapped = check()
    assert np.abs(whole - cut).max() > 1e-3 and np.abs(cut - swapped).max() > 1e-3


def test_the_memory_is_bounded(model, monkeypatch):
    monkeypatch.setattr(tokenization, "KEPT_BYTES", 600)
    tokenizer_of = KnownTokenizer()
    twin.native_twin(model, tokenizer_of)
    tokenizer = twin.native_twin(model, tokenizer_of)._tokenizer
    for number in range(50):
        texts = [f"bala {number}"] * (1 + number)
        ids, offsets = tokenizer.packed(texts)
        fresh = tokenization.pack([encoding.ids for encoding in tokenizer.encodings(texts)])
        np.testing.assert_array_equal(ids, fresh[0])
        np.testing.assert_array_equal(offsets, fresh[1])
        kept = list(tokenizer._kept.values())
        assert sum(array.nbytes for packed in kept for array in packed) <= 600
    assert tokenizer.packed(["bala"])[0] is tokenizer.packed(["bala"])[0]


def test_other_vectors_are_not_used(model, monkeypatch):
    real, said = twin.native_twin, []

    class Off:
        def __init__(self, encoder):
            self.encoder = encoder

        def __call__(self, texts):
            return self.encoder(texts) + 1e-3

    monkeypatch.setattr(twin, "native_twin", lambda *given: Off(real(*given)))
    encoder_of = TwinEncoders(encode_function, said.append)
    expected = encode_function(model)(TEXTS)
    for _ in range(2):
        np.testing.assert_array_equal(encoder_of(model)(TEXTS), expected)
    assert len(said) == 1 and "its vectors differ by up to 1.0e-03" in said[0]


def compressed_model(folder):
    from leanmatch.compression import DenseSparseSpec, RoundingSpec, default_spec, factorize, finalize

    made = models.transformer_model(folder).eval()
    factorize(
        made, default_spec(made, DenseSparseSpec(block=8, atoms=8, nonzeros=2), embeddings=RoundingSpec())
    )
    return finalize(made)


def test_a_compressed_model_runs_as_it_will_be_served(tmp_path):
    """As the folder that is saved of it, to the bit; torch, which rounds no inputs, is near."""
    from leanmatch.formats import save_compressed
    from leanmatch.runtime import load

    made = compressed_model(tmp_path / "bert")
    encoder_of = TwinEncoders(encode_function, pytest.fail)
    found = encoder_of(made)(TEXTS)
    save_compressed(made, tmp_path / "m", {})
    np.testing.assert_array_equal(found, load(tmp_path / "m", runtime="native")(TEXTS))
    torch_gives = encode_function(made)(TEXTS)
    cosines = (found * torch_gives).sum(axis=1)
    assert cosines.min() > 0.999 and np.abs(found - torch_gives).max() > 1e-4, "inputs are rounded"
    dense = models.transformer_model(tmp_path / "bert").eval()
    np.testing.assert_allclose(encoder_of(dense)(TEXTS), encode_function(dense)(TEXTS), atol=1e-5)


def test_compressed_vectors_of_another_model_are_not_used(tmp_path, monkeypatch):
    real, said = twin.native_twin, []
    rolled = lambda *given: lambda texts: np.roll(real(*given)(texts), 1, axis=1)  # noqa: E731
    monkeypatch.setattr(twin, "native_twin", rolled)
    made = compressed_model(tmp_path / "bert")
    encoder_of = TwinEncoders(encode_function, said.append)
    for _ in range(2):
        np.testing.assert_array_equal(encoder_of(made)(TEXTS), encode_function(made)(TEXTS))
    assert len(said) == 1 and "a compressed vector has the cosine" in said[0]


def test_what_the_runtime_cannot_run_goes_through_torch(model, monkeypatch):
    said = []

    def refuse(*given):
        raise ModelError("no code for it")

    monkeypatch.setattr(twin, "native_twin", refuse)
    encoder_of = TwinEncoders(encode_function, said.append)
    for _ in range(2):
        np.testing.assert_array_equal(encoder_of(model)(TEXTS), encode_function(model)(TEXTS))
    assert said == ["sentence-transformers encodes validation texts, not the native runtime: no code for it"]
