"""Ranges of the inputs of a model's layers: measured at the first load, kept in the user's cache folder.

They decide how 8-bit layers round. Measuring them again gives the same numbers, so a cache that is missing,
damaged or cannot be written costs time at each load and changes no vector.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np

from leanmatch import __version__
from leanmatch.errors import ModelError
from leanmatch.files import atomic_file, user_cache
from leanmatch.formats.fingerprint import model_fingerprint
from leanmatch.runtime.weights import Floats

Ranges: TypeAlias = dict[str, Floats]
"""Layer name to the least and the largest value of each input ``(2, n)``."""

MOST_BYTES = 64 * 2**20


def cache_file(folder: Path, precision: str, level: str) -> Path | None:
    """The cache file for a model's ranges at a precision and an instruction-set level; None without a cache.

    The name holds the model's fingerprint: copies of one model share the file, another model never finds it.
    """
    cache = user_cache()
    if cache is None:
        return None
    try:
        model = model_fingerprint(folder)
    except (ModelError, OSError):
        return None
    return cache / "ranges" / f"{model[:32]}-{precision}-{level}.safetensors"


def short(ranges: Mapping[str, Floats]) -> Ranges:
    """The ranges rounded to three digits, so that the last bits of a measurement decide nothing."""
    return {
        name: np.array([float(f"{value:.3g}") for value in ends.ravel().tolist()], np.float32).reshape(
            ends.shape
        )
        for name, ends in ranges.items()
    }


def read_ranges(file: Path | None, shapes: Mapping[str, tuple[int, int]]) -> Ranges:
    """The ranges in a file; empty where the file is missing, damaged or of another version."""
    from safetensors import SafetensorError, safe_open

    if file is None or not file.is_file():
        return {}
    try:
        if file.stat().st_size > MOST_BYTES:
            return {}
        with safe_open(str(file), framework="np") as stored:
            metadata = stored.metadata() or {}
            ranges = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        if metadata != _metadata(ranges):
            return {}
    except (SafetensorError, OSError, ValueError):
        return {}
    whole = {name: ends.shape for name, ends in ranges.items()} == dict(shapes) and all(
        ends.dtype == np.float32 and np.isfinite(ends).all() and (ends[0] <= ends[1]).all()
        for ends in ranges.values()
    )
    return ranges if whole else {}


def write_ranges(file: Path | None, ranges: Ranges) -> None:
    """Keep ranges for the next load, where the cache can be written."""
    from safetensors.numpy import save_file

    if file is None:
        return
    try:
        with atomic_file(file) as temporary:
            save_file(ranges, str(temporary), metadata=_metadata(ranges))
    except OSError:
        return


def _metadata(ranges: Ranges) -> dict[str, str]:
    """leanmatch's version and a hash of the ranges: a flipped bit would change vectors unnoticed."""
    total = hashlib.sha256()
    for name in sorted(ranges):
        total.update(f"{name}\0{ranges[name].dtype}\0{ranges[name].shape}\0".encode())
        total.update(ranges[name].tobytes())
    return {"leanmatch": __version__, "sha256": total.hexdigest()}
