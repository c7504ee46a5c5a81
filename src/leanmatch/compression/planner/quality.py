"""The share of the dense model's metric that a compressed model keeps, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from leanmatch.compression.planner.evidence import CONFIDENCE, confidence_of_each
from leanmatch.metrics.bootstrap import interval, ratio_influence, resampled_ratios

RESAMPLES = 2000
MOST_QUERIES = 1_000_000
SLICE_FIELDS = ("dense", "compressed", "kept", "low", "high", "queries")
SHOWN, OPEN, MISSED = "shown", "not shown", "missed"


class Estimate(NamedTuple):
    """A share that is kept, with its 95% interval."""

    kept: float
    low: float
    high: float


@dataclass(frozen=True)
class Quality:
    """A metric before and after.

    Attributes:
        metric: its name.
        dense: mean over the held-out queries of the dense model.
        compressed: of the compressed one.
        kept: ``compressed / dense``.
        low, high: 95% interval of ``kept`` (:mod:`leanmatch.metrics.bootstrap`, paired by query).
        queries: how many.
        evidence: agreement with the dense model and what it says of the share that is kept
            (:mod:`leanmatch.compression.planner.evidence`); None where it was not measured.
        slices: of parts of the queries ``slice`` (its name), ``dense``, ``compressed``, ``kept``, ``low``,
            ``high`` and ``queries``. The interval is the narrower of the two, as in :attr:`estimate`; the
            intervals of all slices hold at once with 95%.
        candidates: how many texts each query was searched among; None where nothing was.
    """

    metric: str
    dense: float
    compressed: float
    kept: float
    low: float
    high: float
    queries: int
    evidence: Mapping[str, Any] | None = None
    slices: Sequence[Mapping[str, Any]] = field(default_factory=list)
    candidates: int | None = None

    @classmethod
    def within(cls, record: Mapping[str, Any]) -> Self:
        """The quality whose values stand among others in a record.

        Raises:
            TypeError: one that has no default is missing.
        """
        return cls(**{item.name: record[item.name] for item in fields(cls) if item.name in record})

    @property
    def estimate(self) -> Estimate:
        """The share that is kept, by the narrower of the two intervals: ranks alone, or with agreement."""
        ranks = Estimate(self.kept, self.low, self.high)
        if self.evidence is None:
            return ranks
        both = Estimate(*(float(self.evidence[name]) for name in ("kept", "low", "high")))
        return both if both.high - both.low < ranks.high - ranks.low else ranks

    @property
    def worst_slice(self) -> Mapping[str, Any] | None:
        """The slice that is shown to keep least, if one is shown to keep less than all queries together."""
        hard = [part for part in self.slices if part["high"] < self.estimate.kept]
        return min(hard, key=lambda part: float(part["high"]), default=None)

    @property
    def ceiling(self) -> float:
        """The least upper end of a slice's interval; infinite without slices."""
        return min((float(part["high"]) for part in self.slices), default=math.inf)

    @property
    def reaches(self) -> float:
        """The largest ``keep`` that counts as reached: the estimate, unless a slice is shown to keep less."""
        return min(self.estimate.kept, self.ceiling)

    def nearer(self, other: Quality) -> bool:
        """Whether agreement puts this model nearer to the dense one than ``other``, and ranks don't show that
        it keeps less. False where either has no measured agreement.
        """
        if self.evidence is None or other.evidence is None:
            return False
        shown_worse = min(self.high, self.ceiling) < other.low
        return float(self.evidence["moved"]) < float(other.evidence["moved"]) and not shown_worse

    def verdict(self, keep: float) -> str:
        """What is known of all queries and of each slice.

        ``shown``: all intervals lie at or above ``keep``; ``missed``: one lies below; else ``not shown``.
        """
        _, low, high = self.estimate
        if min(high, self.ceiling) < keep:
            return MISSED
        return SHOWN if min([low, *(part["low"] for part in self.slices)]) >= keep else OPEN

    def below(self, keep: float | None) -> list[Mapping[str, Any]]:
        """The slices whose whole interval lies below ``keep``; below all of the metric where it is None."""
        return [part for part in self.slices if part["high"] < (1.0 if keep is None else keep)]

    def slice_sentences(self, keep: float | None) -> list[str]:
        """One line a slice, and what to do where one is below what was asked for.

        >>> part = {"slice": "site=a", "kept": 0.97, "low": 0.96, "high": 0.985, "queries": 400}
        >>> quality = Quality("MRR@10", 0.5, 0.5, 1.0, 0.99, 1.01, 900, slices=[part])
        >>> quality.slice_sentences(0.99)[0]
        'site=a: 97.0% kept (96.0% to 98.5%) on 400 queries, below 99.0%'
        """
        below = self.below(keep)
        asked = "the dense model" if keep is None else f"{keep:.1%}"
        lines = [
            f"{part['slice']}: {part['kept']:.1%} kept ({part['low']:.1%} to {part['high']:.1%}) on "
            f"{part['queries']:,} queries{f', below {asked}' if part in below else ''}"
            for part in self.slices
        ]
        if below:
            names = ", ".join(str(part["slice"]) for part in below)
            lines.append(
                f"The figure of all queries hides that {names} keeps less. Remedy: ask for less speed or a "
                "larger folder, or give more training rows of that kind."
            )
        return lines

    def queries_to_decide(self, keep: float) -> int | None:
        """About how many held-out queries would decide on ``keep`` by ranks alone, were the estimate right.

        Two digits count. None where they are more than a million.
        """
        gap = abs(self.estimate.kept - keep)
        half = (self.high - self.low) / 2
        needed = self.queries * (half / gap) ** 2 if gap else math.inf
        return int(float(f"{needed:.2g}")) if needed <= MOST_QUERIES else None

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    def sentence(self) -> str:
        """For people."""
        among = "" if self.candidates is None else f" among {self.candidates:,} candidates"
        ranks = (
            f"{self.metric} {self.compressed:.4f} of {self.dense:.4f} on {self.queries:,} held-out queries"
            f"{among}, {self.kept:.1%} kept (95% interval {self.low:.1%} to {self.high:.1%})"
        )
        if self.evidence is None or self.estimate.kept == self.kept:
            return ranks
        kept, low, high = self.estimate
        texts = self.evidence["texts"]
        return f"{ranks}; with agreement on {texts:,} texts {kept:.1%} ({low:.1%} to {high:.1%})"

    def verdict_sentence(self, keep: float) -> str:
        """What was asked for and what the evidence says.

        >>> Quality("MRR@10", 0.5, 0.49, 0.98, 0.95, 1.01, 131).verdict_sentence(0.99)
        '99.0% asked for: not shown (95.0% to 101.0%); about 1,200 queries would decide'
        """
        _, low, high = self.estimate
        if high < keep:
            return f"{keep:.1%} asked for: missed, the interval ends at {high:.1%}"
        below = self.below(keep)
        if below:
            worst = min(below, key=lambda part: float(part["high"]))
            more = f" and {len(below) - 1} more" if len(below) > 1 else ""
            return (
                f"{keep:.1%} asked for: missed on {worst['slice']}{more}, whose interval ends at "
                f"{worst['high']:.1%}"
            )
        if low < keep:
            needed = self.queries_to_decide(keep)
            most = "more than a million" if needed is None else f"about {needed:,}"
            return f"{keep:.1%} asked for: not shown ({low:.1%} to {high:.1%}); {most} queries would decide"
        unsure = [str(part["slice"]) for part in self.slices if part["low"] < keep]
        if not unsure:
            return f"{keep:.1%} asked for: shown, the interval begins at {low:.1%}"
        names = ", ".join(unsure[:3]) + (f" and {len(unsure) - 3} more" if len(unsure) > 3 else "")
        return (
            f"{keep:.1%} asked for: not shown on {names}; shown on all queries together, the interval "
            f"begins at {low:.1%}"
        )


def compare(
    metric: str,
    dense: NDArray[np.float64],
    compressed: NDArray[np.float64],
    evidence: Mapping[str, Any] | None = None,
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
    *,
    candidates: int | None = None,
    confidence: float = CONFIDENCE,
) -> Quality:
    """Quality from the scores of each query, in the same order.

    Args:
        evidence: of :func:`leanmatch.compression.planner.evidence.gather`.
        slices: name to the queries that belong to it; each is compared on its own, too.
        candidates: how many texts each query was searched among.
        confidence: of the interval of all queries.

    >>> compare("MRR@10", np.array([1.0, 0.5]), np.array([0.5, 0.5])).kept
    0.6666666666666666
    """
    before, after = float(dense.mean()), float(compressed.mean())
    kept = after / before if before else 1.0
    pair = compressed[:, None].astype(np.float64), dense[:, None].astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):  # resamples where the dense model scores 0
        ratios = resampled_ratios(*pair, resamples=RESAMPLES, seed=0)[:, 0]
        influence = ratio_influence(*pair)[:, 0]
    low, high = interval(
        ratios, kept, confidence=confidence, influence=influence if np.isfinite(influence).all() else None
    )
    known = {} if evidence is None else dict(evidence)
    agreed = known.pop("slices", {})
    parts = []
    for name, queries in (slices or {}).items():
        if dense[queries].any():  # else there is nothing to keep
            own = compare(
                metric,
                dense[queries],
                compressed[queries],
                agreed.get(name),
                confidence=confidence_of_each(len(slices or {})),
            )
            part = own.to_json() | own.estimate._asdict()
            parts.append({"slice": name, **{key: part[key] for key in SLICE_FIELDS}})
    return Quality(metric, before, after, kept, low, high, len(dense), known or None, parts, candidates)
