"""Which path each linear layer takes: measured once per shape, kept for the next load.

For every form and shape (not for every layer) the paths that may run it are packed, checked against numpy in
float32, and timed on one thread at a few numbers of tokens. The fastest at many tokens is taken; at few
tokens another one only where it is at least :data:`WORTH` times faster, because it has to be held in memory
as well.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, TypeAlias

import numpy as np

from leanmatch import __version__, native
from leanmatch.errors import LeanmatchError, ModelError
from leanmatch.factorization import Factors
from leanmatch.files import write_json
from leanmatch.runtime.build import Layer
from leanmatch.runtime.paths import UNKNOWN, Inputs, Path, describe, paths, prepared
from leanmatch.runtime.weights import Floats

TOKENS = (4, 16, 64)
"""Numbers of tokens at which paths are timed."""

FROM = (0, 10, 32)
"""The fewest tokens that each of :data:`TOKENS` stands for."""

ROUNDED = ("dense_bf16", "dense_i8", "dense_sparse_i8")
"""Paths whose activations are rounded to bfloat16 or to 8 bits."""

WORTH = 1.15
FILE_NAME = "runtime-choices.json"
"""Of ``weights="stored"``; other precisions put their name before the suffix: none overwrites another."""
_SECONDS = 0.0006  # at each of TOKENS, for each path

Times: TypeAlias = dict[str, list[float]]
"""Path name to microseconds a token at :data:`TOKENS`."""


@dataclass(frozen=True)
class LayerChoice:
    """What runs one linear layer.

    Attributes:
        name: the layer.
        form: its weight in words (:func:`leanmatch.runtime.paths.describe`).
        runs: (fewest tokens, path), ascending.
        level: instruction-set level of the kernels that run.
        bytes: of the packed weights.
        microseconds: path to microseconds a token at :data:`TOKENS`; empty where there was nothing to choose.
    """

    name: str
    form: str
    runs: tuple[tuple[int, str], ...]
    level: str
    bytes: int
    microseconds: Mapping[str, list[float]] = field(default_factory=dict)


class Chooser:
    """Packs linear layers by the fastest correct path; an instance is a ``PackLayer`` of the builder.

    Args:
        precision: a key of :data:`leanmatch.runtime.paths.PRECISIONS`.
        level: instruction-set level.
        file: where measurements are kept; None for nowhere.
    """

    def __init__(self, precision: str, level: str, file: FilePath | None) -> None:
        self._precision = precision
        self._level = level
        self._file = file
        self._known, self.ranges = _read(file, self._machine())
        self._measured = False
        self.choices: list[LayerChoice] = []

    def __call__(self, name: str, factors: Factors, bias: Floats | None, inputs: Inputs = UNKNOWN) -> Layer:
        """Pack one layer; ``inputs`` as in :func:`leanmatch.runtime.paths.paths`.

        Raises:
            ModelError: no path gives the right numbers.
        """
        factors = prepared(factors, self._precision)
        candidates = paths(factors, self._precision, self._level, inputs)
        form = describe(factors)
        packed: dict[str, Any] = {}
        times: Times = {}
        if len(candidates) > 1:
            times = self._times(form, candidates, factors, packed, bias, inputs)
            candidates = [path for path in candidates if path.name in times]
        runs = choose(times) if times else ((0, candidates[0].name),)
        by_name = {path.name: path for path in candidates}
        for _, path in runs:
            if path not in packed:
                packed[path] = by_name[path].pack(self._level, bias)
        held = {path for _, path in runs}
        self.choices.append(
            LayerChoice(
                name=name,
                form=form,
                runs=runs,
                level=packed[runs[-1][1]].level,
                bytes=sum(packed[path].bytes for path in held),
                microseconds=times,
            )
        )
        return [(start, packed[path], by_name[path].input_factor) for start, path in runs]

    @property
    def wants_ranges(self) -> bool:
        """Would measured ranges of the inputs make a layer's rounding better, and are they not known yet?"""
        smoothed = ("dense", "dense-sparse") if self._precision == "int8" else ("dense-sparse",)
        return not self.ranges and any(
            path in ("dense_sparse_i8", "dense_i8") and choice.form.split()[0] in smoothed
            for choice in self.choices
            for _, path in choice.runs
        )

    def use_ranges(self, ranges: Mapping[str, Floats]) -> None:
        """Start again with measured ranges, which are kept for the next load; paths stay chosen."""
        self.ranges = {name: _short(values) for name, values in ranges.items()}
        self._measured = True
        self.choices = []

    @property
    def rounds(self) -> bool:
        """Does a layer compute with rounded activations? Then attention may as well."""
        return any(path in ROUNDED for choice in self.choices for _, path in choice.runs)

    def save(self) -> None:
        """Keep new measurements; where the folder cannot be written they are made again next time."""
        if self._file is None or not self._measured:
            return
        try:
            ranges = {name: values.astype(float).tolist() for name, values in self.ranges.items()}
            kept = {"machine": self._machine(), "microseconds": self._known, "ranges": ranges}
            write_json(self._file, kept)
        except OSError:
            return

    def _times(
        self,
        form: str,
        candidates: list[Path],
        factors: Factors,
        packed: dict[str, Any],
        bias: Floats | None,
        inputs: Inputs,
    ) -> Times:
        known = self._known.get(form)
        if known is None or not known or not set(known) <= {path.name for path in candidates}:
            for path in candidates:
                packed[path.name] = path.pack(self._level, bias)
            known = measure(form, candidates, packed, factors.dense(), bias, inputs)
            self._known[form] = known
            self._measured = True
        return known

    def _machine(self) -> dict[str, Any]:
        return {
            "leanmatch": __version__,
            "cpu": cpu_name(),
            "level": self._level,
            "precision": self._precision,
            "cores": os.cpu_count(),
        }


def measure(
    form: str,
    candidates: list[Path],
    packed: Mapping[str, Any],
    weight: Floats,
    bias: Floats | None,
    inputs: Inputs = UNKNOWN,
) -> Times:
    """Time every correct path at :data:`TOKENS`.

    Raises:
        ModelError: none is correct.
    """
    time_layer = native.load().time_layer
    rng = np.random.default_rng(0)
    x = rng.standard_normal((max(TOKENS) + 1, weight.shape[1])).astype(np.float32)
    if inputs.ranges is not None:  # four standard deviations
        x *= inputs.ranges / 4
    if inputs.zero < 128:  # mostly positive
        x = np.maximum(x, -x.max() * np.float32(inputs.zero / 255))
    expected = x @ weight.T
    y = np.empty(expected.shape, dtype=np.float32)
    times: Times = {}
    errors = {}
    for path in candidates:
        packed[path.name].run(x if path.input_factor is None else x * path.input_factor, y, "none", None)
        found = y if bias is None else y - bias
        errors[path.name] = float(np.linalg.norm(found - expected)) / max(
            float(np.linalg.norm(expected)), 1e-30
        )
        if errors[path.name] <= path.tolerance:
            layer = packed[path.name]
            times[path.name] = [1e6 * time_layer(layer, tokens, _SECONDS) / tokens for tokens in TOKENS]
    if not times:
        raise ModelError(
            f"no path runs a layer of the form {form} correctly: relative errors {errors}",
            remedy="load it with weights='float32', and report this",
        )
    return times


def choose(times: Times) -> tuple[tuple[int, str], ...]:
    """The path from each number of tokens on.

    >>> choose({"a": [1.0, 1.0, 3.0], "b": [2.0, 1.1, 1.0]})
    ((0, 'a'), (10, 'b'))
    """
    main = min(times, key=lambda name: times[name][-1])
    runs: list[tuple[int, str]] = []
    for at, start in enumerate(FROM):
        best = min(times, key=lambda name: times[name][at])
        path = best if times[main][at] > WORTH * times[best][at] else main
        if not runs or runs[-1][1] != path:
            runs.append((start, path))
    return tuple(runs)


def choices_file(
    folder: FilePath, precision: str = "stored", writable: Callable[[FilePath], bool] | None = None
) -> FilePath:
    """Where measurements at a precision are kept: beside a compressed model, else in the user's cache.

    A stock model's folder may be a package's or the hub's, so nothing is written there.
    """
    can_write = writable or (lambda place: os.access(place, os.W_OK))
    file = FilePath(FILE_NAME)
    name = file.name if precision == "stored" else f"{file.stem}-{precision}{file.suffix}"
    if (folder / "leanmatch.json").is_file() and can_write(folder):
        return folder / name
    cache = FilePath(os.environ.get("XDG_CACHE_HOME") or FilePath.home() / ".cache")
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return cache / "leanmatch" / f"{key}-{name}"


def cpu_name() -> str:
    """The CPU's name where Linux tells it, else the architecture."""
    file = FilePath("/proc/cpuinfo")
    if file.is_file():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def _short(values: Floats) -> Floats:
    """With three digits, which is enough to sort by and keeps the file small."""
    rounded = np.array([float(f"{one:.3g}") for one in values.ravel().tolist()], np.float32)
    return rounded.reshape(values.shape)


def _read(file: FilePath | None, machine: dict[str, Any]) -> tuple[dict[str, Times], dict[str, Floats]]:
    """Kept measurements of this machine; anything else counts as none and is measured again."""
    if file is None or not file.is_file():
        return {}, {}
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["machine"] != machine:
            return {}, {}
        times = {
            str(form): {str(path): [float(one) for one in row] for path, row in times.items()}
            for form, times in kept["microseconds"].items()
            if all(len(row) == len(TOKENS) for row in times.values())
        }
        ranges = {
            str(name): np.array([[float(one) for one in row] for row in ends], np.float32)
            for name, ends in kept["ranges"].items()
        }
        if not all(ends.ndim == 2 and len(ends) == 2 and np.isfinite(ends).all() for ends in ranges.values()):
            return {}, {}
        return times, ranges
    except (OSError, ValueError, TypeError, KeyError, AttributeError, LeanmatchError):
        return {}, {}
