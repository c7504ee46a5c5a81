"""scripts/setup.sh on machines that lack something: what is missing, what to do, nothing made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the set-up is a POSIX shell script")


def setup(repository: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = ["/bin/sh", str(repository / "scripts" / "setup.sh"), *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60
    )


def python_that(fails_on: str, folder: Path) -> str:
    """An interpreter that fails on the programs that contain ``fails_on`` and runs the others."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\ncase "$2" in *{fails_on}*) exit 1;; esac\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


def test_no_python(repository: Path, tmp_path: Path) -> None:
    done = setup(repository, "venv", str(tmp_path / "v"), PYTHON="/nonexistent")
    assert done.returncode == 1
    assert "Python 3.11 or newer was not found (tried: /nonexistent)" in done.stderr
    assert "Remedy: install one, or name it" in done.stderr


def test_no_compiler(repository: Path, tmp_path: Path) -> None:
    done = setup(repository, "venv", str(tmp_path / "v"), PYTHON=sys.executable, CXX="/nonexistent")
    assert done.returncode == 1
    assert "no C++ compiler was found (tried: /nonexistent)" in done.stderr
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize(
    ("fails_on", "message"),
    [("version_info", "Python 3.11"), ("Python.h", "python3-dev"), ("ensurepip", "python3-venv")],
)
def test_python_that_lacks_something(repository: Path, tmp_path: Path, fails_on: str, message: str) -> None:
    python = python_that(fails_on, tmp_path)
    done = setup(repository, "venv", str(tmp_path / "v"), PYTHON=python, CXX="/bin/sh")
    assert done.returncode == 1
    assert message in done.stderr
    assert "Remedy:" in done.stderr
    assert not (tmp_path / "v").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    done = setup(repository, "venv", str(tmp_path), PYTHON=sys.executable, CXX="/bin/sh")
    assert done.returncode == 1
    assert "is not a virtual environment" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    ("arguments", "message"), [([], "usage:"), (["venv"], "usage:"), (["fly", "somewhere"], "'fly'")]
)
def test_usage(repository: Path, arguments: list[str], message: str) -> None:
    done = setup(repository, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
