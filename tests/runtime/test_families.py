"""Encoders with rotary positions, gates, windows, biases by distance, norms in front: against transformers.

``test_encoder.py`` runs each with mean pooling; here are their options, odd sizes, long texts, and the
layouts of their checkpoints.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
from runtime_models import TEXTS, WORDS, build

from leanmatch.errors import ModelError
from leanmatch.models.architectures import ARCHITECTURES
from leanmatch.runtime import load
from leanmatch.runtime.architectures import UnsupportedError, read_sizes, relative_bias, rotary_positions
from leanmatch.runtime.kernels.choice import ROUNDED

NEW = ("modernbert", "gte", "nomic_bert", "jina_embeddings_v3", "eurobert", "t5", "mt5")
ROTARY = tuple(kind for kind in NEW if ARCHITECTURES[kind].theta is not None)
EVERY_POOLING = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
LONG = [*TEXTS[:8], " ".join(WORDS[i * i % len(WORDS)] for i in range(190)), " ".join(WORDS * 5)]


def difference(folder: Path, model, texts, **options) -> float:
    """Largest difference of a number of unit vectors between the native runtime and sentence-transformers."""
    found = load(folder / "model", runtime="native", **options)(texts)
    wanted = model.encode(texts, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False)
    assert np.linalg.norm(wanted - wanted[0], axis=1).max() > 0.1, "all texts alike prove nothing"
    return float(np.abs(found - wanted).max())


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("kind", NEW)
def test_every_pooling_and_both_padding_sides(tmp_path, kind: str, side: str) -> None:
    model = build(tmp_path, kind, pooling=EVERY_POOLING, side=side)
    assert model.tokenizer.padding_side == side
    assert difference(tmp_path, model, TEXTS) < 1e-5


def test_a_table_of_positions_does_not_go_with_padding_on_the_left(tmp_path) -> None:
    build(tmp_path, "bert", side="left")
    with pytest.raises(UnsupportedError, match="padding on the left, which moves token positions"):
        load(tmp_path / "model", runtime="native")


@pytest.mark.parametrize("kind", NEW)
def test_every_level(tiny, level: str, kind: str) -> None:
    folder, model = tiny(kind, tokens=200, length=200, **_room(kind))
    assert difference(folder.parent, model, LONG[-2:]) < 1e-5


def _room(kind: str) -> dict[str, int]:
    return {} if kind.endswith("t5") else {"max_position_embeddings": 200}


@pytest.mark.parametrize("width", [2, 6, 10, 12, 36, 66])
@pytest.mark.parametrize("kind", ["modernbert", "eurobert", "t5"])
def test_heads_of_any_width(tmp_path, kind: str, width: int) -> None:
    sizes = {"d_kv": width} if kind == "t5" else {"head_dim": width}
    if kind == "modernbert":
        sizes = {"hidden_size": 3 * width, "intermediate_size": 3 * width + 1}
    assert difference(tmp_path, build(tmp_path, kind, **sizes), TEXTS) < 1e-5


@pytest.mark.parametrize("key_heads", [1, 2, 4])
def test_heads_that_share_keys_and_values(tmp_path, key_heads: int) -> None:
    options = {"num_attention_heads": 4, "num_key_value_heads": key_heads, "head_dim": 8}
    assert difference(tmp_path, build(tmp_path, "eurobert", **options), TEXTS) < 1e-5


@pytest.mark.parametrize("window", [2, 3, 16, 30, 64, 500])
def test_windows_shorter_and_longer_than_the_text(tmp_path, window: int) -> None:
    model = build(tmp_path, "modernbert", tokens=200, length=200, local_attention=window, **_room("gte"))
    assert difference(tmp_path, model, LONG) < 1e-5
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    near = load(tmp_path / "model", runtime="native")(LONG[-2:])
    config["local_attention"] = 1000
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    far = load(tmp_path / "model", runtime="native")(LONG[-2:])
    assert (np.abs(near - far).max() > 1e-3) == (window < 200), "what lies outside the window must not count"


def test_modernbert_in_the_words_of_earlier_versions(tmp_path) -> None:
    model = build(tmp_path, "modernbert", num_hidden_layers=5, local_attention=10)
    file = tmp_path / "model" / "config.json"
    config = json.loads(file.read_text())
    for key in ("layer_types", "rope_parameters"):
        config.pop(key)
    file.write_text(json.dumps(config))
    assert difference(tmp_path, model, TEXTS) < 1e-5, "the defaults are those of transformers"
    old = {"global_attn_every_n_layers": 2, "global_rope_theta": 500.0, "local_rope_theta": 30.0}
    file.write_text(json.dumps(config | old))
    _, sizes = read_sizes(config | old)
    assert sizes.windows == (None, 5, None, 5, None) and sizes.thetas == (500.0, 30.0, 500.0, 30.0, 500.0)
    from sentence_transformers import SentenceTransformer

    other = SentenceTransformer(str(tmp_path / "model"), device="cpu")
    assert difference(tmp_path, other, TEXTS) < 1e-5


@pytest.mark.parametrize("form", ["relu", "gated-gelu", "gated-silu", "gelu"])
@pytest.mark.parametrize("tokens", [20, None])
def test_t5_with_and_without_gates(tmp_path, form: str, tokens: int | None) -> None:
    model = build(
        tmp_path, "t5", feed_forward_proj=form, tokens=tokens, length=400, relative_attention_max_distance=40
    )
    assert difference(tmp_path, model, [*TEXTS, " ".join(WORDS * 14)]) < 1e-5


def test_sentence_t5(tmp_path) -> None:
    """Mean, a Dense layer without bias or activation, and the norm: as Google's models have it."""
    import torch
    from tiny_bert import module

    dense = module("Dense")(48, 24, bias=False, activation_function=torch.nn.Identity())
    heads = (dense, module("Normalize")())
    assert difference(tmp_path, build(tmp_path, "t5", heads=heads, feed_forward_proj="relu"), TEXTS) < 1e-5


def test_t5_whose_table_has_its_other_name(tmp_path) -> None:
    from safetensors.numpy import load_file, save_file

    build(tmp_path, "t5")
    wanted = load(tmp_path / "model", runtime="native")(TEXTS)
    file = str(tmp_path / "model" / "model.safetensors")
    tensors = load_file(file)
    tensors["encoder.embed_tokens.weight"] = tensors.pop("shared.weight")
    save_file(tensors, file)
    for precision in ("stored", "int8"):
        found = load(tmp_path / "model", runtime="native", precision=precision)(TEXTS)
        assert np.abs(found - wanted).max() < (1e-7 if precision == "stored" else 0.1)


@pytest.mark.parametrize("kind", ["gte", "nomic_bert", "jina_embeddings_v3"])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_checkpoints_with_the_names_of_the_modules(tmp_path, kind: str, prefix: str) -> None:
    """transformers writes these families with the names of their first authors; others may not."""
    from safetensors.numpy import load_file, save_file

    model = build(tmp_path, kind)
    file = str(tmp_path / "model" / "model.safetensors")
    stored = set(load_file(file))
    state = {f"{prefix}{name}": value.numpy() for name, value in model[0].auto_model.state_dict().items()}
    assert stored.isdisjoint(name for name in state if "layers." in name), "the names are alike"
    save_file(state, file)
    assert difference(tmp_path, model, TEXTS) < 1e-5


def test_buckets_of_distances_are_those_of_transformers() -> None:
    import torch
    from transformers.models.t5.modeling_t5 import T5Attention

    span = 700
    for buckets, most in ((32, 128), (12, 20), (64, 1000), (4, 9)):
        distance = torch.arange(-(span - 1), span)
        wanted = T5Attention._relative_position_bucket(distance, num_buckets=buckets, max_distance=most)
        table = np.arange(buckets, dtype=np.float32)[:, None]
        np.testing.assert_array_equal(relative_bias(table, span, most=most)[0], wanted.numpy())
    with pytest.raises(ModelError, match="3 relative attention biases, not 4 or more"):
        relative_bias(np.zeros((3, 2), np.float32), 5)


@pytest.mark.parametrize("theta", [1000.0, 10_000.0, 160_000.0])
def test_rotary_positions_are_those_of_transformers(theta: float) -> None:
    import torch
    from transformers import GteConfig
    from transformers.models.gte.modeling_gte import GteRotaryEmbedding

    config = GteConfig(
        hidden_size=40, num_attention_heads=2, rope_parameters={"rope_type": "default", "rope_theta": theta}
    )
    cosines, sines = GteRotaryEmbedding(config)(torch.zeros(1), torch.arange(8192)[None])
    wanted = np.concatenate([cosines[0, :, :10].numpy(), sines[0, :, :10].numpy()], axis=1)
    # an angle of 8191 has steps of 5e-4 in float32
    np.testing.assert_allclose(rotary_positions(theta, 20, 8192)[:100], wanted[:100], atol=1e-5)
    np.testing.assert_allclose(rotary_positions(theta, 20, 8192), wanted, atol=1e-3)


@pytest.mark.parametrize("kind", NEW)
def test_lower_precisions_against_float64(tiny, kind: str) -> None:
    folder, model = tiny(kind)
    encoder = load(folder, runtime="native", precision="int8")
    assert any(choice.path in ROUNDED for choice in encoder.choices), "nothing is rounded"
    model = copy.deepcopy(model).double()
    wanted = model.encode(TEXTS, convert_to_numpy=True, normalize_embeddings=True)
    assert wanted.dtype == np.float64
    cosines = (encoder(TEXTS) * wanted).sum(axis=1)
    assert np.median(cosines) > 0.99 and 0.85 < cosines.min() < 1 - 1e-6, "random gates make large outliers"
    exact = load(folder, runtime="native", precision="float32")(TEXTS)
    assert np.abs(exact - wanted).max() < 1e-5


@pytest.mark.parametrize("precision", ["float32", "int8", "bfloat16"])
@pytest.mark.parametrize("kind", NEW)
def test_vectors_do_not_depend_on_the_batch(tiny, level: str, kind: str, precision: str) -> None:
    """To the bit: alone, in company, and cut among threads in the middle of a text or window."""
    from leanmatch.errors import UsageError

    size = {"d_kv": 32} if kind.endswith("t5") else {"hidden_size": 96, "intermediate_size": 70}
    size |= {"head_dim": 32} if kind == "eurobert" else {}
    folder, _ = tiny(kind, tokens=150, length=150, **size, **_room(kind))
    try:
        encoder = load(folder, runtime="native", precision=precision)
    except UsageError as error:
        pytest.skip(str(error))
    rng = np.random.default_rng(1)
    lists = [
        rng.integers(5, 80, count).tolist() for count in (1, 2, 3, 9, 16, 17, 33, 64, 65, 97, 130, 150, 7, 4)
    ]

    def encode(texts, **options):
        return encoder.encode_tokens(texts, add_special_tokens=False, **options)

    together = encode(lists, threads=1)
    assert np.isfinite(together).all() and np.abs(together - together[0]).max(axis=1)[1:].min() > 1e-3
    for batch_size, threads in ((1, 1), (1, 3), (3, 2), (64, 3), (64, 7)):
        again = encode(lists[::-1], batch_size=batch_size, threads=threads)[::-1]
        np.testing.assert_array_equal(again, together, err_msg=f"batches of {batch_size}, {threads} threads")


def damaged(folder: Path, kind: str, **changes) -> Path:
    build(folder, kind)
    file = folder / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder / "model"


@pytest.mark.parametrize(
    ("kind", "changes", "error", "message"),
    [
        ("gte", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, UnsupportedError, "yarn"),
        ("gte", {"rope_scaling": {"type": "ntk", "factor": 8}}, UnsupportedError, "positions with.*ntk"),
        ("gte", {"rope_parameters": {"partial_rotary_factor": 0.5}}, UnsupportedError, "part of a head"),
        ("gte", {"rope_parameters": {"rope_theta": "much"}}, ModelError, "rope_theta is 'much'"),
        ("eurobert", {"head_dim": 7}, ModelError, "heads are 7 wide, and rotary positions need"),
        ("eurobert", {"head_dim": 4096}, ModelError, "4096 wide; more than 1,024"),
        ("eurobert", {"num_key_value_heads": 2}, ModelError, "no multiple of that of keys"),
        ("modernbert", {"layer_types": ["full_attention"]}, ModelError, "layer_types is no list of 4"),
        ("modernbert", {"layer_types": ["linear_attention"] * 4}, UnsupportedError, "linear_attention"),
        ("t5", {"num_heads": 6, "d_kv": 5}, ModelError, "is for 3 heads, not 6"),
        ("t5", {"feed_forward_proj": "gated-quick"}, UnsupportedError, "no activation 'quick'"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(tmp_path, kind, changes, error, message) -> None:
    with pytest.raises(error, match=message):
        load(damaged(tmp_path, kind, **changes), runtime="native")


@pytest.mark.parametrize("kind", NEW)
def test_missing_weights_are_named(tmp_path, kind: str) -> None:
    from safetensors.numpy import load_file, save_file

    build(tmp_path, kind)
    file = str(tmp_path / "model" / "model.safetensors")
    tensors = load_file(file)
    for name in sorted(tensors):
        if "token_type" in name or "pooler" in name or name.endswith(("proj.bias", "fc2.bias", "Wqkv.bias")):
            continue  # the graph takes a model without them
        if kind == "jina_embeddings_v3" and name.endswith("mlp.fc1.bias"):
            continue
        save_file({other: tensors[other] for other in tensors if other != name}, file)
        with pytest.raises(ModelError, match=r"should (have|be)|lacks"):
            load(tmp_path / "model", runtime="native")


@pytest.fixture(scope="module")
def compressed(tmp_path_factory):
    """``compressed(kind, stack=)``: a compressed model and its float64 vectors of TEXTS, made once."""
    made: dict[tuple[str, bool], tuple[Path, np.ndarray]] = {}

    def get(kind: str, *, stack: bool = True) -> tuple[Path, np.ndarray]:
        if (kind, stack) not in made:
            folder = tmp_path_factory.mktemp(kind)
            model = compress(folder, kind, stack=stack).double()
            wanted = model.encode(TEXTS, convert_to_numpy=True, normalize_embeddings=True)
            assert wanted.dtype == np.float64
            made[kind, stack] = folder / "lean", wanted
        return made[kind, stack]

    return get


def compress(folder: Path, kind: str, *, stack: bool):
    """Saves a model whose linear layers are dense-sparse and whose words are rounded; returns it reloaded."""
    from leanmatch.compression import DenseSparseSpec, RoundingSpec, default_spec, factorize, finalize
    from leanmatch.formats import save_compressed
    from leanmatch.formats.reader import load_matcher

    sizes = {"d_kv": 16} if kind.endswith("t5") else {"head_dim": 16} if kind == "eurobert" else {}
    model = build(folder, kind, **sizes)
    layer = DenseSparseSpec(block=8, atoms=16, nonzeros=3)
    spec = default_spec(model, layer, embeddings=RoundingSpec(bits=8), stack=stack)
    factorize(model, spec, iterations=2)
    save_compressed(finalize(model), folder / "lean", {"base": "tiny"})
    return load_matcher(folder / "lean", device="cpu")


@pytest.mark.parametrize("stack", [True, False])
@pytest.mark.parametrize("kind", NEW)
def test_compressed_models_run_natively_and_all_their_layers_are_factored(
    compressed, kind: str, stack: bool
) -> None:
    folder, wanted = compressed(kind, stack=stack)
    exact = load(folder, runtime="native", precision="float32")
    assert {choice.form.split()[0] for choice in exact.choices} == {"dense-sparse"}, "a layer was left dense"
    if stack:
        shared = 1 if kind in ("jina_embeddings_v3", "t5") else 2
        joined = [choice.name for choice in exact.choices if "+" in choice.name]
        assert len(joined) == (0 if kind == "modernbert" else 2 * shared), "shared atoms run as one layer"
    assert np.abs(exact(TEXTS) - wanted).max() < 1e-5
    rounded = load(folder, runtime="native")
    cosines = (rounded(TEXTS) * wanted).sum(axis=1)
    assert np.median(cosines) > 0.99 and cosines.min() > 0.85, "gates of random weights make large outliers"


@pytest.mark.parametrize("kind", ["modernbert", "t5"])
def test_compressed_models_at_every_level(compressed, level: str, kind: str) -> None:
    folder, wanted = compressed(kind)
    for precision, most in (("float32", 1e-5), ("stored", 0.2)):
        encoder = load(folder, runtime="native", precision=precision)
        together = encoder(TEXTS)
        assert np.abs(together - wanted).max() < most
        alone = np.concatenate([encoder([text]) for text in TEXTS[:9]])
        np.testing.assert_array_equal(alone, together[:9])
