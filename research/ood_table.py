"""Tables from the runs of ``research/ood_grid.py``: ``docs/results/ood.md``.

    python research/ood_table.py docs/results/ood/runs.parquet -o docs/results/ood.md

Metric: MRR@10 in points, mean over queries and seeds. Intervals: paired bootstrap over queries (each query's
mean over the seeds), 95%, of the difference from plain fine-tuning in the same seeds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
from collect import read_runs
from pages import Scores, arguments_of, at_share, interval, publish, reciprocal

from leanmatch.training.selection.choice import SHARES, best_shares

Runs = dict[str, dict[str, Any]]  # method -> result file, of one setting, regime and seed


def _at(method: str, average: str) -> Callable[[Runs], dict[str, Scores] | None]:
    def pick(runs: Runs) -> dict[str, Scores] | None:
        if method not in runs:
            return None
        return {name: reciprocal(runs[method]["ranks"][average][name]) for name in ("in", "out")}

    return pick


def _chosen(method: str) -> Callable[[Runs], dict[str, Scores] | None]:
    """What ``average`` auto chooses, from validation slices alone; without a run on all rows. Between the
    shares that were ranked, reciprocal ranks are interpolated."""

    def pick(runs: Runs) -> dict[str, Scores] | None:
        if method not in runs:
            return None
        ranks = runs[method]["ranks"]
        per_query = {
            float(average): {name: reciprocal(slices[name]) for name in ("valid", "shifted")}
            for average, slices in ranks.items()
            if float(average) in SHARES
        }
        share = float(best_shares(per_query)[0])
        by_share = {
            name: {float(average): reciprocal(slices[name]) for average, slices in ranks.items()}
            for name in ("in", "out")
        }
        return {name: at_share(values, share) for name, values in by_share.items()}

    return pick


ROWS: dict[str, Callable[[Runs], dict[str, Scores] | None]] = {
    "base": _at("plain", "0"),
    "plain": _at("plain", "1"),
    "plain, early stopping": _at("early", "1"),
    "masking": _at("mask", "1"),
    "OutReg": _at("out", "1"),
    "LoRA": _at("lora", "1"),
    "WiSE-FT (plain, average 0.5)": _at("plain", "0.5"),
    "WiSE-FT, average auto": _chosen("plain"),
    "ITVReg (effect, all pairs)": _at("itv", "1"),
    "ITVReg, score matching": _at("itv-score", "1"),
    "ITVReg, one-sided": _at("itv-one-sided", "1"),
    "ITVReg, diagonal": _at("itv-diagonal", "1"),
    "ITVReg, average 0.5": _at("itv", "0.5"),
    "ITVReg, average auto": _chosen("itv"),
    "ITVReg, score matching, average auto": _chosen("itv-score"),
    "soup of plain and ITVReg": _at("soup", "1"),
    "soup of plain and ITVReg, score matching": _at("soup-score", "1"),
    "**default, `--no-refit`**": _chosen("soup-score"),
}
DEFAULT = "**default, `--no-refit`**"
RIVALS = {row for row in ROWS if row != DEFAULT and "ITVReg" not in row}


def main(words: list[str] | None = None) -> None:
    arguments = arguments_of(__doc__, words)
    groups: dict[tuple[str, str], dict[str, dict[int, Runs]]] = defaultdict(lambda: defaultdict(dict))
    for result in read_runs(arguments.results).values():
        seeds = groups[result["encoder"], result["regime"]][result["setting"]]
        seeds.setdefault(result["seed"], {})[result["method"]] = result
    text = "\n".join(part for key in sorted(groups, reverse=True) for part in _section(*key, groups[key]))
    publish(text + "\n", arguments.output)


def _section(encoder: str, regime: str, settings: dict[str, dict[int, Runs]]) -> list[str]:
    names = sorted(settings)
    lines = [f"\n## {encoder}, {regime} fine-tuning\n"]
    seeds = "; ".join(f"{name}: seeds {', '.join(map(str, sorted(settings[name])))}" for name in names)
    lines.append(f"{seeds}. In = test pairs of the training domain, out = of the other.\n")
    lines.append("| | " + " | ".join(f"{name} in | {name} out" for name in names) + " |")
    lines.append("|---" * (1 + 2 * len(names)) + "|")
    means: dict[str, dict[tuple[str, str], Scores]] = {}
    for row, pick in ROWS.items():
        cells = {}
        for name in names:
            found = _mean_over_seeds(settings[name], pick, required=row)
            for side in ("in", "out"):
                if found is not None:
                    cells[name, side] = found
        values = {key: scores[key[1]] for key, scores in cells.items()}
        if not values:
            continue
        means[row] = values
        shown = []
        for name in names:
            for side in ("in", "out"):
                shown.append(_cell(values.get((name, side)), means.get("plain", {}).get((name, side)), row))
        lines.append(f"| {row} | " + " | ".join(shown) + " |")
    return [*lines, *_verdicts(names, means)]


def _mean_over_seeds(
    seeds: dict[int, Runs], pick: Callable[[Runs], dict[str, Scores] | None], *, required: str
) -> dict[str, Scores] | None:
    """Each query's mean over the seeds that have every method of the row; None where no seed has."""
    found = [scores for runs in seeds.values() if (scores := pick(runs)) is not None]
    if not found or (len(found) < len(seeds) and required == "plain"):
        return None
    return {side: np.mean([scores[side] for scores in found], axis=0) for side in ("in", "out")}


def _cell(values: Scores | None, plain: Scores | None, row: str) -> str:
    if values is None:
        return ""
    text = f"{100 * values.mean():.1f}"
    if plain is None or row in ("plain",):
        return text
    low, high = interval(values - plain)
    return f"{text} ({100 * low:+.1f} to {100 * high:+.1f})"


def _verdicts(names: list[str], means: dict[str, dict[tuple[str, str], Scores]]) -> list[str]:
    """The default recipe against the best other rows, chosen with hindsight on the test slice itself."""
    if DEFAULT not in means:
        return []
    lines = [
        "\nThe default against the best other rows of each column, picked with hindsight: of the rivals, "
        "and of all.\n",
        "| | best rival | difference (interval) | best of all | difference (interval) |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        for side in ("in", "out"):
            ours = means[DEFAULT].get((name, side))
            others = {row: v[name, side] for row, v in means.items() if (name, side) in v and row != DEFAULT}
            if ours is None:
                continue
            cells = [f"{name}, {side}"]
            for pool in (RIVALS & others.keys(), others.keys()):
                best = max(sorted(pool), key=lambda row: float(others[row].mean()))
                difference = ours - others[best]
                low, high = interval(difference)
                cells += [best, f"{100 * difference.mean():+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
