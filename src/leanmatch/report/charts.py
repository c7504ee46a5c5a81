"""Where things stand in the page's charts: numbers to percent of a row's width, and their axes.

Charts are rows of HTML with an SVG each whose coordinates are percentages: they fit any width, follow the
page's colours, print, and stay text for those who cannot see them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from leanmatch.interventions.words.drift import PartDrift, WordDrift
from leanmatch.metrics import Evaluation

MARGIN = 0.04
"""Share of the width that stays free on each side."""


@dataclass(frozen=True)
class Axis:
    """A scale from ``low`` to ``high`` with round ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Iterable[float], *, wanted: int = 5) -> Axis:
        """An axis that holds all values and 0, with about so many ticks.

        >>> Axis.over([0.03, 0.19]).ticks
        (0.0, 0.05, 0.1, 0.15, 0.2)
        """
        bounds = [0.0, *values]
        low, high = min(bounds), max(bounds)
        step = _round_step((high - low or 1.0) / max(1, wanted - 1))
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        last = max(last, first + 1)
        return cls(first * step, last * step, tuple(round(i * step, 10) for i in range(first, last + 1)))

    def at(self, value: float) -> str:
        """The place of a value, as a CSS percentage."""
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * (MARGIN + (1 - 2 * MARGIN) * share):.2f}%"

    def drawn_ticks(self) -> list[dict[str, str]]:
        """Ticks with their place and label."""
        return [{"at": self.at(tick), "label": f"{tick:g}".replace("-", "\u2212")} for tick in self.ticks]


def word_chart(gained: list[WordDrift], lost: list[WordDrift]) -> dict[str, Any]:
    """Rows of the drift chart: importance under both models, and the interval of the change."""
    words = [*gained, *lost]
    axis = Axis.over(
        x
        for drift in words
        for x in (drift.base, drift.model, drift.base + drift.low, drift.base + drift.high)
    )

    def row(drift: WordDrift) -> dict[str, Any]:
        fields: dict[str, Any] = drift.to_json()
        return fields | {
            "base_at": axis.at(drift.base),
            "model_at": axis.at(drift.model),
            "low_at": axis.at(drift.base + drift.low),
            "high_at": axis.at(drift.base + drift.high),
        }

    return {
        "ticks": axis.drawn_ticks(),
        "zero": axis.at(0.0),
        "gained": [row(drift) for drift in gained],
        "lost": [row(drift) for drift in lost],
    }


def concentration_chart(parts: dict[str, PartDrift]) -> dict[str, Any]:
    """Rows of the concentration chart: share of the score that the top word carries, by slice."""
    measured = {
        name: part
        for name, part in parts.items()
        if part.base.value is not None and part.model.value is not None
    }
    ends = [
        x for part in measured.values() for share in (part.base, part.model) for x in share if x is not None
    ]
    axis = Axis.over(ends)
    rows = []
    for name, part in measured.items():
        marks = {}
        for key, share in (("base", part.base), ("model", part.model)):
            assert share.value is not None and share.low is not None and share.high is not None
            marks[key] = {"at": axis.at(share.value), "low": axis.at(share.low), "high": axis.at(share.high)}
        rows.append({"name": name, "part": part, **marks})
    return {"ticks": axis.drawn_ticks(), "rows": rows}


def slice_rows(evaluation: Evaluation, metric: str) -> dict[str, Any]:
    """Rows of the slice table for one metric, with the difference on a common axis.

    A slice of the same rows as an earlier one is named beside it.
    """
    results = {
        name: part.metrics[metric]
        for name, part in evaluation.slices.items()
        if metric in part.metrics and part.same_as is None
    }
    ends = [
        x
        for result in results.values()
        for x in (result.difference_low, result.difference_high)
        if x is not None
    ]
    axis = Axis.over((100 * x for x in ends), wanted=4)
    rows = []
    for name, result in results.items():
        part = evaluation.slices[name]
        row: dict[str, Any] = {
            "name": name,
            "kind": part.kind,
            "twins": [other.name for other in evaluation.slices.values() if other.same_as == name],
            "queries": part.n_queries or part.n_pairs,
            "result": result,
        }
        if (
            result.difference is not None
            and result.difference_low is not None
            and result.difference_high is not None
        ):
            row |= {
                "at": axis.at(100 * result.difference),
                "low": axis.at(100 * result.difference_low),
                "high": axis.at(100 * result.difference_high),
            }
        rows.append(row)
    return {"metric": metric, "rows": rows, "zero": axis.at(0.0), "ticks": axis.drawn_ticks()}


def number(value: float | None, digits: int = 3, *, sign: bool = False) -> str:
    """A number as the page writes it: a real minus sign, no sign for zero, a dash for nothing.

    >>> number(-0.25, sign=True), number(0.5, 1), number(-0.0001), number(None)
    ('\u22120.250', '0.5', '0.000', '\u2013')
    """
    if value is None:
        return "\u2013"
    text = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(text) == 0:
        text = text.lstrip("+-")
    return text.replace("-", "\u2212")


def _round_step(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * (1 - 1e-9))
