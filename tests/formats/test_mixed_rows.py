"""Tables whose rows differ in bits: from counted tokens to disk, back to the bit, and in the runtime."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from leanmatch.cli.inspect.command import form_words
from leanmatch.compression import (
    CompressionSpec,
    MixedRoundingSpec,
    Rule,
    compressed_layers,
    factorize,
    finalize,
)
from leanmatch.compression.calibration import count_tokens
from leanmatch.errors import DataError, FormatError, UsageError
from leanmatch.factorization import MixedIntMatrix
from leanmatch.factorization.mixed import bits_of_rows
from leanmatch.formats import save_compressed
from leanmatch.formats.artifact.fields import Fields, Tensors
from leanmatch.formats.artifact.forms import decode, encode
from leanmatch.formats.artifact.loader import load_compressed
from leanmatch.formats.artifact.reader import read_artifact
from leanmatch.runtime import load

TEXTS = ["usb dock", "red camera lens", "", "how do i mount a drive"]
SPEC = CompressionSpec((Rule("*word_embeddings", MixedRoundingSpec(average_bits=2.6)),))
TABLE = "embeddings.word_embeddings"


def dense_model(build_bert, folder):
    made = build_bert(folder)
    with torch.no_grad():
        made[0].auto_model.embeddings.word_embeddings.weight[0] = 0  # padding, as many models have it
    return made


@pytest.fixture(scope="module")
def dense(build_bert, tmp_path_factory):
    return dense_model(build_bert, tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def model(dense):
    made = copy.deepcopy(dense)
    factorize(made, SPEC, calibration_texts=TEXTS)
    return made


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    trained = copy.deepcopy(model)
    with torch.no_grad():  # as training does: scales and bits stay
        table = trained[0].auto_model.embeddings.word_embeddings.factors
        table.full.add_(
            0.3 * torch.randn(table.shape, generator=torch.Generator().manual_seed(0)) * table.full.std()
        )
    seen = table.weight().detach().numpy()
    place = tmp_path_factory.mktemp("mixed") / "m"
    save_compressed(finalize(trained), place, {"base": "tiny"}, spec=SPEC)
    return place, seen


def test_tokens_are_counted_as_the_model_reads_them(dense):
    counts = count_tokens(dense, [*TEXTS, "usb usb"])
    vocabulary = dense.tokenizer.get_vocab()
    assert (
        counts[vocabulary["usb"]] == 3
        and counts[vocabulary["[CLS]"]] == 5
        and counts[vocabulary["[PAD]"]] == 0
    )
    assert counts.sum() == sum(len(dense.tokenizer(text)["input_ids"]) for text in [*TEXTS, "usb usb"])
    assert count_tokens(torch.nn.Linear(2, 2), []) is None


def test_rows_that_the_texts_read_get_more_bits(dense, model):
    table = compressed_layers(model[0].auto_model)[TABLE]
    counts = count_tokens(dense, TEXTS)
    bits = table.to_factors().row_bits
    np.testing.assert_array_equal(bits, bits_of_rows(counts, 2.6))
    assert bits[counts > 0].min() >= bits[counts == 0].max()
    assert bits[counts > 0].mean() > bits[counts == 0].mean() + 0.5
    given, plain = copy.deepcopy(dense), copy.deepcopy(dense)
    other = np.arange(len(counts))
    factorize(given, SPEC, calibration_texts=TEXTS, token_counts=other)
    found = compressed_layers(given[0].auto_model)[TABLE].to_factors().row_bits
    np.testing.assert_array_equal(found, bits_of_rows(other, 2.6))
    factorize(plain, SPEC)
    found = compressed_layers(plain[0].auto_model)[TABLE].to_factors().row_bits
    np.testing.assert_array_equal(found, bits_of_rows(0 * other, 2.6))
    with pytest.raises(UsageError, match="token_counts has 3 entries"):
        factorize(copy.deepcopy(dense), SPEC, token_counts=other[:3])


def test_the_reported_error_is_that_of_what_is_read(dense):
    found = factorize(copy.deepcopy(dense), SPEC, calibration_texts=TEXTS)
    (report,) = found.layers
    assert 0 < report.output_error < report.error
    made = copy.deepcopy(dense)
    alone = factorize(made, SPEC).layers[0]
    assert alone.output_error is None and alone.error < report.error


def test_training_sees_what_a_reloaded_model_has(model, folder):
    place, seen = folder
    stored = read_artifact(place).layers[TABLE]
    assert isinstance(stored.factors, MixedIntMatrix)
    np.testing.assert_array_equal(stored.factors.dense(), seen)
    reloaded = compressed_layers(load_compressed(place, "cpu")[0].auto_model)[TABLE]
    assert np.array_equal(reloaded.weight.numpy(), seen) and reloaded.finalized
    wanted = torch.tensor([5, 0, 5, 3])
    assert np.array_equal(reloaded(wanted).numpy(), seen[wanted.numpy()])
    bits = int(stored.factors.row_bits.sum())
    rows, width = stored.factors.shape
    assert 8 * stored.report["bytes"] == pytest.approx(width * bits + 18 * rows, abs=4 * 8)
    assert form_words(stored.factors) == f"int2 to int6, {bits / rows:.2f} bits on average"
    spec = json.loads((place / "leanmatch.json").read_text())["artifact"]["spec"]
    assert CompressionSpec.from_json(spec) == SPEC
    cost = SPEC.rules[0].layer.cost(rows, width)
    assert 0 <= cost.bits - (width * bits + 18 * rows) <= width, (
        "what the planner counts, but for one bit a row"
    )


def test_gradients_reach_the_rows_that_were_read(model):
    table = copy.deepcopy(compressed_layers(model[0].auto_model)[TABLE])
    table(torch.tensor([[4, 7], [4, 4]])).sum().backward()
    gradient = table.factors.full.grad
    assert (
        gradient[4].tolist() == [3.0] * gradient.shape[1]
        and gradient[7].tolist() == [1.0] * gradient.shape[1]
    )
    assert not gradient[[0, 1, 5]].any()


def test_the_runtime_reads_them(folder):
    place, _ = folder
    expected = load_compressed(place, "cpu").encode(TEXTS)
    found = load(place, runtime="native", precision="float32").encode(TEXTS)
    np.testing.assert_allclose(found[[0, 1, 3]], expected[[0, 1, 3]], atol=1e-4)


def stored(**changes):
    row_bits = np.array([6, 2, 3, 2, 4], np.uint8)
    q = np.array([[63, -63, 1], [-3, 3, 1], [7, -7, -1], [1, 1, -3], [15, -15, 5]], np.int8)
    fields, tensors = encode(MixedIntMatrix(q, np.ones(5, np.float32), row_bits))
    kept = {name: array for name, array in (tensors | changes).items() if array is not None}
    return Fields("x", fields), Tensors({f"x/{name}": array for name, array in kept.items()}), q, row_bits


def test_every_width_goes_there_and_back():
    fields, tensors, q, row_bits = stored()
    found = decode(fields, tensors, "x/{}".format)
    np.testing.assert_array_equal(found.q, q)
    np.testing.assert_array_equal(found.row_bits, row_bits)
    tensors.end()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q3": None}, "q3"),
        ({"q2": np.zeros(1, np.uint8)}, "q2"),
        ({"row_bits": np.zeros(2, np.uint8)}, "q2"),  # five rows of 2 bits
        ({"row_bits": np.zeros(3, np.uint8)}, "row_bits"),
        ({"row_bits": np.array([0, 255], np.uint8)}, "fill bits"),
        ({"q_scale": np.zeros(5, np.float16)}, "above 0"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    fields, tensors, _, _ = stored(**changes)
    with pytest.raises((FormatError, DataError), match=message):
        decode(fields, tensors, "x/{}".format)
