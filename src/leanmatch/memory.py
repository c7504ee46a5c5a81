"""Measure the memory of this process, and return freed memory to the system.

glibc keeps freed memory in pieces, which larger arrays cannot use, and does not give it back by itself.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path


def resident_bytes() -> int:
    """The resident set in bytes, from ``/proc/self/statm``."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@functools.cache
def malloc_trim() -> Callable[[int], int] | None:
    """glibc's ``malloc_trim``; None with another C library, or where ``/proc`` is missing."""
    if not Path("/proc/self/statm").exists():
        return None
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return None
    return trim


def return_freed() -> None:
    """Return freed memory to the system. Without glibc this does nothing."""
    trim = malloc_trim()
    if trim is not None:
        trim(0)
