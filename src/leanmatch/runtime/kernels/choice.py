"""Packs each linear layer of a model by the path that :mod:`leanmatch.runtime.kernels.costs` ranks first.

The first layer of every form (kind, shape) is checked against numpy in float32; a path that gives wrong
numbers on this CPU is passed over, for all layers of that form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from leanmatch import native
from leanmatch.errors import ModelError
from leanmatch.factorization import Factors
from leanmatch.runtime.build import Layer
from leanmatch.runtime.kernels.costs import ranked
from leanmatch.runtime.kernels.paths import UNKNOWN, Inputs, Path, describe, paths, prepared
from leanmatch.runtime.weights import Floats

TOKENS = (4, 16, 64)
"""Numbers of tokens at which paths are timed, on request."""

ROUNDED = ("dense_bf16", "dense_i8", "dense_sparse_i8")
"""Paths whose activations are rounded to bfloat16 or to 8 bits."""

_CHECKED_TOKENS = 65
_SECONDS = 0.0006  # at each of TOKENS, for each path

Times: TypeAlias = dict[str, list[float]]
"""Path name to microseconds a token at :data:`TOKENS`."""


@dataclass(frozen=True)
class LayerChoice:
    """What runs one linear layer.

    Attributes:
        name: the layer.
        form: its weight in words (:func:`leanmatch.runtime.kernels.paths.describe`).
        path: the path that runs, for any number of tokens.
        level: instruction-set level of the kernels that run.
        bytes: of the packed weights.
        microseconds: path to microseconds a token at :data:`TOKENS`; empty unless they were asked for.
    """

    name: str
    form: str
    path: str
    level: str
    bytes: int
    microseconds: Mapping[str, list[float]]


class Chooser:
    """Packs linear layers; an instance is a ``PackLayer`` of the builder.

    Args:
        precision: a key of :data:`leanmatch.runtime.kernels.paths.PRECISIONS`.
        level: instruction-set level.
        ranges: measured least and largest values of the layers' inputs; empty: not measured yet.
        timed: time every path of every form too, to be shown; the choice does not depend on it.
    """

    def __init__(
        self, precision: str, level: str, ranges: Mapping[str, Floats] | None = None, *, timed: bool = False
    ) -> None:
        self._precision = precision
        self._level = level
        self._timed = timed
        self._path_of: dict[str, str] = {}
        self._times_of: dict[str, Times] = {}
        self.ranges: Mapping[str, Floats] = ranges or {}
        self.choices: list[LayerChoice] = []

    def __call__(self, name: str, factors: Factors, bias: Floats | None, inputs: Inputs = UNKNOWN) -> Layer:
        """Pack one layer; ``inputs`` as in :func:`leanmatch.runtime.kernels.paths.paths`.

        Raises:
            ModelError: no path gives the right numbers.
        """
        factors = prepared(factors, self._precision)
        form = describe(factors)
        if form not in self._path_of:
            self._path_of[form] = self._correct_path(form, factors)
        candidates = paths(factors, self._precision, self._level, inputs)
        path = next(path for path in candidates if path.name == self._path_of[form])
        layer = path.pack(self._level, bias)
        self.choices.append(
            LayerChoice(name, form, path.name, layer.level, layer.bytes, self._times_of.get(form, {}))
        )
        return [(0, layer, path.input_factor)]

    @property
    def wants_ranges(self) -> bool:
        """Whether some layer would round better with measured input ranges that are not known yet."""
        smoothed = ("dense", "dense-sparse") if self._precision == "int8" else ("dense-sparse",)
        return not self.ranges and any(
            choice.path in ("dense_sparse_i8", "dense_i8") and choice.form.split()[0] in smoothed
            for choice in self.choices
        )

    def use_ranges(self, ranges: Mapping[str, Floats]) -> None:
        """Start again with measured ranges; paths stay chosen."""
        self.ranges = ranges
        self.choices = []

    @property
    def rounds(self) -> bool:
        """Does a layer compute with rounded activations? Then attention may as well."""
        return any(choice.path in ROUNDED for choice in self.choices)

    def _correct_path(self, form: str, factors: Factors) -> str:
        """The first path, by rank, that computes the right numbers; a single path is taken unchecked.

        Input ranges must not affect the choice: they are a guess at the first load and measured later.
        """
        candidates = ranked(paths(factors, self._precision, self._level), self._level)
        if self._timed:
            self._times_of[form] = _times(candidates, self._level)
        if len(candidates) == 1:
            return candidates[0].name
        x = np.random.default_rng(0).standard_normal((_CHECKED_TOKENS, factors.shape[1])).astype(np.float32)
        expected = x @ factors.dense().T
        size = max(float(np.linalg.norm(expected)), 1e-30)
        errors: dict[str, float] = {}
        for path in candidates:
            y = np.empty(expected.shape, dtype=np.float32)
            path.pack(self._level, None).run(x, y, "none", None)
            errors[path.name] = float(np.linalg.norm(y - expected)) / size
            if errors[path.name] <= path.tolerance:
                return path.name
        raise ModelError(
            f"no path runs a layer of the form {form} correctly: relative errors {errors}",
            remedy="load it with precision='float32', and report this",
        )


def _times(candidates: list[Path], level: str) -> Times:
    """Microseconds a token of every path at :data:`TOKENS`, on one thread."""
    time_layer = native.load().time_layer
    times: Times = {}
    for path in candidates:
        layer = path.pack(level, None)
        times[path.name] = [1e6 * time_layer(layer, tokens, _SECONDS) / tokens for tokens in TOKENS]
    return times
