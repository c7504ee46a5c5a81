r"""Tables and picture of docs/results/first_factors.md from the runs of research/first_factors.py.

    python research/first_factors_table.py docs/results/compression/first_factors.jsonl \
        -o docs/results/first_factors.md --plot docs/results/compression/curve.svg

Intervals are paired over queries; of several seeds each query's mean is taken (95%, percentile).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from collect import read_runs
from compression_match import unpack
from numpy.typing import NDArray
from pages import arguments_of, interval, publish, resampled

from leanmatch.files import atomic_file

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
SITES = {"askubuntu": "AskUbuntu", "quora": "Quora"}
OURS, UNTRAINED = "in-order", ("int8", "int4")
COLOURS = {
    "in-order": "#2a8c4a",
    "alone": "#9bcfab",
    "nm-in-order": "#1f6fb4",
    "svd-in-order": "#c2752c",
    "fwsvd": "#7a5195",
    "depth": "#b03a48",
    "int8": "#8a8f98",
    "int4": "#8a8f98",
}
Row = dict[str, Any]
Key = tuple[str, str, int, float]
"""Budget, method, steps, rate."""


def main(words: list[str] | None = None) -> None:
    arguments = arguments_of(__doc__, words, plots=True)
    groups: dict[Key, list[Row]] = {}
    for row in read_runs(arguments.results).values():
        key = row["budget"], row["method"], row["steps"], row["lr"]
        groups.setdefault(key, []).append(row)
    order = sorted(groups, key=lambda key: (mean(groups[key], "macs"), *key))
    best = at_the_best_rate(groups)
    lengths = sorted({steps for _, _, steps in best})
    curves = {steps: curves_of(best, steps) for steps in lengths}
    lines = [""]
    if arguments.plot is not None:
        draw(curves[lengths[0]], arguments.plot)
        path = f"{arguments.plot.parent.name}/{arguments.plot.name}"
        lines += [f"![MRR@10 against multiply-adds and against bytes, method by method]({path})", ""]
    lines += [
        *equal_ranks(curves),
        "",
        "## All runs",
        "",
        "| sizes | method | steps, rate | seeds | MACs | bytes | CPU s, first + training | loss, first "
        "| trained | askubuntu | quora |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(table_row(key, groups[key]) for key in order),
        "",
        *comparisons(best),
    ]
    publish("\n".join(lines).rstrip() + "\n", arguments.output)


def at_the_best_rate(groups: dict[Key, list[Row]]) -> dict[tuple[str, str, int], list[Row]]:
    """Budget, method and steps to the runs of the rate with the lowest loss."""
    best: dict[tuple[str, str, int], list[Row]] = {}
    for (budget, method, steps, _), rows in groups.items():
        other = best.get((budget, method, steps))
        if other is None or mean(rows, "loss") < mean(other, "loss"):
            best[budget, method, steps] = rows
    return best


def curves_of(best: dict[tuple[str, str, int], list[Row]], steps: int) -> dict[str, list[list[Row]]]:
    """Method to the runs of each budget after so many steps; fewest multiply-adds last.

    Runs without training belong to every number of steps.
    """
    curves: dict[str, list[list[Row]]] = {}
    for name in NAMES:
        runs = [
            rows
            for (_, method, length), rows in best.items()
            if method == name and (length == steps or method in UNTRAINED)
        ]
        if runs:
            curves[name] = sorted(runs, key=lambda rows: (mean(rows, "macs"), mean(rows, "encoder_bytes")))
    return curves


def equal_ranks(curves: dict[int, dict[str, list[list[Row]]]]) -> list[str]:
    """At the MRR@10 of each rival's runs: the costs at which our curve has the same after equal steps."""
    lines = [
        "## At equal MRR@10",
        "",
        "| rival | steps | MACs | bytes "
        + "".join(f"| {name}: ours, MACs | fewer MACs | fewer bytes " for name in SITES.values())
        + "|",
        "|---" * (4 + 3 * len(SITES)) + "|",
    ]
    for steps, methods in curves.items():
        ours = [*methods["int8"], *methods[OURS]]
        for method, runs in methods.items():
            if method == OURS or method in UNTRAINED:
                continue
            for rows in runs:
                costs = (f"{mean(rows, name):.2f}x" for name in ("macs", "encoder_bytes"))
                cells = [NAMES[method], str(steps), *costs]
                for site in SITES:
                    cells += reading(ours, rows, site)
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def reading(ours: list[list[Row]], rival: list[Row], site: str) -> list[str]:
    """Multiply-adds of our curve at the rival's MRR@10, and the per cent of multiply-adds and bytes less."""
    values = np.array([_with_mean(query_ranks(rows, site)) for rows in ours])
    values = np.minimum.accumulate(values, axis=0)
    target = _with_mean(query_ranks(rival, site))
    if target[0] > values[0, 0]:
        return ["none", "", ""]
    beyond = target[0] < values[-1, 0]
    cells = []
    for name in ("macs", "encoder_bytes"):
        costs = np.log([mean(rows, name) for rows in ours])
        found = np.exp([np.interp(t, v[::-1], costs[::-1]) for t, v in zip(target, values.T, strict=True)])
        fewer = 100 * (1 - mean(rival, name) / found)
        low, high = np.percentile(fewer[1:], [2.5, 97.5])
        if name == "macs":
            cells.append(f"{'over ' if beyond else ''}{found[0]:.2f}x")
        cells.append(f"{'over ' if beyond else ''}{fewer[0]:.0f}% ({low:.0f} to {high:.0f})")
    return cells


def _with_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean over queries, and that of each resample of the queries."""
    return np.concatenate([[values.mean()], resampled(values)])


def draw(curves: dict[str, list[list[Row]]], path: Path) -> None:
    """MRR@10 of each site against multiply-adds and against bytes; bars are 95% intervals."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "leanmatch", "font.size": 10, "axes.spines.top": False})
    matplotlib.rcParams["axes.spines.right"] = False
    from matplotlib import pyplot

    costs = {"macs": "times fewer multiply-adds", "encoder_bytes": "times fewer bytes of the encoder"}
    ticks = {"macs": (1, 1.5, 2, 3, 4, 6, 8), "encoder_bytes": (4, 6, 8, 12, 16, 24, 32)}
    figure, axes = pyplot.subplots(2, 2, figsize=(8, 6.4), sharex="col", sharey="row")
    for row, site in zip(axes, SITES, strict=True):
        row[0].set_ylabel(f"{SITES[site]}: % of float32's MRR@10")
        for axis, cost in zip(row, costs, strict=True):
            axis.axhline(100, color="#d0d3d8", linewidth=1, zorder=0)
            axis.set_xscale("log")
            axis.set_xticks(ticks[cost], [f"{tick:g}" for tick in ticks[cost]])
            axis.minorticks_off()
            for method, runs in curves.items():
                if method not in COLOURS:
                    continue
                places = [mean(rows, cost) for rows in runs]
                base = unpack(runs[0][0]["dense_queries"][site])
                ranks = [query_ranks(rows, site) for rows in runs]
                middles = [100 * own.mean() / base.mean() for own in ranks]
                style = ":" if method == "alone" else "-"
                axis.plot(
                    places, middles, f"o{style}", color=COLOURS[method], label=NAMES[method], markersize=4
                )
                for place, own in zip(places, ranks, strict=True):
                    axis.plot([place, place], interval(100 * own, base), color=COLOURS[method], alpha=0.4)
                label = method if cost == "encoder_bytes" else {"int8": "int8, int4"}.get(method, "")
                if method in UNTRAINED and label:
                    spot = places[0], middles[0]
                    axis.annotate(label, spot, (-4, 6), textcoords="offset points", fontsize=8)
    for axis, label in zip(axes[1], costs.values(), strict=True):
        axis.set_xlabel(label)
    handles, names = axes[0][0].get_legend_handles_labels()
    shown = [(h, n) for h, n in zip(handles, names, strict=True) if "untrained" not in n]
    figure.legend(*zip(*shown, strict=True), loc="upper center", ncol=3, frameon=False, fontsize=9)
    figure.tight_layout(rect=(0, 0, 1, 0.92))
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def table_row(key: Key, rows: list[Row]) -> str:
    budget, method, steps, rate = key
    trained = "training_seconds" in rows[0]
    seconds = f"{mean(rows, 'first_seconds'):.0f}"
    cells = [
        budget if method not in UNTRAINED else "",
        NAMES[method],
        f"{steps}, {rate:g}" if trained else "",
        str(len(rows)),
        f"{mean(rows, 'macs'):.2f}x",
        f"{mean(rows, 'encoder_bytes'):.2f}x",
        f"{seconds} + {mean(rows, 'training_seconds'):.0f}" if trained else seconds,
        spread([row["first_loss"] for row in rows]),
        spread([row["loss"] for row in rows]) if trained else "",
        *(cell(difference(rows, None, site), mean_rank(rows, site)) for site in SITES),
    ]
    return f"| {' | '.join(cells)} |"


def comparisons(best: dict[tuple[str, str, int], list[Row]]) -> list[str]:
    """In order less each rival of the same sizes and steps, on the seeds that both have."""
    lines = [
        "In order less each rival at equal multiply-adds and steps, each at its best rate. Loss: ratio of",
        "the trained losses. MRR@10 in points:",
        "",
        "| sizes | steps | rival | seeds | loss | askubuntu | quora |",
        "|---|---|---|---|---|---|---|",
    ]
    for (budget, method, steps), rows in sorted(best.items()):
        own = best.get((budget, OURS, steps))
        if method in (OURS, *UNTRAINED) or not own:
            continue
        seeds = {row["seed"] for row in rows} & {row["seed"] for row in own}
        ours = [row for row in own if row["seed"] in seeds]
        theirs = [row for row in rows if row["seed"] in seeds]
        if not seeds:
            continue
        ratio = mean(ours, "loss") / mean(theirs, "loss")
        points = [cell(difference(ours, theirs, site)) for site in SITES]
        label = f"{budget} | {steps} | {NAMES[method]} | {len(seeds)} | {ratio:.2f}"
        lines.append(f"| {label} | {' | '.join(points)} |")
    return lines


def mean(rows: list[Row], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def spread(values: list[float]) -> str:
    """The mean, and the range where there are several."""
    digits = f"{np.mean(values):.4f}"
    return digits if len(values) == 1 else f"{digits} ({min(values):.4f} to {max(values):.4f})"


def mean_rank(rows: list[Row], site: str) -> float:
    return 100 * float(np.mean([row["mrr"][site] for row in rows]))


def query_ranks(rows: list[Row], site: str) -> NDArray[np.float64]:
    """Each query's reciprocal rank, the mean over seeds."""
    ranks = [unpack(row["queries"][site]) for row in rows]
    return np.asarray(np.mean(ranks, axis=0, dtype=np.float64))


def difference(rows: list[Row], others: list[Row] | None, site: str) -> Any:
    """Points of each query, mean over seeds: less the dense model's, or less those of other runs."""
    base = unpack(rows[0]["dense_queries"][site]) if others is None else query_ranks(others, site)
    return 100 * (query_ranks(rows, site) - base)


def cell(points: Any, value: float | None = None) -> str:
    """The value, or the mean of the points, and their interval."""
    low, high = interval(points)
    shown = f"{points.mean():+.1f}" if value is None else f"{value:.1f}"
    return f"{shown} ({low:+.1f} to {high:+.1f})"


if __name__ == "__main__":
    main()
