"""Weights of 2 and 3 bits: to disk and back to the bit, and as the native runtime reads them."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch

from leanmatch.cli.inspect.command import form_words
from leanmatch.compression import CompressionSpec, RoundingSpec, Rule, compressed_layers, factorize, finalize
from leanmatch.errors import FormatError
from leanmatch.factorization import IntMatrix, LowRank
from leanmatch.formats import save_compressed
from leanmatch.formats.artifact.bit_packing import odd, pack, pack_odd, packed_size, signed, unpack
from leanmatch.formats.artifact.fields import Fields, Tensors
from leanmatch.formats.artifact.forms import decode, encode, has_odd_codes
from leanmatch.formats.artifact.loader import load_compressed
from leanmatch.formats.artifact.reader import read_artifact
from leanmatch.runtime import load

TEXTS = ["usb dock", "red camera lens", "", "how do i mount a drive"]
SPEC = CompressionSpec(
    (
        Rule("*layer.0.attention.self.query", RoundingSpec(bits=3)),
        Rule("*layer.0.attention.self.key", RoundingSpec(bits=2, group=8)),
        Rule("*layer.1.*.dense", RoundingSpec(bits=3, group=16)),
        Rule("*word_embeddings", RoundingSpec(bits=2)),
        Rule("*position_embeddings", RoundingSpec(bits=3)),
    )
)


@pytest.mark.parametrize("bits", [3, 2])
@pytest.mark.parametrize("count", [1, 3, 8, 9, 1001])
def test_every_pattern_of_bits_is_an_odd_code(bits, count):
    most = 2**bits - 1
    codes = np.random.default_rng(count).choice(np.arange(-most, most + 1, 2), count).astype(np.int8)
    packed = pack_odd(codes, bits)
    assert packed.size == packed_size(count, bits)
    assert packed.tolist() == pack(((codes.astype(int) - 1) // 2).astype(np.int8), bits).tolist()
    assert odd(signed(unpack(packed, count, bits), bits)).tolist() == codes.tolist()
    every = odd(signed(np.arange(2**bits, dtype=np.uint16), bits))
    assert sorted(every.tolist()) == list(range(-most, most + 1, 2))


@pytest.mark.parametrize(("bits", "group"), [(3, 7), (3, 1), (2, 7), (2, 1)])
def test_a_matrix_goes_there_and_back(bits, group):
    rng = np.random.default_rng(0)
    most = 2**bits - 1
    q = rng.choice(np.arange(-most, most + 1, 2), (5, 7)).astype(np.int8)
    scale = (rng.random((5, 7 // group)) + 1).astype(np.float16).astype(np.float32)
    factors = IntMatrix(q, scale, bits)
    fields, tensors = encode(factors)
    assert fields["bits"] == bits and tensors["q"].size == packed_size(35, bits)
    names = Tensors({f"x/{name}": array for name, array in tensors.items()})
    found = decode(Fields("x", fields), names, "x/{}".format)
    assert np.array_equal(found.q, q) and np.array_equal(found.scale, scale) and found.bits == bits
    for wrong in (5, 1, 3.0, "2"):
        with pytest.raises(FormatError, match="bits must be one of 8, 4, 3, 2"):
            decode(Fields("x", {**fields, "bits": wrong}), names, "x/{}".format)


@pytest.fixture(scope="module")
def model(build_bert, tmp_path_factory):
    made = build_bert(tmp_path_factory.mktemp("bert"))
    with torch.no_grad():
        made[0].auto_model.embeddings.word_embeddings.weight[0] = 0  # padding, as many models have it
        for name, value in made.named_parameters():
            if value.ndim == 2 and "embeddings" not in name:
                value.mul_(8.0)
    factorize(made, SPEC)
    return made


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    place = tmp_path_factory.mktemp("few") / "m"
    return save_compressed(finalize(copy.deepcopy(model)), place, {"base": "tiny"}, spec=SPEC).folder


def test_training_sees_what_a_reloaded_model_has(model, folder):
    trained = compressed_layers(model[0].auto_model)
    stored = read_artifact(folder).layers
    reloaded = compressed_layers(load_compressed(folder, "cpu")[0].auto_model)
    assert len(trained) == len(stored) == 7
    for name, layer in trained.items():
        seen = layer.factors.weight().detach().numpy()
        assert np.abs(seen).max() > 0.01
        assert np.array_equal(stored[name].factors.dense(), seen), name
        assert np.array_equal(reloaded[name].weight.numpy(), seen), name
    words = stored["embeddings.word_embeddings"]
    rows, width = words.factors.shape
    assert words.report["bytes"] == packed_size(rows * width, 2) + 2 * rows, "scales of 16 bits"
    assert 0 < np.abs(words.factors.dense()[0]).max() < 1e-7


def test_the_runtime_reads_them(folder):
    expected = load_compressed(folder, "cpu").encode(TEXTS)
    assert np.abs(expected[0] - expected[1]).max() > 0.05
    found = load(folder, runtime="native", precision="float32").encode(TEXTS)
    np.testing.assert_allclose(found[[0, 1, 3]], expected[[0, 1, 3]], atol=1e-4)
    rounded = load(folder, runtime="native").encode(TEXTS)
    assert (rounded * found).sum(axis=1)[[0, 1, 3]].min() > 0.99


def test_their_names(folder):
    words = {name: form_words(layer.factors) for name, layer in read_artifact(folder).layers.items()}
    assert words["embeddings.word_embeddings"] == "int2"
    assert words["encoder.layer.0.attention.self.query"] == "int3"
    assert words["encoder.layer.0.attention.self.key"] == "int2, groups of 8"
    section = json.loads((folder / "leanmatch.json").read_text())["artifact"]
    assert CompressionSpec.from_json(section["spec"]) == SPEC
    assert section["version"] == 3, "readers that know no odd codes ask for an update"


@pytest.mark.parametrize("bits", [(3, 8), (8, 2)])
def test_low_rank_parts_may_have_them(bits):
    left, right = (
        IntMatrix(np.ones(shape, np.int8), np.ones((shape[0], 1), np.float32), width)
        for shape, width in zip(((5, 3), (3, 7)), bits, strict=True)
    )
    fields, tensors = encode(LowRank(left, right))
    assert has_odd_codes(fields) and not has_odd_codes(encode(LowRank(left.dense(), right.dense()))[0])
    names = Tensors({f"x/{name}": array for name, array in tensors.items()})
    found = decode(Fields("x", fields), names, "x/{}".format)
    assert np.array_equal(found.dense(), left.dense() @ right.dense())
