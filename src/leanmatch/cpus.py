"""How many CPUs this process may use: its affinity and, in a container, the quota of its control groups.

A container with a quota of two CPUs on a machine of 64 may run on all 64, but only for two seconds of
processor time a second. Threads beyond the quota make it slower, not faster.
"""

from __future__ import annotations

import functools
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

OPENMP_VARIABLE = "OMP_NUM_THREADS"


def usable_cpus() -> int:
    """CPUs that this process may keep busy: those of its affinity, at most its quota rounded up; at least 1.

    >>> usable_cpus() >= 1
    True
    """
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = own_quota()
    return max(1, allowed if quota is None else min(allowed, math.ceil(quota)))


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The CPU's name: that in ``cpuinfo``, where there is such a file with such a line; else Python's."""
    import platform  # takes milliseconds at every start

    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or "unknown"


def limit_openmp() -> None:
    """Give programs on OpenMP (torch, FAISS, BLAS) the quota as their number of threads.

    They count the CPUs of the affinity alone. Nothing is changed without a quota, or where
    ``OMP_NUM_THREADS`` is set. It has to run before they are imported.
    """
    if own_quota() is not None and OPENMP_VARIABLE not in os.environ:
        os.environ[OPENMP_VARIABLE] = str(usable_cpus())


@functools.cache
def own_quota() -> float | None:
    """:func:`cpu_quota` of this process, read once."""
    return cpu_quota()


def cpu_quota(root: Path = Path("/")) -> float | None:
    """The tightest CPU quota of this process's control groups and of those around them; None for no quota.

    Version 2 keeps it in ``cpu.max``, version 1 in ``cpu.cfs_quota_us`` and ``cpu.cfs_period_us``.

    Args:
        root: where ``proc`` and the mounted control groups are.
    """
    quotas = [quota for folder in _group_folders(root) if (quota := _quota_of(folder)) is not None]
    return min(quotas, default=None)


def _group_folders(root: Path) -> Iterator[Path]:
    """The folders of this process's groups that control CPUs, each followed by its parents."""
    mounts = list(_mounts(_read(root / "proc/self/mountinfo")))
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        unified = number == "0" and not controllers
        if not unified and "cpu" not in controllers.split(","):
            continue
        for mounted, point, kind, options in mounts:
            if kind != ("cgroup2" if unified else "cgroup") or (not unified and "cpu" not in options):
                continue
            top = root / point.lstrip("/")
            inside = PurePosixPath(path)
            # A container without a namespace of its own sees the machine's path, and its own group mounted.
            parts = inside.relative_to(mounted).parts if inside.is_relative_to(mounted) else ()
            if ".." in parts:
                parts = ()
            for depth in range(len(parts), -1, -1):
                yield top.joinpath(*parts[:depth])


def _mounts(text: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """Root inside the file system, mount point, type and options of each mount (proc(5), mountinfo)."""
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if separator and len(fields) >= 5 and len(rest) >= 3:
            yield _unescaped(fields[3]), _unescaped(fields[4]), rest[0], rest[2].split(",")


def _unescaped(name: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), name)


def _quota_of(folder: Path) -> float | None:
    limits = _read(folder / "cpu.max").split()
    if not limits:
        limits = [_read(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    try:
        quota, period = int(limits[0]), int(limits[1])
    except (ValueError, IndexError):  # "max", or no such file
        return None
    return quota / period if quota > 0 and period > 0 else None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
