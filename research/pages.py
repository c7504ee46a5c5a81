"""What the scripts share that make the tables of docs/results: arguments, intervals, where tables go."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leanmatch.files import atomic_file
from leanmatch.metrics import bootstrap

Scores = NDArray[np.float64]
TABLES = "<!-- tables -->\n"
"""Behind it a page is made; before it, it is written by hand."""
RESAMPLES = 2000


def arguments_of(
    doc: str | None, words: list[str] | None = None, *, plots: bool = False
) -> argparse.Namespace:
    """``RESULTS [-o PAGE] [--plot FILE]``: folded runs or a folder of result files; the page and the plot."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    if plots:
        parser.add_argument("--plot", type=Path)
    return parser.parse_args(words)


def publish(text: str, output: Path | None, begin: str = TABLES, end: str = "") -> None:
    """Print the text, or put it into the page between ``begin`` and ``end`` (or the end of the page)."""
    if output is None:
        print(text, end="")
        return
    before, mark, rest = output.read_text(encoding="utf-8").partition(begin)
    if not mark:
        raise SystemExit(f"{output} has no line {begin.strip()}, behind which the tables go")
    after = rest.partition(end)[2] if end else ""
    with atomic_file(output) as temporary:
        temporary.write_text(before + begin + text + end + after, encoding="utf-8")


def resampled(values: ArrayLike, base: ArrayLike | None = None) -> Scores:
    """The mean over queries, or its ratio to the base's, of each bootstrap resample of the queries."""
    own = np.asarray(values, np.float64)[:, None]
    others = np.ones_like(own) if base is None else np.asarray(base, np.float64)[:, None]
    return bootstrap.resampled_ratios(own, others, resamples=RESAMPLES, seed=0)[:, 0]


def interval(values: ArrayLike, base: ArrayLike | None = None) -> bootstrap.Interval:
    """The 95% percentile interval of what :func:`resampled` gives; paired for the differences of queries."""
    own = np.asarray(values, np.float64)
    value = own.mean() if base is None else own.sum() / np.asarray(base, np.float64).sum()
    return bootstrap.interval(resampled(own, base), float(value), confidence=0.95)


def reciprocal(packed: bytes) -> Scores:
    """Reciprocal ranks of queries whose ranks are bytes; 0 is a match below the last rank."""
    ranks = np.frombuffer(packed, np.uint8).astype(np.float64)
    return np.where(ranks > 0, 1 / np.maximum(ranks, 1), 0.0)


def at_share(by_share: Mapping[float, Scores], share: float) -> Scores:
    """Reciprocal ranks of queries at a share of the trained weights; interpolated between ranked shares."""
    if share in by_share:
        return by_share[share]
    low, high = max(s for s in by_share if s < share), min(s for s in by_share if s > share)
    weight = (share - low) / (high - low)
    return (1 - weight) * by_share[low] + weight * by_share[high]
