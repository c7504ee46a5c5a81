"""Metric names: how they are written, which kind each is, what it needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from leanmatch.errors import UsageError

RETRIEVAL_FAMILIES = {
    "nDCG": "normalized discounted cumulative gain of the first k",
    "MRR": "mean reciprocal rank of the first relevant item, 0 beyond rank k",
    "P": "share of relevant items among the first k",
    "Recall": "share of a query's relevant items that are among the first k",
    "PSP": "propensity-scored precision of the first k, normalized by the best attainable",
}
"""Retrieval metrics; each is written ``family@k``."""

PAIR_METRICS = {
    "AUC": "area under the ROC curve",
    "AUC@0.05": "area under the ROC curve up to a false positive rate of 0.05, McClish-standardized",
    "AP": "average precision",
}
"""Metrics of labelled pairs."""

DEFAULT_METRICS = (
    *("nDCG@10", "MRR@10", "P@1", "P@3", "P@5", "Recall@10", "Recall@100", "PSP@1", "PSP@3", "PSP@5"),
    *PAIR_METRICS,
)
MAIN_METRICS = ("MRR@10", "AUC")
"""The metrics that verdicts are given for, one of each kind."""


class RetrievalMetric(NamedTuple):
    """A retrieval metric: ``family@k``."""

    family: str
    k: int

    def __str__(self) -> str:
        return f"{self.family}@{self.k}"


def parse_retrieval_metric(name: str) -> RetrievalMetric:
    """Read ``"MRR@10"`` and the like.

    >>> parse_retrieval_metric("MRR@10")
    RetrievalMetric(family='MRR', k=10)

    Raises:
        UsageError: an unknown family, or a cut-off that is no whole number from 1 to 1000.
    """
    match = re.fullmatch(r"([A-Za-z]+)@([0-9]+)", name)
    if match is None or match[1] not in RETRIEVAL_FAMILIES or not 1 <= int(match[2]) <= 1000:
        forms = ", ".join(f"{family}@k" for family in RETRIEVAL_FAMILIES)
        raise UsageError(
            f"there is no retrieval metric {name!r}", remedy=f"one of {forms}, with k from 1 to 1000"
        )
    return RetrievalMetric(match[1], int(match[2]))


def split_metrics(names: Iterable[str]) -> tuple[tuple[RetrievalMetric, ...], tuple[str, ...]]:
    """Sort metric names by kind: retrieval metrics, then pair metrics; duplicates go.

    >>> split_metrics(["AUC", "P@1", "P@1"])
    ((RetrievalMetric(family='P', k=1),), ('AUC',))

    Raises:
        UsageError: a name that is neither, with all that there are.
    """
    retrieval, pairs = [], []
    for name in dict.fromkeys(names):
        if name in PAIR_METRICS:
            pairs.append(name)
            continue
        try:
            retrieval.append(parse_retrieval_metric(name))
        except UsageError as error:
            forms = ", ".join([*(f"{family}@k" for family in RETRIEVAL_FAMILIES), *PAIR_METRICS])
            raise UsageError(
                f"there is no metric {name!r}", remedy=f"one of {forms}; k from 1 to 1000"
            ) from error
    return tuple(retrieval), tuple(pairs)
