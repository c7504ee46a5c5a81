"""A catalogue opens with its own model, whatever was done with that model meanwhile, and with no other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_bert import PROVENANCE

pytest.importorskip("faiss", reason="faiss-cpu is not installed")

from leanmatch import native
from leanmatch.errors import ModelError
from leanmatch.formats.fingerprint import earlier_fingerprints
from leanmatch.index import Item, create_catalogue, read_manifest, rebuild_catalogue, upsert_items
from leanmatch.index.encoders import encoder_for
from leanmatch.runtime import load

ITEMS = [Item(f"i{n}", text, {}) for n, text in enumerate(("usb dock", "red keyboard", "hdmi cable"))]


@pytest.fixture
def model(tiny, tmp_path: Path) -> Path:
    place = Path(shutil.copytree(tiny("bert")[0], tmp_path / "model"))
    (place / "leanmatch.json").write_text(json.dumps(PROVENANCE))
    return place


@pytest.fixture
def catalogue(model: Path, tmp_path: Path) -> Path:
    create_catalogue(tmp_path / "catalogue", ITEMS, load(model))
    return tmp_path / "catalogue"


def test_after_whatever_was_done_with_the_model(
    model: Path, catalogue: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(catalogue)
    for precision in ("int8", "float32", "stored"):
        load(model, precision=precision)
        encoder_for(manifest, None, precision="int8" if precision == "int8" else None)
    for name in ("README.md", "notes.txt", "scores.json", "runtime-choices.json"):
        (model / name).write_text("{}")
    for level in (name for name, variant in native.variants().items() if variant.runs):
        monkeypatch.setenv(native.LIMIT_VARIABLE, level)
        encoder_for(manifest, None)
    monkeypatch.setattr("os.cpu_count", lambda: 96)
    upsert_items(catalogue, [Item("i9", "a bag", {})], encoder_for(manifest, None))
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    (copy / "runtime-choices.json").unlink()
    encoder = encoder_for(read_manifest(catalogue), str(copy))
    upsert_items(catalogue, [Item("i10", "a box", {})], encoder)
    assert read_manifest(catalogue).items == 5


def test_another_model_is_refused(model: Path, catalogue: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "layer_norm_eps": 1e-3}))
    with pytest.raises(ModelError, match=r"encoded with the model .*(.|\n)*encode all items anew"):
        encoder_for(read_manifest(catalogue), None)


def as_written_before(catalogue: Path, model: Path, caches: tuple[str, ...]) -> set[str]:
    """Give the manifest the fingerprint of an earlier version, which saw these caches in the folder."""
    without = earlier_fingerprints(model)
    for name in caches:
        (model / name).write_text(json.dumps({"machine": name}))
    file = catalogue / "manifest.json"
    document = json.loads(file.read_text())
    (document["model"]["fingerprint"],) = [
        one for one in earlier_fingerprints(model) if caches or one in without
    ][:1]
    file.write_text(json.dumps(document))
    return {document["model"]["fingerprint"]}


@pytest.mark.parametrize("caches", [(), ("runtime-choices.json",), ("runtime-choices-int8.json",)])
def test_catalogues_of_earlier_versions(model: Path, catalogue: Path, caches: tuple[str, ...]) -> None:
    named = as_written_before(catalogue, model, caches)
    manifest = read_manifest(catalogue)
    assert {manifest.model.fingerprint} == named
    encoder = encoder_for(manifest, None)
    before = np.array(encoder.encode(["usb dock"]))
    change = upsert_items(catalogue, [*ITEMS, Item("i9", "a bag", {})], encoder)
    assert (change.added, change.unchanged, change.encoded) == (1, 3, 1)
    assert rebuild_catalogue(catalogue, encoder).encoded == 0, "vectors of the same model were not taken over"
    np.testing.assert_array_equal(encoder_for(read_manifest(catalogue), None).encode(["usb dock"]), before)
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes() + b"\0")
    with pytest.raises(ModelError):
        encoder_for(manifest, None)
