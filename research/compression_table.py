r"""Tables and the plot of docs/results/compression.md from the runs of research/compression.py.

    python research/compression_table.py docs/results/compression/runs.jsonl \
        -o docs/results/compression.md --plot docs/results/compression/quality.svg

Intervals are paired: both models are scored on the same resamples of the queries (95%, percentile).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from collect import read_runs
from compression_match import unpack
from pages import arguments_of, interval, publish

NAMES = {
    "stf": "STF (swaps, the default)",
    "thinning": "STF, thinning from two more nonzeros",
    "factor": "factor once, then train values and atoms",
    "plain-factor": "factor once by the weights alone, then train",
    "svd": "SVD, then train",
    "fwsvd": "FWSVD, then train",
    "asvd": "activation-weighted SVD, then train",
    "nm": "N:M pruning, then train with masks",
    "int8": "int8, one shot",
}
Row = dict[str, Any]


def main(words: list[str] | None = None) -> None:
    arguments = arguments_of(__doc__, words, plots=True)
    rows = list(read_runs(arguments.results).values())
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        key = row["task"], row["ratio"], row["whole"], row["steps"], row.get("batch"), row["seed"]
        groups.setdefault(key, []).append(row)
    parts = [""]
    for key, members in sorted(groups.items(), key=str):
        parts += section(key, members)
    if arguments.plot is not None:
        draw(rows, arguments.plot)
        parts += [f"![quality against bytes]({arguments.plot.parent.name}/{arguments.plot.name})", ""]
    publish("\n".join(parts).rstrip() + "\n", arguments.output)


def section(key: tuple[Any, ...], members: list[Row]) -> list[str]:
    """One table: the methods that were trained alike."""
    task, ratio, whole, steps, batch, seed = key
    metrics = list(members[0]["final"])
    order = list(NAMES)
    members.sort(key=lambda row: order.index(row["method"]))
    what = "encoder and embeddings" if whole else "encoder"
    lines = [
        f"## {task}, {ratio:g}x fewer multiply-adds asked for, {what}; {steps} steps of {batch}, seed {seed}",
        "",
        "| method | MACs | encoder bytes | model MB | CPU s | " + " | ".join(metrics) + " |",
        "|---|---|---|---|---|" + "---|" * len(metrics),
    ]
    dense = members[0]["dense"]
    lines.append(
        "| dense | 1x | 1x | | | " + " | ".join(f"{100 * dense[m]['mean']:.1f}" for m in metrics) + " |"
    )
    for row in members:
        cells = [
            NAMES[row["method"]],
            f"{row['mac_ratio']:.2f}x",
            f"{row['byte_ratio']:.2f}x",
            f"{row.get('folder_bytes', row['model_bytes']) / 1e6:.2f}"
            + ("*" if "folder_bytes" in row else ""),
            f"{row['training_seconds']:.0f}" if "training_seconds" in row else "0",
        ]
        for metric in metrics:
            final = row["final"][metric]
            cells.append(f"{100 * final['mean']:.1f} {points(final, row['dense'][metric])}")
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "Queries: " + ", ".join(f"{m} {len(unpack(dense[m]['queries'])):,}" for m in metrics) + "."]
    stf = next((row for row in members if row["method"] == "stf"), None)
    if stf is not None:
        shares = [f"{m} {share(stf['final'][m], stf['dense'][m])}" for m in metrics]
        lines += ["", f"STF keeps of the dense model's mean (95% interval): {', '.join(shares)}."]
    if stf is not None and len(members) > 1:
        lines += [
            "",
            "STF less each rival, points (95% interval); shares of the dense model's mean over tables:",
            "",
        ]
        lines += [
            "| rival | " + " | ".join(metrics) + " | STF keeps | rival keeps |",
            "|---|" + "---|" * (len(metrics) + 2),
        ]
        for row in members:
            if row is stf:
                continue
            cells = [NAMES[row["method"]]]
            for metric in metrics:
                mine, other = stf["final"][metric], row["final"][metric]
                cells.append(f"{100 * (mine['mean'] - other['mean']):+.1f} {points(mine, other)}")
            cells += [f"{100 * kept(stf):.1f}%", f"{100 * kept(row):.1f}%"]
            lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def kept(row: Row) -> float:
    """Mean over all metrics of the share of the dense model's value."""
    return float(np.mean([row["final"][m]["mean"] / row["dense"][m]["mean"] for m in row["final"]]))


def share(first: Row, second: Row) -> str:
    """The first mean over the second in percent, with a 95% interval, paired over queries."""
    mine, other = unpack(first["queries"]), unpack(second["queries"])
    low, high = interval(100 * mine, other)
    return f"{100 * mine.mean() / other.mean():.1f}% ({low:.1f} to {high:.1f})"


def points(first: Row, second: Row) -> str:
    """95% interval of the difference of two means in points, paired over queries."""
    low, high = interval(100 * (unpack(first["queries"]) - unpack(second["queries"])))
    return f"({low:+.1f} to {high:+.1f})"


def draw(rows: list[Row], path: Path) -> None:
    """Share of the dense model's quality against the encoder's bytes, one point a run."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "leanmatch"
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, label in NAMES.items():
        runs = [
            (row["byte_ratio"], 100 * kept(row))
            for row in rows
            if row["method"] == name and row["task"] == "match" and row["steps"]
        ]
        if runs:
            ring = {"s": 110, "facecolors": "none", "edgecolors": "C0", "linewidths": 2.2, "zorder": 3}
            axes.scatter(*zip(*runs, strict=True), label=label, **(ring if name == "stf" else {"s": 45}))
    axes.axhline(100, color="0.6", linewidth=1)
    axes.set_xlabel("times fewer encoder bytes than float32")
    axes.set_ylabel("share of the dense model's metrics, %")
    axes.legend(fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()
