"""The number of CPUs: affinity, and quotas of control groups of both versions, in trees like containers'."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from leanmatch import cpus
from leanmatch.cli.doctor import examine
from leanmatch.cpus import OPENMP_VARIABLE, cpu_quota, limit_openmp, usable_cpus
from leanmatch.factorization.pursuit import native as pursuit
from leanmatch.runtime import encoder

UNIFIED = "31 23 0:28 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
LEGACY = (
    "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 31 0:30 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
)


def tree(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def unified(root: Path, path: str, files: dict[str, str], mounted: str = "/") -> Path:
    named = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    return tree(root, f"0::{path}", UNIFIED.format(root=mounted), named)


def legacy(root: Path, path: str, quotas: dict[str, tuple[int, int]], mounted: str = "/") -> Path:
    files = {}
    for name, (quota, period) in quotas.items():
        folder = f"sys/fs/cgroup/cpu,cpuacct/{name}".rstrip("/")
        files |= {f"{folder}/cpu.cfs_quota_us": str(quota), f"{folder}/cpu.cfs_period_us": str(period)}
    return tree(root, f"5:memory:{path}\n4:cpu,cpuacct:{path}\n0::/", LEGACY.format(root=mounted), files)


@pytest.mark.parametrize(
    ("path", "files", "quota"),
    [
        ("/", {"cpu.max": "200000 100000"}, 2.0),  # a container with a namespace of its own
        ("/", {"cpu.max": "max 100000"}, None),
        ("/", {}, None),  # the machine's own root has no such file
        ("/a/b", {"a/b/cpu.max": "150000 100000", "a/cpu.max": "max 100000"}, 1.5),
        ("/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5),  # a parent's counts
        ("/a/b", {"a/b/cpu.max": "300000 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("/a/b", {"a/cpu.max": "100000 50000", "c/cpu.max": "1000 100000"}, 2.0),  # a sibling's does not
        ("/../x", {"cpu.max": "100000 100000"}, 1.0),  # seen from another namespace
        ("/", {"cpu.max": "nonsense"}, None),
        ("/", {"cpu.max": "100000 0"}, None),
    ],
)
def test_version_2(tmp_path: Path, path: str, files: dict[str, str], quota: float | None) -> None:
    assert cpu_quota(unified(tmp_path, path, files)) == quota


@pytest.mark.parametrize(
    ("path", "quotas", "mounted", "quota"),
    [
        ("/", {"": (-1, 100000)}, "/", None),
        ("/", {"": (250000, 100000)}, "/", 2.5),
        ("/docker/1f", {"": (400000, 100000)}, "/docker/1f", 4.0),  # the container's group is mounted
        ("/a/b", {"a/b": (-1, 100000), "a": (300000, 100000), "": (-1, 100000)}, "/", 3.0),
        ("/a/b", {"a/b": (100000, 100000), "a": (300000, 100000)}, "/", 1.0),
    ],
)
def test_version_1(tmp_path: Path, path: str, quotas, mounted: str, quota: float | None) -> None:
    assert cpu_quota(legacy(tmp_path, path, quotas, mounted)) == quota


def test_both_versions_at_once(tmp_path: Path) -> None:
    """Systemd's hybrid layout: version 2 is there without controllers, and version 1 has the quota."""
    legacy(tmp_path, "/a", {"a": (200000, 100000)})
    mounts = tmp_path / "proc/self/mountinfo"
    mounts.write_text(mounts.read_text() + UNIFIED.format(root="/") + "/unified\n")
    assert cpu_quota(tmp_path) == 2.0


def test_a_mount_point_with_a_space(tmp_path: Path) -> None:
    mounts = r"31 23 0:28 / /sys/fs/my\040groups rw - cgroup2 cgroup2 rw"
    files = {"sys/fs/my groups/cpu.max": "300000 100000"}
    assert cpu_quota(tree(tmp_path, "0::/", mounts, files)) == 3.0


@pytest.mark.parametrize("text", ["", "::", "no line", "0::/\n1"])
def test_odd_files_are_no_quota(tmp_path: Path, text: str) -> None:
    assert cpu_quota(tree(tmp_path, text, text, {})) is None
    assert cpu_quota(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("quota", "expected"), [(None, 8), (0.1, 1), (1.0, 1), (1.2, 2), (7.5, 8), (64.0, 8)]
)
def test_every_choice_of_threads_follows_it(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpus, "own_quota", lambda: quota)
    assert usable_cpus() == expected == encoder.usable_threads(None) == pursuit._threads(None)
    cpu = examine()["cpu"]
    assert (cpu["usable_cores"], cpu["quota"]) == (expected, quota)
    monkeypatch.delenv(OPENMP_VARIABLE, raising=False)
    limit_openmp()
    assert os.environ.pop(OPENMP_VARIABLE, None) == (None if quota is None else str(expected))
    monkeypatch.setenv(OPENMP_VARIABLE, "3")
    limit_openmp()
    assert os.environ[OPENMP_VARIABLE] == "3", "the user's own number stays"


def test_no_one_counts_cpus_for_themselves() -> None:
    package = Path(cpus.__file__).parent
    counted = [
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "sched_getaffinity" in path.read_text() and path.name != "cpus.py"
    ]
    assert counted == []
