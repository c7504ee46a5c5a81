"""Evaluations as tables for the terminal; all values in points (hundredths)."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from leanmatch.metrics.names import MAIN_METRICS
from leanmatch.metrics.results import BETTER, NO_DIFFERENCE, WORSE, Evaluation, MetricResult, SliceResult

STYLES = {BETTER: "green", WORSE: "red"}
SHORT = {NO_DIFFERENCE: "none seen"}
"""Verdicts that are too long for a column."""
WIDEST_NAME, NARROW_NAME = 12, 7
"""Longer names of models are folded."""
LAYOUT: dict[str, Any] = {
    "title_justify": "left",
    "box": SIMPLE_HEAD,
    "padding": (0, 1),
    "collapse_padding": True,
    "pad_edge": False,
    "show_edge": False,
}


def slice_table(evaluation: Evaluation, name: str) -> Table:
    """One slice, one row a metric: value with interval, and against a base its value and the difference."""
    part = evaluation.slices[name]
    interval = f"[{100 * evaluation.confidence:g}% interval]"
    table = Table(title=escape(f"{name}: {_counts(part)}"), **LAYOUT)
    table.add_column("metric")
    if evaluation.against is not None:
        table.add_column(escape(evaluation.against), justify="right", overflow="fold", max_width=WIDEST_NAME)
    table.add_column(escape(f"{evaluation.name}\n{interval}"), justify="right", overflow="fold", min_width=19)
    if evaluation.against is not None:
        table.add_column(escape(f"difference\n{interval}"), justify="right", min_width=20)
        table.add_column("verdict")
    for result in part.metrics.values():
        cells = [result.metric, _with_interval(result.value, result.low, result.high)]
        if evaluation.against is not None:
            cells.insert(1, _plain(result.base))
            cells += [
                _difference(result),
                _coloured(SHORT.get(result.verdict or "", result.verdict or ""), result),
            ]
        table.add_row(*cells)
    return table


def summary_table(evaluation: Evaluation) -> Table:
    """All slices, one row each: their sizes and MRR@10, or the first metric, with interval or difference."""
    present = list(dict.fromkeys(name for part in evaluation.slices.values() for name in part.metrics))
    shown = ([name for name in MAIN_METRICS if name in present] or present)[:1]
    compared = evaluation.against is not None
    title = f"{evaluation.name} against {evaluation.against}" if compared else evaluation.name
    table = Table(title=escape(title), **LAYOUT)
    table.add_column("slice", overflow="fold", min_width=19)
    for heading in ("queries", "candidates"):
        table.add_column(heading, justify="right")
    for name in shown:
        names = [evaluation.against, evaluation.name] if compared else [evaluation.name]
        width = NARROW_NAME if compared else None
        for model in names:
            table.add_column(escape(f"{model}\n{name}"), justify="right", overflow="fold", max_width=width)
        if compared:
            table.add_column("difference", justify="right", min_width=20)
    for part in evaluation.slices.values():
        cells = [escape(part.name), f"{part.n_queries:,}", f"{part.n_candidates:,}"]
        for name in shown:
            result = part.metrics.get(name)
            if result is None:
                cells += [""] * (3 if compared else 1)
            elif compared:
                cells += [_plain(result.base), _plain(result.value), _coloured(_difference(result), result)]
            else:
                cells.append(_with_interval(result.value, result.low, result.high))
        table.add_row(*cells)
    return table


def _counts(part: SliceResult) -> str:
    sizes = []
    if part.n_queries:
        sizes.append(f"{part.n_queries:,} queries, {part.n_candidates:,} candidates")
    if part.n_pairs:
        sizes.append(f"{part.n_pairs:,} labelled pairs")
    return "; ".join(sizes)


def _plain(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def _with_interval(value: float, low: float, high: float, sign: str = "") -> str:
    return escape(f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]")


def _difference(result: MetricResult) -> str:
    if result.difference is None or result.difference_low is None or result.difference_high is None:
        return ""
    return _with_interval(result.difference, result.difference_low, result.difference_high, "+")


def _coloured(text: str, result: MetricResult) -> str:
    style = STYLES.get(result.verdict or "")
    return f"[{style}]{text}[/]" if style else text
