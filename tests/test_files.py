"""Atomic writes: all or nothing, also when the process is killed in the middle."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from leanmatch import files
from leanmatch.errors import LeanmatchError
from leanmatch.files import atomic_file, atomic_folder, user_cache, why_unwritable, write_json

KILLED = """
import os, signal, sys
from leanmatch.files import {function}
with {function}({target!r}{more}) as partial:
    (partial / "part" if partial.is_dir() else partial).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


class InterruptedWriteError(Exception):
    """Raised inside the block."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "table.csv.gz"
    for text in ("first", "second 🎈"):
        with atomic_file(target) as partial:
            assert partial != target
            assert partial.suffixes == [".csv", ".gz"]
            partial.write_text(text, encoding="utf-8")
        assert target.read_text(encoding="utf-8") == text
    assert names(target.parent) == ["table.csv.gz"]


def test_file_gets_the_permissions_of_an_ordinary_file(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.write_text("")
    with atomic_file(tmp_path / "ours") as partial:
        partial.write_text("")
    assert (tmp_path / "ours").stat().st_mode == ordinary.stat().st_mode


def test_failed_file_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(InterruptedWriteError), atomic_file(target) as partial:
        partial.write_text("new")
        raise InterruptedWriteError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic_folder(target) as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "weights").write_bytes(b"\0" * 9)
        assert not target.exists()
    assert (target / "inner" / "weights").read_bytes() == b"\0" * 9
    assert names(tmp_path) == ["model"]


def test_folder_refuses_to_overwrite_unless_told(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    with atomic_folder(target) as partial:  # an empty folder is no loss
        (partial / "a").write_text("1")
    with pytest.raises(LeanmatchError, match=r"exists already\n.*overwrite=True"), atomic_folder(target):
        pass
    with atomic_folder(target, overwrite=True) as partial:
        (partial / "b").write_text("2")
    assert names(target) == ["b"]
    assert names(tmp_path) == ["model"]


def test_folder_refuses_a_file_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("precious")
    with pytest.raises(LeanmatchError, match="exists already"), atomic_folder(tmp_path / "model"):
        pass
    assert (tmp_path / "model").read_text() == "precious"


def test_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "a").write_text("old")
    with pytest.raises(InterruptedWriteError), atomic_folder(target, overwrite=True) as partial:
        (partial / "b").write_text("new")
        raise InterruptedWriteError
    assert names(target) == ["a"]
    assert names(tmp_path) == ["model"]


@pytest.mark.skipif(not hasattr(os, "kill") or sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize(("function", "more"), [("atomic_file", ""), ("atomic_folder", ", overwrite=True")])
def test_killed_in_the_middle(tmp_path: Path, function: str, more: str) -> None:
    target = tmp_path / "thing"
    if function == "atomic_file":
        target.write_text("old")
    else:
        target.mkdir()
        (target / "part").write_text("old")
    script = KILLED.format(function=function, target=str(target), more=more)
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert done.returncode == -9
    assert (target / "part" if target.is_dir() else target).read_text() == "old"
    leftovers = [name for name in names(tmp_path) if name != "thing"]
    assert len(leftovers) == 1  # the write had begun
    assert leftovers[0].startswith(".partial-")


def test_json_is_utf8_and_refuses_nan(tmp_path: Path) -> None:
    target = tmp_path / "a.json"
    write_json(target, {"text": "größer 🎈", "n": 1})
    assert json.loads(target.read_text(encoding="utf-8")) == {"text": "größer 🎈", "n": 1}
    assert "größer" in target.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(target, {"score": float("nan")})
    assert json.loads(target.read_text(encoding="utf-8"))["n"] == 1


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/c"}, "/c/leanmatch"),
        ("linux", {"XDG_CACHE_HOME": "relative"}, "/home/u/.cache/leanmatch"),
        ("linux", {}, "/home/u/.cache/leanmatch"),
        ("darwin", {}, "/home/u/Library/Caches/leanmatch"),
    ],
)
def test_the_cache_is_where_the_system_has_caches(
    monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], expected: str
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for name, value in {"HOME": "/home/u", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(files.sys, "platform", platform)
    assert user_cache() == Path(expected)


def test_a_user_without_a_home_has_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", staticmethod(homeless))
    assert user_cache() is None


def test_whether_a_folder_can_be_written(tmp_path: Path) -> None:
    assert why_unwritable(tmp_path) is None
    assert why_unwritable(tmp_path / "a" / "b") is None and names(tmp_path) == []
    (tmp_path / "file").write_text("")
    assert why_unwritable(tmp_path / "file" / "a") == f"{tmp_path / 'file'} is no folder"
    assert why_unwritable(tmp_path / "file") is not None
