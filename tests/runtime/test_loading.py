"""Folders that load, fall back or are refused; what is chosen and kept; threads and forks."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from runtime_models import ARCHITECTURES, TEXTS, build

from leanmatch.errors import LeanmatchError, ModelError, UsageError
from leanmatch.factorization import Dense, DenseSparse, LowRank
from leanmatch.runtime import FallbackEncoder, FallbackWarning, load, runtime_choices
from leanmatch.runtime.kernels.choice import Chooser
from leanmatch.runtime.kernels.paths import Inputs, best_level, paths, prepared
from leanmatch.runtime.loading import load_native
from leanmatch.runtime.tables import runtime_rows


def copied(tiny, tmp_path: Path, kind: str = "bert") -> Path:
    return Path(shutil.copytree(tiny(kind)[0], tmp_path / "copy"))


def rewrite(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_unknown_architecture_falls_back_and_says_so(tiny, tmp_path: Path) -> None:
    place = copied(tiny, tmp_path)
    rewrite(place / "config.json", position_embedding_type="relative_key")
    with pytest.raises(ModelError, match="does not run bert with position_embedding_type"):
        load(place, runtime="native")
    with pytest.warns(
        FallbackWarning, match="runs on sentence-transformers, not on the native runtime"
    ) as seen:
        encoder = load(place)
    assert len(seen) == 1 and isinstance(encoder, FallbackEncoder)
    assert encoder.encode(TEXTS, threads=1).shape == (len(TEXTS), encoder.dimension)
    assert encoder.encode(["usb"], normalize_embeddings=False).shape == (1, encoder.dimension)
    assert runtime_choices(encoder) == []


def test_no_warning_where_the_native_runtime_runs(tiny) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(tiny("bert")[0]).encode(["usb"])


def test_without_sentence_transformers_a_fallback_is_an_error(tiny, tmp_path, monkeypatch) -> None:
    place = copied(tiny, tmp_path)
    rewrite(place / "config.json", model_type="gpt2")
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ModelError, match=r"'gpt2', and sentence-transformers, which might run it, is not"):
        load(place)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_damaged_file_is_named(tiny, tmp_path: Path, name: str) -> None:
    place = copied(tiny, tmp_path)
    (place / name).write_bytes((place / name).read_bytes()[:100])
    with pytest.raises(ModelError, match=name):
        load(place, runtime="native")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 45}, "should have 45 numbers"),
        ({"num_attention_heads": 7}, "no multiple of the number of heads"),
        ({"num_hidden_layers": 3}, r"encoder\.layer\.2\..* should"),
        ({"intermediate_size": 81}, r"feed-forward input: weights are \(80, 48\), expected \(81, 48\)"),
        ({"hidden_size": "48"}, "hidden_size is '48', not a whole number from 1 to 16,777,216"),
        ({"hidden_act": "mish"}, "no activation 'mish'"),
    ],
)
def test_a_configuration_that_does_not_fit_its_weights(tiny, tmp_path, changes, message) -> None:
    place = copied(tiny, tmp_path)
    rewrite(place / "config.json", **changes)
    with pytest.raises(ModelError, match=message):
        load(place, runtime="native")


def test_fuzzed_folders_end_in_an_error_or_an_encoder(tiny, tmp_path: Path) -> None:
    """Bytes of every file changed, cut or doubled: nothing but our own errors comes out."""
    place = copied(tiny, tmp_path)
    files = [file for file in sorted(place.rglob("*")) if file.is_file() and file.suffix != ".md"]
    rng = random.Random(int(os.environ.get("LEANMATCH_FUZZ_SEED", "0")))
    refused = 0
    for _ in range(int(os.environ.get("LEANMATCH_FUZZ_ROUNDS", "60"))):
        file = rng.choice(files)
        whole = file.read_bytes()
        broken = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            at = rng.randrange(min(len(broken), 4000))  # headers are at the front
            kind = rng.randrange(3)
            if kind == 0:
                broken[at] = rng.randrange(256)
            elif kind == 1:
                del broken[at : at + rng.randint(1, 40)]
            else:
                broken[at:at] = broken[at : at + rng.randint(1, 40)]
            if not broken:
                break
        file.write_bytes(bytes(broken))
        try:
            load_native(place, name="fuzzed").encode(["usb dock", ""])
        except LeanmatchError:
            refused += 1
        finally:
            file.write_bytes(whole)
    assert refused > 5, "the faults were not faults"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_stored_in_two_bytes(tiny, tmp_path: Path, dtype: str) -> None:
    """The same vectors as a float32 folder with the rounded weights; numpy has no bfloat16."""
    torch = pytest.importorskip("torch", reason="the train extra (torch) is not installed")
    from safetensors.torch import load_file, save_file

    place = copied(tiny, tmp_path)
    file = next(place.rglob("model.safetensors"))
    exact = load(place, runtime="native").encode(TEXTS)
    halves = {name: value.to(getattr(torch, dtype)) for name, value in load_file(file).items()}
    save_file({name: value.float() for name, value in halves.items()}, file)
    rounded = load(place, runtime="native").encode(TEXTS)
    assert np.abs(rounded - exact).max() > 1e-5, "nothing was rounded"
    save_file(halves, file)
    np.testing.assert_array_equal(load(place, runtime="native").encode(TEXTS), rounded)
    save_file(halves | {"embeddings.LayerNorm.bias": halves["embeddings.LayerNorm.bias"] * torch.nan}, file)
    with pytest.raises(ModelError, match="NaN or infinite"):
        load(place, runtime="native")


def test_max_length_comes_from_the_folder(tiny, tmp_path: Path) -> None:
    place = copied(tiny, tmp_path)
    assert load(place).max_tokens == 32
    rewrite(place / "sentence_bert_config.json", max_seq_length=None)
    rewrite(place / "tokenizer_config.json", model_max_length=60)
    assert load(place).max_tokens == 60
    rewrite(place / "sentence_bert_config.json", max_seq_length=1000)
    assert load(place).max_tokens == 80  # positions that the model has
    rewrite(place / "sentence_bert_config.json", max_seq_length=2)
    with pytest.raises(UsageError, match="max_seq_length is 2, but the tokenizer adds 2 special tokens"):
        load(place)


def test_a_default_prompt_goes_before_every_text(tiny, tmp_path: Path) -> None:
    place = copied(tiny, tmp_path)
    plain = load(place).encode(["red usb dock"])
    rewrite(
        place / "config_sentence_transformers.json", prompts={"query": "red "}, default_prompt_name="query"
    )
    np.testing.assert_allclose(load(place).encode(["usb dock"]), plain, atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"), [("int3", "is no precision(.|\n)*stored, float32, bfloat16, int8")]
)
def test_unknown_precision(tiny, weights: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(tiny("bert")[0], precision=weights)


def factors(kind: str):
    rng = np.random.default_rng(0)
    if kind == "dense":
        return Dense(rng.normal(size=(40, 48)).astype(np.float32))
    if kind == "low":
        return LowRank(
            rng.normal(size=(40, 6)).astype(np.float32), rng.normal(size=(6, 48)).astype(np.float32)
        )
    indices = np.argsort(rng.random((40, 3, 20)), axis=2)[:, :, :4].astype(np.uint8)
    sparse = DenseSparse(
        rng.normal(size=(3, 20, 16)).astype(np.float32),
        indices,
        rng.normal(size=(40, 3, 4)).astype(np.float32),
    )
    return sparse if kind == "sparse" else sparse.quantize()


@pytest.mark.parametrize("precision", ["stored", "float32", "int8"])
@pytest.mark.parametrize("kind", ["dense", "low", "sparse", "sparse int8"])
def test_every_path_of_every_form_is_correct(level: str, kind: str, precision: str) -> None:
    matrix = prepared(factors(kind), precision)
    rng = np.random.default_rng(1)
    bias = rng.normal(size=40).astype(np.float32)
    ranges = np.abs(rng.normal(1, 1, size=48)).astype(np.float32)
    found = paths(matrix, precision, level, Inputs(ranges, measured=True))
    assert found and len({path.name for path in found}) == len(found)
    for tokens in (1, 5, 33):
        x = (rng.normal(size=(tokens, 48)) * ranges / 4).astype(np.float32)
        wanted = x.astype(np.float64) @ matrix.dense().T.astype(np.float64) + bias
        for path in found:
            y = np.empty((tokens, 40), np.float32)
            path.pack(level, bias).run(
                x if path.input_factor is None else x * path.input_factor, y, "none", None
            )
            assert np.linalg.norm(y - wanted) <= path.tolerance * np.linalg.norm(wanted), path.name


def test_a_wrong_path_is_never_chosen(monkeypatch) -> None:
    from dataclasses import replace

    from leanmatch.runtime.kernels import choice as path_choice

    def with_fault(*arguments):
        first, *rest = paths(*arguments)
        wrong = Dense(np.zeros((40, 48), np.float32))
        return [replace(first, pack=paths(wrong, "float32", "portable")[0].pack, multiply_adds={}), *rest]

    monkeypatch.setattr(path_choice, "paths", with_fault)
    chooser = Chooser("stored", best_level())
    chooser("layer", factors("sparse"), None)
    assert chooser.choices[0].path == "dense_f32"
    monkeypatch.setattr(path_choice, "paths", lambda *arguments: with_fault(*arguments)[:1] * 2)
    with pytest.raises(ModelError, match="no path runs a layer of the form dense-sparse 40x48 b16 r20 k4"):
        Chooser("stored", best_level())("layer", factors("sparse"), None)


def test_a_compressed_model_is_rounded_without_tables_only_on_request() -> None:
    indices = np.tile(np.arange(4, dtype=np.uint8), (96, 6, 1))
    wide = DenseSparse(np.ones((6, 64, 16), np.float32), indices, np.ones((96, 6, 4), np.float32)).quantize()
    assert [path.name for path in paths(wide, "stored", "avx2")] == ["dense_sparse_f32", "dense_i8"]
    assert [path.name for path in paths(wide, "int8", "avx2")] == ["dense_i8", "dense_sparse_f32"]
    assert paths(wide, "stored", "avx512_vbmi_vnni")[0].name == "dense_sparse_i8"


def test_the_table_of_choices(tiny) -> None:
    encoder = load(tiny("bert")[0])
    rows = runtime_choices(encoder)
    assert sum(len(row["layers"]) for row in rows) == len(encoder.choices) == 8
    assert all(row["path"] == "dense_f32" for row in rows)
    assert len(runtime_rows(encoder)) == len(rows)
    assert 0 < sum(row["bytes"] for row in rows) < encoder.bytes


def test_many_threads_share_one_encoder(tiny) -> None:
    encoder = load(tiny("bert")[0])
    wanted = encoder.encode(TEXTS)
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda i: encoder.encode(TEXTS, batch_size=5 + i, threads=1 + i % 3), range(12))
        )
    for one in found:
        np.testing.assert_array_equal(one, wanted)


FORKED = """
import multiprocessing, os, sys, threading
import numpy as np
os.environ["TOKENIZERS_PARALLELISM"] = "false"
from leanmatch.runtime import load
encoder = load(sys.argv[1])
texts = [f"usb dock {i}" for i in range(200)]
wanted = encoder.encode(texts, threads=3)  # threads exist before the fork
busy = threading.Thread(target=lambda: [encoder.encode(texts, threads=3) for _ in range(20)])
busy.start()  # and one is at work, locks held, while it forks
def child(queue):
    queue.put(bool(np.allclose(encoder.encode(texts, threads=3), wanted, atol=1e-5)))
context = multiprocessing.get_context("fork")
queue = context.Queue()
children = [context.Process(target=child, args=(queue,)) for _ in range(3)]
[one.start() for one in children]
answers = [queue.get(timeout=60) for _ in children]
[one.join(60) for one in children]
busy.join()
assert np.allclose(encoder.encode(texts, threads=3), wanted, atol=1e-5)
print(answers, [one.exitcode for one in children])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_children_make_their_own_threads(tiny) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, str(tiny("bert")[0])],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.strip() == "[True, True, True] [0, 0, 0]", done.stderr


def test_no_torch_is_imported(tiny) -> None:
    code = (
        "import sys; from leanmatch.runtime import load; load(sys.argv[1]).encode(['usb', 'dock']); "
        "print(sorted({'torch', 'transformers', 'sentence_transformers', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny("bert")[0])], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_model_type_is_tested() -> None:
    from leanmatch.runtime.architectures import NATIVE

    assert set(NATIVE) - {"camembert"} == set(ARCHITECTURES)  # camembert is roberta by another name


def test_a_vocabulary_alone_is_enough_for_bert(tiny, tmp_path: Path) -> None:
    place = copied(tiny, tmp_path)
    whole = load(place)
    wanted = whole.encode(TEXTS)
    vocabulary = sorted(whole.tokenizer.get_vocab().items(), key=lambda item: item[1])
    (place / "vocab.txt").write_text("\n".join(token for token, _ in vocabulary) + "\n")
    (place / "tokenizer.json").unlink()
    np.testing.assert_allclose(load(place, runtime="native").encode(TEXTS), wanted, atol=1e-5)


def test_lower_casing_that_the_folder_asks_for(tmp_path: Path) -> None:
    build(tmp_path)
    place = tmp_path / "model"
    file = place / "tokenizer.json"
    file.write_text(
        file.read_text()
        .replace('"lowercase":true', '"lowercase":false')
        .replace('"lowercase": true', '"lowercase": false')
    )
    plain = load(place).encode(["USB dock", "usb dock"])
    assert np.abs(plain[0] - plain[1]).max() > 1e-3, "the tokenizer lower-cases by itself"
    rewrite(place / "sentence_bert_config.json", do_lower_case=True)
    lowered = load(place).encode(["USB dock", "usb dock"])
    np.testing.assert_allclose(lowered[0], lowered[1], atol=1e-6)


def test_a_device_is_for_sentence_transformers_and_never_ignored(tiny) -> None:
    pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
    folder = tiny("bert")[0]
    assert load(folder).precision == "float32"
    assert load(folder, device="cpu").precision == "torch"
    assert load(folder, device="cpu", runtime="native").precision == "float32"
    with pytest.raises(UsageError, match="has no choice of it"):
        load(folder, device="cpu", precision="int8")
    with pytest.raises(UsageError, match="on device 'cuda'"):
        load(folder, device="cuda", runtime="native")
    with pytest.raises(UsageError, match="no runtime 'onnx'"):
        load(folder, runtime="onnx")
