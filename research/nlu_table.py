r"""Tables of docs/results/nlu.md from the runs of research/nlu.py.

    python research/nlu_table.py docs/results/compression/nlu.jsonl -o docs/results/nlu.md

Values are accuracy, for CoLA Matthews' correlation, both times 100. Intervals are those of differences (95%,
percentile), both models on the same resamples of the test rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from collect import read_runs
from numpy.typing import NDArray
from pages import RESAMPLES, arguments_of, publish

NAMES = {
    "stf": "dense-sparse (STF)",
    "svd": "SVD, in order",
    "fwsvd": "FWSVD",
    "nm": "N:M, in order",
    "depth": "fewer encoder layers, int8",
    "int8": "int8, untrained",
}
TASKS = {"cola": "CoLA, MCC", "rte": "RTE", "sst2": "SST-2", "clinc150": "CLINC150"}
Row = dict[str, Any]
Bits = NDArray[np.bool_]


def main(words: list[str] | None = None) -> None:
    arguments = arguments_of(__doc__, words)
    rows = list(read_runs(arguments.results).values())
    lines = [""]
    for key in sorted({_key(row) for row in rows}):
        lines += section(key, [row for row in rows if _key(row) == key])
    publish("\n".join(lines).rstrip() + "\n", arguments.output)


def _key(row: Row) -> tuple[float, int, int]:
    return row["ratio"], row["steps"], row["seed"]


def section(key: tuple[float, int, int], rows: list[Row]) -> list[str]:
    """The methods at one ratio, each at every rate it was run with, and STF less each rival."""
    ratio, steps, seed = key
    tasks = [task for task in TASKS if any(row["task"] == task for row in rows)]
    by_method: dict[tuple[str, float], dict[str, Row]] = {}
    for row in rows:
        by_method.setdefault((row["method"], row["lr"]), {})[row["task"]] = row
    order = sorted(by_method, key=lambda pair: (list(NAMES).index(pair[0]), pair[1]))
    dense = {task: next(row for row in rows if row["task"] == task) for task in tasks}
    lines = [
        f"## {ratio:g} times fewer multiply-adds asked for, {steps} steps, seed {seed}",
        "",
        "| method | rate | MACs | bytes | " + " | ".join(TASKS[task] for task in tasks) + " |",
        "|---" * (4 + len(tasks)) + "|",
        "| dense | | 1x | 1x | "
        + " | ".join(f"{value(dense[task], 'dense_right'):.1f}" for task in tasks)
        + " |",
    ]
    for method, rate in order:
        runs = by_method[method, rate]
        first = next(iter(runs.values()))
        cells = [
            f"{value(runs[task]):.1f} {gap(runs[task], runs[task], 'dense_right')}" if task in runs else ""
            for task in tasks
        ]
        told = "" if method == "int8" else f"{rate:g}"
        costs = f"{first['macs']:.2f}x | {first['encoder_bytes']:.2f}x"
        lines.append(f"| {NAMES[method]} | {told} | {costs} | " + " | ".join(cells) + " |")
    ours = next((by_method[pair] for pair in order if pair[0] == "stf"), {})
    lines += ["", "Dense-sparse less each rival, points:", "", "| rival | rate | "]
    lines[-1] += " | ".join(TASKS[task] for task in tasks) + " |"
    lines.append("|---" * (2 + len(tasks)) + "|")
    for method, rate in order:
        if method in ("stf", "int8"):
            continue
        runs = by_method[method, rate]
        cells = [
            f"{value(ours[task]) - value(runs[task]):+.1f} {gap(ours[task], runs[task])}"
            if task in runs and task in ours
            else ""
            for task in tasks
        ]
        lines.append(f"| {NAMES[method]} | {rate:g} | " + " | ".join(cells) + " |")
    return [*lines, ""]


def value(row: Row, which: str = "right") -> float:
    """Accuracy, or Matthews' correlation where the row has labels, times 100."""
    return float(100 * _statistic(row, which, _every_row(row))[0])


def gap(first: Row, second: Row, which: str = "right") -> str:
    """95% interval of ``first["right"]`` less ``second[which]``, paired over test rows."""
    count = first["rows"]
    draws = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
    differences = 100 * (_statistic(first, "right", draws) - _statistic(second, which, draws))
    low, high = np.percentile(differences, [2.5, 97.5])
    return f"({low:+.1f} to {high:+.1f})"


def _every_row(row: Row) -> NDArray[np.int64]:
    return np.arange(row["rows"])[None]


def _statistic(row: Row, which: str, draws: NDArray[np.int64]) -> NDArray[np.float64]:
    right = bits(row[which], row["rows"])[draws]
    if row["labels"] is None:
        return np.asarray(right.mean(axis=1), np.float64)
    return matthews(right, bits(row["labels"], row["rows"])[draws])


def matthews(right: Bits, labels: Bits) -> NDArray[np.float64]:
    """Matthews' correlation along the last axis; 0 where a class is never there or never said."""
    said = np.where(right, labels, ~labels)
    both, neither = (labels & said).sum(-1), (~labels & ~said).sum(-1)
    missed, wrong = (labels & ~said).sum(-1), (~labels & said).sum(-1)
    top = both * neither - wrong * missed
    factors: Iterable[Any] = (both + wrong, both + missed, neither + wrong, neither + missed)
    bottom = np.sqrt(np.prod([np.asarray(factor, np.float64) for factor in factors], axis=0))
    return np.asarray(np.where(bottom > 0, top / np.maximum(bottom, 1), 0.0), np.float64)


def bits(packed: str, count: int) -> Bits:
    """What ``research/nlu.py`` packed, the first ``count``."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(packed), np.uint8))[:count].astype(bool)


if __name__ == "__main__":
    main()
