"""Tables from the runs of ``research/shift_grid.py``: a part of ``docs/results/ood.md``.

    python research/shift_table.py docs/results/ood/shifts.parquet -o docs/results/ood.md

Metric: MRR@10 in points. Regret: the best rival of a column, picked with hindsight on the test itself, less
the recipe; negative where the recipe is ahead of all. Intervals: paired bootstrap over queries, 95%.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy as np
from collect import read_runs
from pages import Scores, arguments_of, interval, publish, reciprocal

from leanmatch.training.selection.choice import PULL, SHARES, SHIFTED, TARGET, VALID, objective

Recipe = Mapping[float, Mapping[str, Scores]]  # share -> slice -> reciprocal rank of each query
Setting = dict[str, Recipe]  # of one source, regime and seed: recipe by name
FAMILIES = {
    "askubuntu": "questions",
    "quora": "questions",
    "cameras": "products",
    "computers": "products",
    "time": "next",
}
PULLS = (0.0, 0.005, PULL, 0.02, 0.05)
"""What the pull towards share 1 is fitted from where settings are left out."""
BEGIN, END = "<!-- shifts -->\n", "<!-- end of shifts -->\n"
DEFAULT, TARGETED = "**default**", "**default, `--target`**"
RIVALS = ("base", "plain", "early stopping", "OutReg", "WiSE-FT 0.4", "WiSE-FT 0.6", "WiSE-FT 0.8")


def chosen(setting: Setting, recipe: str, *, target: str | None = None, pull: float = PULL) -> float:
    """The share that ``leanmatch train`` takes: each slice by runs that were not trained on it."""
    values = {}
    for share in SHARES:
        if share not in setting[recipe]:
            continue
        slices = {
            VALID: setting[recipe][share][VALID],
            SHIFTED: setting["plain-rest"][share][SHIFTED],
        }
        if target is not None:
            unseen = "plain-rest" if recipe == "default-target" else recipe
            slices[TARGET] = setting[unseen][share][f"target {target}"]
        values[share] = objective(slices, share, pull)
    return max(values, key=lambda share: (values[share], -share))


def recipes(pull: float = PULL) -> dict[str, Callable[[Setting, str], tuple[str, float]]]:
    """Row of the table: setting and test to the recipe and its share."""
    rows: dict[str, Callable[[Setting, str], tuple[str, float]]] = {
        "base": lambda setting, test: ("plain", 0.0),
        "plain": lambda setting, test: ("plain", 1.0),
        "early stopping": lambda setting, test: ("early", 1.0),
        "OutReg": lambda setting, test: ("out", 1.0),
    }
    for share in (0.4, 0.6, 0.8):
        rows[f"WiSE-FT {share:g}"] = lambda setting, test, share=share: ("plain", share)
    for share in (0.6, 0.8, 1.0):
        rows[f"soup at {share:g}"] = lambda setting, test, share=share: ("default", share)
    rows["`--no-refit` of plain"] = lambda setting, test: (
        "plain-rest",
        chosen(setting, "plain-rest", pull=pull),
    )
    rows[DEFAULT] = lambda setting, test: ("default", chosen(setting, "default", pull=pull))
    rows[TARGETED] = lambda setting, test: _with_target(setting, test, pull)
    return rows


def _with_target(setting: Setting, test: str, pull: float) -> tuple[str, float]:
    """Where the first run has lost on the target texts, the second is regularized on them."""
    base, first = (setting["plain-rest"][share][f"target {test}"].mean() for share in (0.0, 1.0))
    recipe = "default-target" if first < base else "default"
    return recipe, chosen(setting, recipe, target=test, pull=pull)


def scores(setting: Setting, row: tuple[str, float], part: str) -> Scores:
    """Reciprocal ranks of a test's queries."""
    recipe, share = row
    return setting[recipe][share][part]


def main(words: list[str] | None = None) -> None:
    arguments = arguments_of(__doc__, words)
    settings: dict[tuple[str, str, int], Setting] = defaultdict(dict)
    for run in read_runs(arguments.results).values():
        key = run["regime"], run["setting"], run["seed"]
        settings[key][run["method"]] = {
            float(share): {name: reciprocal(packed) for name, packed in slices.items()}
            for share, slices in run["ranks"].items()
        }
    needed = {"plain-rest", "default", "plain"}
    complete = {key: setting for key, setting in settings.items() if needed <= setting.keys()}
    lines = []
    for regime, seed in sorted({(key[0], key[2]) for key in complete}):
        some = {key: s for key, s in complete.items() if (key[0], key[2]) == (regime, seed)}
        lines += _section(f"{regime} fine-tuning, seed {seed}", some)
    text = "\n".join(lines) + "\n"
    publish(text, arguments.output, BEGIN, END)


def _section(title: str, settings: dict[tuple[str, str, int], Setting]) -> list[str]:
    tests = [
        (key, name.removeprefix("out "))
        for key, setting in settings.items()
        for name in setting["plain"][1.0]
        if name.startswith("out ")
    ]
    runs = {"early stopping": "early", "OutReg": "out", TARGETED: "default-target"}
    missing = {  # trained for all settings or not compared
        row for row, run in runs.items() if not all(run in setting for setting in settings.values())
    }
    shown = [row for row in recipes() if row not in missing]
    lines = [f"\n### {title}: {len(tests)} shifts\n"]
    lines.append("| | in | out | regret in: mean (worst) | regret out: mean (worst) | below the base out |")
    lines.append("|---|---|---|---|---|---|")
    table = {row: [_cells(settings[key], test, row, PULL) for key, test in tests] for row in shown}
    ours = [row for row in (DEFAULT, TARGETED) if row not in missing]
    table |= _left_out(settings, tests, ours)
    for row, cells in table.items():
        lines.append(_summary(row, cells))
    lines.append(
        "\nEach shift: in / out; the default's share; its difference from the base out of distribution.\n"
    )
    columns = ["", "base", "plain", "WiSE-FT 0.6"]
    for name in ("default", "`--target`")[: len(ours)]:
        columns += [name, "share", "against the base"]
    lines.append("| " + " | ".join(columns).lstrip() + " |")
    lines.append("|---" * len(columns) + "|")
    for number, (key, test) in enumerate(tests):
        setting = settings[key]
        cells = [test]
        for row in ("base", "plain", "WiSE-FT 0.6"):
            cells.append(_both(table[row][number]))
        for row in ours:
            share = recipes()[row](setting, test)[1]
            cells += [_both(table[row][number]), f"{share:g}", _against(table[row][number])]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


class _Cell:
    """A recipe on one test: its scores, the base's, and the best rival's means."""

    def __init__(self, ours: dict[str, Scores], base: Scores, best: dict[str, float]) -> None:
        self.ours, self.base, self.best = ours, base, best

    def regret(self, side: str) -> float:
        return 100 * (self.best[side] - float(self.ours[side].mean()))


def _cells(setting: Setting, test: str, row: str, pull: float) -> _Cell:
    sides = {"in": "in", "out": f"out {test}"}
    rows = recipes(pull)
    ours = {side: scores(setting, rows[row](setting, test), part) for side, part in sides.items()}
    best = {
        side: max(
            float(scores(setting, rows[rival](setting, test), part).mean())
            for rival in RIVALS
            if rows[rival](setting, test)[0] in setting
        )
        for side, part in sides.items()
    }
    return _Cell(ours, scores(setting, ("plain", 0.0), sides["out"]), best)


def _left_out(
    settings: dict[tuple[str, str, int], Setting],
    tests: list[tuple[tuple[str, str, int], str]],
    rows: list[str],
) -> dict[str, list[_Cell]]:
    """Our recipes with the pull that is best on all other families."""
    fitted: dict[str, list[_Cell]] = {}
    for row in rows:
        by_pull = {pull: [_cells(settings[key], test, row, pull) for key, test in tests] for pull in PULLS}
        picked = []
        for number, (key, _) in enumerate(tests):
            others = [i for i, (other, _) in enumerate(tests) if _family(other[1]) != _family(key[1])]
            pull = min(
                PULLS,
                key=lambda pull: sum(by_pull[pull][i].regret(side) for i in others for side in ("in", "out")),
            )
            picked.append(by_pull[pull][number])
        fitted[f"{row}, pull fitted on other families"] = picked
    return fitted


def _family(source: str) -> str:
    first = source.split("-", maxsplit=1)[0]
    return FAMILIES.get(first, first)


def _summary(row: str, cells: list[_Cell]) -> str:
    columns = [row]
    for side in ("in", "out"):
        columns.append(f"{100 * np.mean([cell.ours[side].mean() for cell in cells]):.2f}")
    for side in ("in", "out"):
        regrets = [cell.regret(side) for cell in cells]
        columns.append(f"{np.mean(regrets):.2f} ({max(regrets):.2f})")
    below = sum(interval(cell.ours["out"] - cell.base).high < 0 for cell in cells)
    columns.append(f"{below}")
    return "| " + " | ".join(columns) + " |"


def _both(cell: _Cell) -> str:
    return f"{100 * cell.ours['in'].mean():.1f} / {100 * cell.ours['out'].mean():.1f}"


def _against(cell: _Cell) -> str:
    bounds = interval(cell.ours["out"] - cell.base)
    mean = 100 * float((cell.ours["out"] - cell.base).mean())
    return f"{mean:+.1f} ({100 * bounds.low:+.1f} to {100 * bounds.high:+.1f})"


if __name__ == "__main__":
    main()
