"""The NEON kernels, cross-compiled and run under emulation (``scripts/arm.sh``; ``make arm``: at length)."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = (
    os.environ.get("AARCH64_CXX", "aarch64-linux-gnu-g++"),
    os.environ.get("QEMU_AARCH64", "qemu-aarch64"),
)
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]


def arm(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", "scripts/arm.sh", str(folder), "quick"]
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    )  # pip's CMake first
    environment = {**os.environ, "PATH": path}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.skipif(
    bool(MISSING),
    reason=f"NEON KERNELS NOT TESTED: {' and '.join(MISSING)} not found "
    "(Debian, Ubuntu: apt install g++-aarch64-linux-gnu qemu-user)",
)
def test_neon_kernels_under_emulation(tmp_path: Path) -> None:
    done = arm(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.findall(r"Test +#\d+: (\S+) \.+ +Passed", done.stdout)
    # each test holds the levels that its CPU must run, no more and no fewer (csrc/checks/CMakeLists.txt)
    programs, cpus = ("check_linear", "check_ops", "check_scan"), ("cortex-a53", "neoverse-n1")
    assert passed == [f"{cpu}.{program}" for program in programs for cpu in cpus], done.stdout
    numbers = [int(number) for number in re.findall(r": (\d+) (?:numbers|rows); levels: .*neon", done.stdout)]
    assert len(numbers) == 5
    assert min(numbers) > 100_000


def test_a_missing_compiler_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AARCH64_CXX", "no-such-compiler")
    done = arm(tmp_path)
    assert done.returncode == 2
    assert "no-such-compiler was not found" in done.stderr
    assert "apt install" in done.stderr
