"""The encoder: order, duplicates, normalization, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.errors import DataError, ModelError, UsageError
from leanmatch.models import TorchEncoder

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def encoder(bert):
    return TorchEncoder.from_model(bert, name="tiny")


def test_rows_follow_the_texts(encoder):
    texts = ["how do i mount a drive on a red dock", "usb", "camera lens", "usb"]
    vectors = encoder.encode(texts, batch_size=2)
    assert vectors.dtype == np.float32 and vectors.shape == (4, encoder.dimension) and encoder.dimension == 32
    alone = np.concatenate([encoder.encode([text]) for text in texts])
    np.testing.assert_allclose(vectors, alone, atol=1e-5)
    np.testing.assert_array_equal(vectors[1], vectors[3])
    assert not np.allclose(vectors[0], vectors[1], atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(encoder(texts), encoder.encode(texts, normalize_embeddings=True))


def test_distinct_texts_are_encoded_once(bert, monkeypatch):
    seen = []
    real = bert.encode
    monkeypatch.setattr(bert, "encode", lambda texts, **options: seen.extend(texts) or real(texts, **options))
    TorchEncoder.from_model(bert, name="tiny").encode(["usb", "dock", "usb"] * 5)
    assert sorted(seen) == ["dock", "usb"]


def test_vectors_of_an_unnormalized_model_are_normalized(static):
    assert abs(np.linalg.norm(static.encode(["usb dock"])) - 1) > 0.1
    vectors = TorchEncoder.from_model(static, name="static")(["usb dock", ""])
    assert np.linalg.norm(vectors[0]) == pytest.approx(1)
    assert not vectors[1].any()


def test_empty_list(encoder):
    assert encoder.encode([]).shape == (0, 32) and encoder.encode([]).dtype == np.float32


def test_refusals(encoder):
    with pytest.raises(DataError, match="row 2: a text is a NoneType"):
        encoder.encode(["a", None])
    with pytest.raises(UsageError, match="batch_size is 0"):
        encoder.encode(["a"], batch_size=0)


def test_nan_weights_are_named(build_bert, tmp_path):
    model = build_bert(tmp_path)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="tiny gives NaN"):
        TorchEncoder.from_model(model, name="tiny").encode(["usb"])


def test_training_mode_is_put_back(build_bert, tmp_path):
    model = build_bert(tmp_path)
    model.train()
    encoder = TorchEncoder.from_model(model, name="tiny")
    np.testing.assert_array_equal(encoder(["usb dock"]), encoder(["usb dock"]))  # no dropout
    assert model.training and all(module.training for module in model.modules())


def test_the_bar_counts_texts_and_says_what_they_are_for(encoder, capsys):
    encoder.encode(["one", "two", "one"], batch_size=1, show_progress_bar=True)
    shown = capsys.readouterr().err
    assert "encoding" in shown and "2/2" in shown and "Batches" not in shown
    encoder.encode(["one"])
    assert not capsys.readouterr().err
