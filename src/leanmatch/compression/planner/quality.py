"""The share of the dense model's metric that a compressed model keeps, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

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
            ``high`` and ``queries``, all by ranks alone.
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

    @property
    def estimate(self) -> Estimate:
        """The share that is kept, by the narrower of the two intervals: ranks alone, or with agreement."""
        ranks = Estimate(self.kept, self.low, self.high)
        if self.evidence is None:
            return ranks
        both = Estimate(*(float(self.evidence[name]) for name in ("kept", "low", "high")))
        return both if both.high - both.low < ranks.high - ranks.low else ranks

    def verdict(self, keep: float) -> str:
        """``shown``: all of the interval is at least ``keep``; ``missed``: none of it; else ``not shown``."""
        _, low, high = self.estimate
        return SHOWN if low >= keep else MISSED if high < keep else OPEN

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

        None where they are more than a million.
        """
        gap = abs(self.estimate.kept - keep)
        half = (self.high - self.low) / 2
        needed = self.queries * (half / gap) ** 2 if gap else math.inf
        return math.ceil(needed) if needed <= MOST_QUERIES else None

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    def sentence(self) -> str:
        """For people."""
        ranks = (
            f"{self.metric} {self.compressed:.4f} of {self.dense:.4f} on {self.queries:,} held-out queries, "
            f"{self.kept:.1%} kept (95% interval {self.low:.1%} to {self.high:.1%})"
        )
        if self.evidence is None or self.estimate.kept == self.kept:
            return ranks
        kept, low, high = self.estimate
        texts = self.evidence["texts"]
        return f"{ranks}; with agreement on {texts:,} texts {kept:.1%} ({low:.1%} to {high:.1%})"

    def verdict_sentence(self, keep: float) -> str:
        """What was asked for and what the evidence says.

        >>> Quality("MRR@10", 0.5, 0.49, 0.98, 0.95, 1.01, 131).verdict_sentence(0.99)
        '99.0% asked for: not shown (95.0% to 101.0%); about 1,179 queries would decide'
        """
        _, low, high = self.estimate
        verdict = self.verdict(keep)
        if verdict == SHOWN:
            return f"{keep:.1%} asked for: shown, the interval begins at {low:.1%}"
        if verdict == MISSED:
            return f"{keep:.1%} asked for: missed, the interval ends at {high:.1%}"
        needed = self.queries_to_decide(keep)
        more = "more than a million" if needed is None else f"about {needed:,}"
        return f"{keep:.1%} asked for: not shown ({low:.1%} to {high:.1%}); {more} queries would decide"


def compare(
    metric: str,
    dense: NDArray[np.float64],
    compressed: NDArray[np.float64],
    evidence: Mapping[str, Any] | None = None,
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
) -> Quality:
    """Quality from the scores of each query, in the same order.

    Args:
        slices: name to the queries that belong to it; each is compared on its own, too.

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
        ratios, kept, confidence=0.95, influence=influence if np.isfinite(influence).all() else None
    )
    parts = []
    for name, queries in (slices or {}).items():
        if dense[queries].any():  # else there is nothing to keep
            part = compare(metric, dense[queries], compressed[queries]).to_json()
            parts.append({"slice": name, **{key: part[key] for key in SLICE_FIELDS}})
    return Quality(metric, before, after, kept, low, high, len(dense), evidence, parts)
