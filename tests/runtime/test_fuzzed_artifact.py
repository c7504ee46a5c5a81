"""A compressed folder and the runtime's own file beside it, damaged: our errors or finite vectors.

``LEANMATCH_FUZZ_ROUNDS`` and ``LEANMATCH_FUZZ_SEED`` make a longer run, as ``make fuzz`` does.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the train extra (torch) is not installed")
pytest.importorskip("sentence_transformers", reason="the train extra is not installed")

from runtime_models import build

from leanmatch.compression import (
    CompressionSpec,
    DenseSparseSpec,
    LowRankSpec,
    MixedRoundingSpec,
    RoundingSpec,
    Rule,
    factorize,
    finalize,
)
from leanmatch.errors import LeanmatchError
from leanmatch.formats import save_compressed
from leanmatch.runtime.loading import load_native

ROUNDS = int(os.environ.get("LEANMATCH_FUZZ_ROUNDS", "120"))
SEED = int(os.environ.get("LEANMATCH_FUZZ_SEED", "0"))
TEXTS = ["usb dock with two hdmi ports", "", "how do i mount a drive"]

Damage = Callable[[random.Random, bytes], bytes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Dense-sparse codes, low rank, groups of 4 bits, 3 bits, and rows that differ in bits."""
    small = {"block": 8, "atoms": 12, "nonzeros": 3, "weighting": "none"}
    spec = CompressionSpec(
        (
            Rule("*layer.0.*.dense", DenseSparseSpec(**small)),
            Rule("*layer.1.attention.self.query", LowRankSpec(rank=5)),
            Rule("*layer.1.attention.self.key", RoundingSpec(bits=3)),
            Rule("*word_embeddings", MixedRoundingSpec(average_bits=2.8)),
            Rule("*position_embeddings", RoundingSpec(bits=4, group=8)),
        ),
    )
    model = build(tmp_path_factory.mktemp("bert"))
    factorize(model, spec, iterations=1)
    place = save_compressed(
        finalize(model), tmp_path_factory.mktemp("fuzz") / "good", {"base": "tiny"}
    ).folder
    return place


def bits(rng: random.Random, whole: bytes) -> bytes:
    broken = bytearray(whole)
    for _ in range(rng.randint(1, 8)):
        broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
    return bytes(broken)


def early_bits(rng: random.Random, whole: bytes) -> bytes:
    """Headers are at the front."""
    return bits(rng, whole[:2000]) + whole[2000:]


def shorter(rng: random.Random, whole: bytes) -> bytes:
    return whole[: rng.randrange(len(whole))]


def other_length(rng: random.Random, whole: bytes) -> bytes:
    """The first eight bytes: the length of a safetensors header."""
    length = rng.choice(
        (0, 1, 2**31, 2**63 - 1, 2**64 - 1, int.from_bytes(whole[:8], "little") + rng.randint(-9, 9))
    )
    return (length % 2**64).to_bytes(8, "little") + whole[8:]


VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    3,
    2**40,
    2**70,
    1e300,
    "",
    "int",
    [],
    [[]],
    [1],
    {},
    {"a": 1},
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value; of long lists the first few."""
    keys = (
        list(value)
        if isinstance(value, dict)
        else range(min(len(value), 4))
        if isinstance(value, list)
        else ()
    )
    return [(value, key) for key in keys] + [deep for key in keys for deep in places(value[key])]


def edited(rng: random.Random, whole: bytes) -> bytes:
    """A value of a JSON file (or of a safetensors header) replaced, deleted or doubled."""
    length = int.from_bytes(whole[:8], "little")
    header = length < len(whole) and whole[8:9] == b"{"
    value = json.loads(whole[8 : 8 + length] if header else whole)
    container, key = rng.choice(places(value))
    kind = rng.randrange(4)
    if kind == 0:
        del container[key]
    elif kind == 1 and isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    elif kind == 2 and isinstance(container[key], int | float):
        container[key] = container[key] * rng.choice((-1, 2, 0.5, 1000)) + rng.choice((0, 1, -1))
    else:
        container[key] = rng.choice(VALUES)
    text = json.dumps(value).encode()
    return len(text).to_bytes(8, "little") + text + whole[8 + length :] if header else text


def damages(file: Path) -> tuple[Damage, ...]:
    """Kinds of damage to a file, those that reach deepest most often."""
    common: tuple[Damage, ...] = (bits, early_bits, shorter)
    if file.suffix == ".safetensors":
        return (*common, other_length, edited, edited, edited)
    return (*common, edited, edited, edited, edited) if file.suffix == ".json" else common


def outcome(place: Path) -> str:
    """'refused' or 'runs'; anything else is raised."""
    try:
        encoder = load_native(place, name="fuzzed")
        vectors = encoder.encode(TEXTS, threads=1)
    except LeanmatchError:
        return "refused"
    assert vectors.shape == (len(TEXTS), encoder.dimension) and np.isfinite(vectors).all()
    return "runs"


def fuzz(folder: Path, tmp_path: Path, names: tuple[str, ...], rounds: int) -> dict[str, int]:
    place = Path(shutil.copytree(folder, tmp_path / "copy"))
    found = {"refused": 0, "runs": 0}
    rng = random.Random(SEED)
    for number in range(rounds):
        file = place / rng.choice(names)
        whole = file.read_bytes()
        damage = rng.choice(damages(file))
        file.write_bytes(damage(rng, whole))
        try:
            found[outcome(place)] += 1
        except Exception as error:
            raise AssertionError(
                f"round {number} of seed {SEED}: {damage.__name__} of {file.name}"
            ) from error
        finally:
            file.write_bytes(whole)
    return found


def test_a_damaged_artifact(folder: Path, tmp_path: Path) -> None:
    assert outcome(folder) == "runs", "it must be whole at first"
    names = ("leanmatch.json", "compressed.safetensors", "config.json", "modules.json", "tokenizer.json")
    found = fuzz(folder, tmp_path, names, ROUNDS)
    assert found["refused"] > ROUNDS / 4, f"the faults were not faults: {found}"


def test_a_damaged_cache_never_matters(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges in the user's cache that are damaged are measured again; the vectors stay."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    wanted = load_native(folder, name="whole", precision="int8").encode(TEXTS)
    files = list((tmp_path / "leanmatch" / "ranges").glob("*"))
    if not files:
        pytest.skip("no layer of it rounds by ranges at this level")
    whole = files[0].read_bytes()
    rng = random.Random(SEED)
    for _ in range(ROUNDS // 4):
        files[0].write_bytes(rng.choice((bits, early_bits, shorter, other_length))(rng, whole))
        found = load_native(folder, name="damaged", precision="int8").encode(TEXTS)
        np.testing.assert_array_equal(found, wanted)
