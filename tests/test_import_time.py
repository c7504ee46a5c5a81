"""`import leanmatch` and `leanmatch --help` load nothing heavy (seconds: benchmarks/bench_startup.py)."""

from __future__ import annotations

import subprocess
import sys

import pytest

import leanmatch

HEAVY = ("datasets", "faiss", "numpy", "peft", "pyarrow", "sentence_transformers", "torch", "transformers")

HELP = """
from leanmatch.cli.app import app
try:
    app({arguments!r}, prog_name="leanmatch")
except SystemExit as stop:
    assert stop.code == 0, stop.code
"""


def loaded_after(code: str) -> set[str]:
    """The names of HEAVY that a fresh interpreter has loaded after ``code``."""
    script = f"{code}\nimport sys\nprint('LOADED', *(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1].split()
    assert last[0] == "LOADED"
    return set(last[1:])


def test_the_check_bites() -> None:
    assert loaded_after("import numpy") == {"numpy"}


def test_import_loads_nothing_heavy() -> None:
    assert loaded_after("import leanmatch; leanmatch.__version__") == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["data", "--help"],
        ["train", "--help"],
        ["diagnose", "--help"],
        ["explain", "--help"],
        ["compress", "--help"],
    ],
)
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_after(HELP.format(arguments=arguments)) == set()


def test_specifications_of_compression_need_no_torch() -> None:
    made = "CompressionSpec((Rule('*', DenseSparseSpec()),)).to_json()"
    loaded = loaded_after(f"from leanmatch.compression import CompressionSpec, DenseSparseSpec, Rule; {made}")
    assert loaded.isdisjoint({"torch", "transformers", "sentence_transformers"})


@pytest.mark.parametrize("name", sorted(leanmatch.__all__))
def test_every_public_name_is_what_its_module_defines(name: str) -> None:
    assert getattr(leanmatch, name).__name__ == name
    assert name in dir(leanmatch)


def test_unknown_public_name() -> None:
    with pytest.raises(AttributeError, match="module 'leanmatch' has no attribute 'nonsense'"):
        _ = leanmatch.nonsense
