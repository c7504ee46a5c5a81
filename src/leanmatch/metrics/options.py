"""What to evaluate and how: one frozen dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from leanmatch.data.splitting.options import parse_hold_out
from leanmatch.data.timestamps import parse_timestamp
from leanmatch.errors import UsageError
from leanmatch.metrics.bootstrap import check_bootstrap
from leanmatch.metrics.names import DEFAULT_METRICS, split_metrics
from leanmatch.metrics.ranking.propensity import PROPENSITY_CONSTANTS

SPLIT_CHOICES = ("auto", "all", "train", "valid", "test")


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of :func:`leanmatch.metrics.evaluate`.

    Args:
        slices: columns; each of their values becomes a slice.
        hold_out: ``"column=value"``; rows that match any of them are out of distribution, the others in.
        after: a date; rows with this ``timestamp`` or a later one are out of distribution too.
        split: rows to use: ``"auto"`` is test where the data has a ``split`` column and all rows else.
        metrics: names; see :mod:`leanmatch.metrics.names`.
        symmetric: whether both sides of a pair are of one kind, so that each text is a candidate for every
            other; ``"auto"`` decides by :func:`leanmatch.metrics.ranking.candidates.decide_symmetric`.
        confidence: of the intervals.
        resamples: bootstrap resamples.
        seed: of the bootstrap.
        propensity: ``(A, B)`` of PSP; (0.55, 1.5) by default, (0.6, 2.6) is usual for Amazon data.

    Raises:
        UsageError: a value that is out of range or not among the choices.
    """

    slices: tuple[str, ...] = ()
    hold_out: tuple[str, ...] = ()
    after: str | None = None
    split: str = "auto"
    metrics: tuple[str, ...] = DEFAULT_METRICS
    symmetric: bool | Literal["auto"] = "auto"
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0
    propensity: tuple[float, float] = PROPENSITY_CONSTANTS["default"]

    def __post_init__(self) -> None:
        split_metrics(self.metrics)
        if not self.metrics:
            raise UsageError("no metric is asked for", remedy=f"for example {', '.join(DEFAULT_METRICS[:3])}")
        check_bootstrap(self.confidence, self.resamples)
        parse_hold_out(self.hold_out)
        _check_date(self.after)
        if self.split not in SPLIT_CHOICES:
            raise UsageError(
                f"there is no split {self.split!r}", remedy=f"one of: {', '.join(SPLIT_CHOICES)}"
            )
        if self.symmetric not in (True, False, "auto"):
            raise UsageError(f"symmetric is {self.symmetric!r}", remedy="one of: True, False, 'auto'")
        if not all(value > 0 for value in self.propensity):
            raise UsageError(f"propensity constants {self.propensity}", remedy="A and B must be above 0")


def _check_date(after: str | None) -> None:
    if after is None:
        return
    try:
        parse_timestamp(after)
    except ValueError as error:
        raise UsageError(
            f"after is {after!r}: {error}", remedy="an ISO 8601 date such as 2021-06-01"
        ) from None
