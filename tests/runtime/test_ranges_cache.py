"""What the runtime keeps for the next load: in the user's cache, by the model's content, and never needed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from runtime_models import TEXTS
from safetensors.numpy import load_file, save_file
from tiny_bert import PROVENANCE

from leanmatch.cli.doctor import examine
from leanmatch.files import user_cache
from leanmatch.formats import model_fingerprint
from leanmatch.runtime import load, runtime_choices
from leanmatch.runtime.kernels import ranges
from leanmatch.runtime.kernels.paths import best_level
from leanmatch.runtime.loading import load_timed


def copied(tiny, target: Path, kind: str = "bert") -> Path:
    return Path(shutil.copytree(tiny(kind)[0], target / "copy"))


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_a_model_folder_is_left_as_it_was(tiny, tmp_path: Path, kind: str) -> None:
    folder = copied(tiny, tmp_path, kind)
    (folder / "leanmatch.json").write_text(
        json.dumps(PROVENANCE)
    )  # once the runtime wrote into folders that have one
    before = {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}
    for precision in ("stored", "float32", "int8"):
        load(folder, precision=precision)
    assert {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))} == before


def kept_files() -> list[Path]:
    return sorted((user_cache() / "ranges").glob("*"))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_ranges_are_kept_by_model_precision_and_level(tiny, tmp_path: Path, empty_cache: Path) -> None:
    folder = copied(tiny, tmp_path)
    first = load(folder, precision="int8")
    if not any(choice.path == "dense_i8" for choice in first.choices):
        pytest.skip("8 bits are slower than float32 at this level")
    (file,) = kept_files()
    assert file.name == f"{model_fingerprint(folder)[:32]}-int8-{best_level()}.safetensors"
    copy = tmp_path / "second"
    shutil.copytree(folder, copy)
    stamp = file.stat().st_mtime_ns
    np.testing.assert_array_equal(load(copy, precision="int8").encode(TEXTS), first.encode(TEXTS))
    assert kept_files() == [file] and file.stat().st_mtime_ns == stamp, "the copy's were not those kept"
    load(copied(tiny, tmp_path / "other", "roberta"), precision="int8")
    assert len(kept_files()) == 2


@pytest.mark.parametrize(
    "damage", ["empty", "cut", "text", "another version", "another shape", "nan", "huge"]
)
def test_damaged_ranges_are_measured_anew(tiny, empty_cache: Path, damage: str) -> None:
    folder = tiny("bert")[0]
    wanted = load(folder, precision="int8").encode(TEXTS)
    if not kept_files():
        pytest.skip("8 bits are slower than float32 at this level")
    (file,) = kept_files()
    whole, tensors = file.read_bytes(), load_file(file)
    if damage in ("empty", "cut", "text"):
        file.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "text": b"{" * 99}[damage])
    elif damage == "huge":
        file.write_bytes((1 << 60).to_bytes(8, "little") + whole[8:])
    else:
        name, ends = next(iter(tensors.items()))
        changed = {"another shape": ends[:, :-1].copy(), "nan": ends * np.float32(np.nan)}.get(
            damage, ends * 9
        )
        written = {**tensors, name: changed}
        version = {"leanmatch": "0"} if damage == "another version" else {}
        save_file(written, file, ranges._metadata(written) | version)
    np.testing.assert_array_equal(load(folder, precision="int8").encode(TEXTS), wanted)
    assert load_file(file).keys() == tensors.keys(), "it was not written anew"


def test_a_cache_that_cannot_be_written_changes_nothing(tiny, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "good"))
    wanted = load(tiny("bert")[0], precision="int8").encode(TEXTS)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    np.testing.assert_array_equal(load(tiny("bert")[0], precision="int8").encode(TEXTS), wanted)
    assert examine()["cache"] == {
        "folder": str(tmp_path / "file" / "leanmatch"),
        "why_unwritable": f"{tmp_path / 'file'} is no folder",
    }
    monkeypatch.setattr(ranges, "user_cache", lambda: None)
    np.testing.assert_array_equal(load(tiny("bert")[0], precision="int8").encode(TEXTS), wanted)


def test_times_are_measured_on_request_and_choose_nothing(tiny) -> None:
    timed, plain = load_timed(tiny("bert")[0], precision="int8"), load(tiny("bert")[0], precision="int8")
    assert [choice.path for choice in timed.choices] == [choice.path for choice in plain.choices]
    assert all(min(times) > 0 for row in runtime_choices(timed) for times in row["microseconds"].values())
    assert {path for row in runtime_choices(timed) for path in row["microseconds"]} >= {
        "dense_f32",
        "dense_i8",
    }
    assert all(not row["microseconds"] for row in runtime_choices(plain))
