"""Measured time of linear layers on this machine, in any form that a specification can give them.

The path that runs is the one that :class:`leanmatch.runtime.kernels.choice.Chooser` takes at load. Times of a
form are taken in turns with those of dense int8 of the same shape, round after round; the median of the
*ratio* counts, so that a change of the clock rate or a busy neighbour touches both sides. Ratios are kept in
the user's cache; what dense int8 takes is measured anew by every process.

One thread runs: with several, a neighbour on one core decides the time of all.
"""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from leanmatch import __version__, cpus, native
from leanmatch.compression.layer_specs import LayerSpec, RoundingSpec
from leanmatch.errors import UsageError
from leanmatch.files import user_cache, write_json
from leanmatch.runtime.build import stack
from leanmatch.runtime.kernels.choice import Chooser
from leanmatch.runtime.kernels.paths import HEAD_BLOCKS, Inputs, best_level
from leanmatch.runtime.kernels.random_factors import random_factors

ROUNDS, MOST_ROUNDS = 7, 28
"""Rounds of a measurement, and at most so many where they differ."""
STEADY = 0.05
"""Spread of the ratios (quartiles over median) at which a measurement needs no more rounds."""
NOISY = 0.15
"""Median spread from which times are marked as noisy."""
TOO_NOISY = 0.5
"""Median spread from which nothing is planned by time."""
FREE = ("weighting", "compensate")
"""Options of a specification that change no time."""
DENSE_INT8 = RoundingSpec(bits=8)
_SECONDS = 0.0006  # of one measurement; the best of its calls counts

TimeLayer = Callable[[Any, int, float], float]
"""Packed layer, tokens and seconds to measure for, to the seconds of one call."""


@dataclass(frozen=True)
class Form:
    """Linear layers that read the same input and are compressed alike.

    Attributes:
        shapes: ``(m, n)`` of each layer.
        spec: how they are compressed.
    """

    shapes: tuple[tuple[int, int], ...]
    spec: LayerSpec

    @property
    def key(self) -> str:
        """A name for the cache."""
        sizes = "+".join(f"{m}x{n}" for m, n in self.shapes)
        options = {name: value for name, value in self.spec.to_json().items() if name not in FREE}
        return f"{sizes} {json.dumps(options, sort_keys=True)}"

    @property
    def dense(self) -> Form:
        """The same layers in dense int8."""
        return Form(self.shapes, DENSE_INT8)


class KernelClock:
    """Times forms, each once.

    Args:
        tokens: of a call; the encoder runs layers on tiles of at most ``TILE_TOKENS`` of the extension.
        folder: where ratios are kept; None keeps nothing.
        time_layer: the stopwatch; the native module's, unless a test has its own.
    """

    def __init__(
        self, tokens: int, *, folder: Path | None = None, time_layer: TimeLayer | None = None
    ) -> None:
        self.tokens, self.level = tokens, best_level()
        self._time_layer: TimeLayer = time_layer or native.load().time_layer
        self._file = None if folder is None else folder / f"{machine_key()[:24]}-{tokens}.json"
        self._ratios = _read(self._file)
        self._dense: dict[tuple[tuple[int, int], ...], float] = {}
        self.spread = 0.0

    @property
    def noisy(self) -> bool:
        """Whether this process measured under so much load that its times are rough."""
        return self.spread > NOISY

    def seconds(self, form: Form) -> float:
        """Of one call on :attr:`tokens` tokens."""
        self.measure([form])
        return self._dense[form.shapes] * self._ratios[form.key][0]

    def measure(self, forms: Iterable[Form]) -> None:
        """Time whatever is not known yet.

        Raises:
            UsageError: the machine is too busy for it.
        """
        wanted: dict[tuple[tuple[int, int], ...], list[Form]] = {}
        for form in dict.fromkeys(forms):
            missing = wanted.setdefault(form.shapes, [])
            if form.key not in self._ratios and form.spec != DENSE_INT8:
                missing.append(form)
        spreads = [
            spread
            for shapes, missing in wanted.items()
            if missing or shapes not in self._dense
            for spread in self._measure_shape(shapes, missing)
        ]
        if not spreads:
            return
        self.spread = max(self.spread, statistics.median(spreads))
        if self.spread > TOO_NOISY:
            raise UsageError(
                f"this machine is too busy to time its kernels: repeated measurements differ by "
                f"{self.spread:.0%}",
                remedy="stop what else runs, or ask for multiply-adds or bytes in place of time",
                command="stop what else runs, or use --macs or --size in place of --faster",
            )
        self._keep()

    def _measure_shape(self, shapes: tuple[tuple[int, int], ...], forms: list[Form]) -> list[float]:
        """Dense int8 and the forms in turns; the spread of each."""
        dense = self._pack(Form(shapes, DENSE_INT8))
        layers = [self._pack(form) for form in forms]
        times: list[list[float]] = []
        while len(times) < MOST_ROUNDS:
            times.append([self._call(packed) for packed in (dense, *layers)])
            if len(times) >= ROUNDS and all(_spread(column) <= STEADY for column in _ratios(times)):
                break
        self._dense[shapes] = statistics.median(row[0] for row in times)
        self._ratios[Form(shapes, DENSE_INT8).key] = [1.0, 0.0]
        columns = _ratios(times)
        for form, column in zip(forms, columns, strict=True):
            self._ratios[form.key] = [statistics.median(column), _spread(column)]
        return [_spread(column) for column in columns] or [_spread([row[0] for row in times])]

    def _pack(self, form: Form) -> list[Any]:
        return pack_form(form, self.level)

    def _call(self, packed: Sequence[Any]) -> float:
        return sum(self._time_layer(layer, self.tokens, _SECONDS) for layer in packed)

    def _keep(self) -> None:
        if self._file is None:
            return
        try:
            steady = {key: value for key, value in self._ratios.items() if value[1] <= NOISY}
            write_json(self._file, {"version": __version__, "ratios": steady})
        except OSError:  # measured anew next time
            return


def pack_form(form: Form, level: str) -> list[Any]:
    """The packed layers that a load would make of random weights in that form."""
    parts = [random_factors(form.spec, m, n) for m, n in form.shapes]  # members of a stack: equal atoms
    stacked = stack(parts) if len(parts) > 1 else None
    parts = parts if stacked is None else [stacked]
    packed = []
    for part in parts:
        ((_, layer, _),) = Chooser("stored", level)("layer", part, None, typical_inputs(part.shape[1]))
        packed.append(layer)
    return packed


def typical_inputs(n: int) -> Inputs:
    """Measured inputs with a few scattered outliers, as behind a LayerNorm: the dearer case."""
    ranges = np.ones(n, np.float32)
    outliers = max(1, n // (16 * HEAD_BLOCKS))
    ranges[np.arange(outliers) * (n // outliers) + n // (2 * outliers)] = 4.0
    return Inputs(ranges, measured=True, middle=np.zeros(n, np.float32))


@cache
def machine_key() -> str:
    """A hash of what decides the times: CPU, instruction-set level, leanmatch's version and its kernels."""
    module = native.load()
    kernels = Path(str(module.__file__)).stat()
    parts = (cpus.cpu_name(), best_level(), __version__, kernels.st_size, kernels.st_mtime_ns)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def kernel_cache() -> Path | None:
    """The folder for ratios; None for a user without a home."""
    cached = user_cache()
    return None if cached is None else cached / "kernels"


def _ratios(times: Sequence[Sequence[float]]) -> list[list[float]]:
    """Rows of times, dense first, to a column of ratios for each form."""
    return [[row[at] / row[0] for row in times] for at in range(1, len(times[0]))]


def _spread(values: Sequence[float]) -> float:
    """Distance of the quartiles over the median; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle if middle else 0.0


def _read(file: Path | None) -> dict[str, list[float]]:
    """Ratios in a file; none where it is missing, damaged or of another version."""
    if file is None:
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["version"] != __version__:
            return {}
        ratios = {
            str(key): [float(ratio), float(spread)] for key, (ratio, spread) in content["ratios"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return ratios if all(0 < ratio < 1e3 for ratio, _ in ratios.values()) else {}
