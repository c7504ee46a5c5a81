"""What an evaluation found."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from leanmatch.metrics.bootstrap import Interval
from leanmatch.metrics.names import MAIN_METRICS
from leanmatch.types import JsonValue

BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no difference seen"


@dataclass(frozen=True)
class MetricResult:
    """One metric on one slice; values are shares in 0..1, differences are model less base.

    Args:
        metric: its name.
        value, low, high: the model's value and the interval of it.
        base: the other model's value; None, as all that follows, where there is no other model.
        difference, difference_low, difference_high: model less base and its paired interval.
        verdict: ``"better"`` or ``"worse"`` where the interval lies on one side of 0, else
            ``"no difference seen"``.
        sentence: the same in words, in points (hundredths).
    """

    metric: str
    value: float
    low: float
    high: float
    base: float | None = None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    verdict: str | None = None
    sentence: str | None = None


@dataclass(frozen=True)
class SliceResult:
    """The metrics of one slice.

    ``kind``: overall, in distribution, out of distribution or column value. ``n_rows``: rows of the table.
    ``n_queries``, ``n_candidates``: of retrieval, 0 where there was none. ``n_pairs``: labelled pairs that
    were scored, 0 where there was no label 0. ``same_as``: an earlier slice of exactly the same rows.
    """

    name: str
    kind: str
    n_rows: int
    n_queries: int
    n_candidates: int
    n_pairs: int
    metrics: dict[str, MetricResult]
    same_as: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """All slices of one evaluation, by name, overall first.

    ``split``: which rows were used, in words. ``candidates``: what queries were searched among, and why.
    ``notes``: what a reader should know. ``options``: as they were given.
    """

    name: str
    against: str | None
    source: str
    split: str
    symmetric: bool
    candidates: str
    confidence: float
    slices: dict[str, SliceResult]
    notes: tuple[str, ...]
    options: dict[str, JsonValue]

    def verdicts(self) -> list[str]:
        """A plain sentence for each slice and main metric; none where there was no other model.

        A slice of the same rows as an earlier one has none of its own.
        """
        return [
            f"{part.name}: {part.metrics[metric].sentence}"
            for part in self.slices.values()
            for metric in MAIN_METRICS
            if part.same_as is None and metric in part.metrics and part.metrics[metric].sentence is not None
        ]

    def to_json(self) -> JsonValue:
        """As a JSON object: shares in 0..1, null where there is no value."""
        return asdict(self) | {"notes": list(self.notes), "slices": [asdict(s) for s in self.slices.values()]}


def judge(difference: Interval) -> str:
    """Better, worse or no difference seen, by the side of 0 on which the interval lies."""
    if difference.low > 0:
        return BETTER
    return WORSE if difference.high < 0 else NO_DIFFERENCE


def verdict_sentence(
    metric: str,
    difference: float,
    bounds: Interval,
    *,
    name: str,
    against: str,
    confidence: float,
    units: str,
) -> str:
    """A verdict in words.

    >>> verdict_sentence("MRR@10", 0.012, Interval(0.004, 0.02), name="model", against="base",
    ...                  confidence=0.95, units="900 queries")
    'model is better than base by 1.2 points of MRR@10 (95% interval 0.4 to 2.0; 900 queries)'
    """
    verdict = judge(bounds)
    percent = f"{100 * confidence:g}% interval"
    low, high = bounds
    if verdict == NO_DIFFERENCE:
        return (
            f"no difference seen between {name} and {against} in {metric} "
            f"({_points(difference, signed=True)} points, {percent} {_points(low, signed=True)} to "
            f"{_points(high, signed=True)}; {units})"
        )
    if verdict == WORSE:
        difference, low, high = -difference, -high, -low
    return (
        f"{name} is {verdict} than {against} by {_points(difference)} points of {metric} "
        f"({percent} {_points(low)} to {_points(high)}; {units})"
    )


def _points(share: float, *, signed: bool = False) -> str:
    points = 100 * share
    digits = 1 if abs(points) >= 0.05 or points == 0 else 2
    return f"{points:+.{digits}f}" if signed else f"{points:.{digits}f}"
