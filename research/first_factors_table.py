r"""Tables of docs/results/first_factors.md from the runs of research/first_factors.py.

    python research/first_factors_table.py docs/results/compression/first_factors.jsonl \
        -o docs/results/first_factors.md

Intervals are paired over queries, and over all seeds together where there are several (95%, percentile).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from collect import read_runs
from compression_match import unpack
from pages import arguments_of, interval, publish

NAMES = {
    "in-order": "dense-sparse, in order",
    "alone": "dense-sparse, each layer alone",
    "nm": "N:M, by the weights",
    "nm-in-order": "N:M, in order",
    "svd": "SVD, by the weights",
    "fwsvd": "FWSVD",
    "svd-in-order": "SVD, in order",
    "depth": "fewer encoder layers, int8",
    "int8": "int8, untrained",
    "int4": "int4 in groups of 32, untrained",
}
SITES = ("askubuntu", "quora")
Row = dict[str, Any]


def main(words: list[str] | None = None) -> None:
    arguments = arguments_of(__doc__, words)
    groups: dict[tuple[str, str, float], list[Row]] = {}
    for row in read_runs(arguments.results).values():
        groups.setdefault((row["budget"], row["method"], row["lr"]), []).append(row)
    order = sorted(groups, key=lambda key: (np.mean([row["macs"] for row in groups[key]]), *key))
    lines = [
        "",
        "| sizes | method | rate | seeds | MACs | bytes | CPU s, first + training | loss, first | trained "
        "| askubuntu | quora |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(table_row(key, groups[key]) for key in order),
        "",
        *comparisons(groups),
    ]
    publish("\n".join(lines).rstrip() + "\n", arguments.output)


def table_row(key: tuple[str, str, float], rows: list[Row]) -> str:
    budget, method, rate = key
    trained = "training_seconds" in rows[0]
    seconds = f"{mean(rows, 'first_seconds'):.0f}"
    cells = [
        budget if method not in ("int8", "int4") else "",
        NAMES[method],
        f"{rate:g}" if trained else "",
        str(len(rows)),
        f"{mean(rows, 'macs'):.2f}x",
        f"{mean(rows, 'encoder_bytes'):.2f}x",
        f"{seconds} + {mean(rows, 'training_seconds'):.0f}" if trained else seconds,
        spread([row["first_loss"] for row in rows]),
        spread([row["loss"] for row in rows]) if trained else "",
        *(cell(difference(rows, None, site), mean_rank(rows, site)) for site in SITES),
    ]
    return f"| {' | '.join(cells)} |"


def comparisons(groups: dict[tuple[str, str, float], list[Row]]) -> list[str]:
    """In order less each rival of the same sizes, on the seeds that both have."""
    lines = [
        "In order less each rival at equal multiply-adds: ratio of the trained losses, MRR@10 in points:",
        "",
        "| sizes | rival | seeds | loss | askubuntu | quora |",
        "|---|---|---|---|---|---|",
    ]
    for (budget, method, rate), rows in sorted(groups.items()):
        own = [v for (b, m, _), v in groups.items() if (b, m) == (budget, "in-order")]
        if method in ("in-order", "int8", "int4") or not own:
            continue
        best = min(own, key=lambda runs: mean(runs, "loss"))
        seeds = {row["seed"] for row in rows} & {row["seed"] for row in best}
        ours = [row for row in best if row["seed"] in seeds]
        theirs = [row for row in rows if row["seed"] in seeds]
        if not seeds:
            continue
        ratio = mean(ours, "loss") / mean(theirs, "loss")
        points = [cell(difference(ours, theirs, site)) for site in SITES]
        label = f"{NAMES[method]}, rate {rate:g}"
        lines.append(f"| {budget} | {label} | {len(seeds)} | {ratio:.2f} | {' | '.join(points)} |")
    return lines


def mean(rows: list[Row], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def spread(values: list[float]) -> str:
    """The mean, and the range where there are several."""
    digits = f"{np.mean(values):.4f}"
    return digits if len(values) == 1 else f"{digits} ({min(values):.4f} to {max(values):.4f})"


def mean_rank(rows: list[Row], site: str) -> float:
    return 100 * float(np.mean([row["mrr"][site] for row in rows]))


def difference(rows: list[Row], others: list[Row] | None, site: str) -> Any:
    """Points of each query, mean over seeds: less the dense model's, or less those of other runs."""
    own = np.mean([unpack(row["queries"][site]) for row in rows], axis=0)
    if others is None:
        return 100 * (own - unpack(rows[0]["dense_queries"][site]))
    return 100 * (own - np.mean([unpack(row["queries"][site]) for row in others], axis=0))


def cell(points: Any, value: float | None = None) -> str:
    """The value, or the mean of the points, and their interval."""
    low, high = interval(points)
    shown = f"{points.mean():+.1f}" if value is None else f"{value:.1f}"
    return f"{shown} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    main()
