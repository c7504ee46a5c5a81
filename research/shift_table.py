"""Tables from the runs of ``research/shift_grid.py``: a part of ``docs/results/ood.md``.

    python research/shift_table.py docs/results/ood/shifts.parquet -o docs/results/ood.md

Metric: MRR@10 in points. Regret: how far the recipe is below the best rival of a column, which is picked with
hindsight on the test itself; negative if the recipe is ahead of all rivals. The best of several noisy means
looks better than it is. So the rival is also picked on one half of the test queries and compared on the
other, over :data:`SPLITS` random splits, both ways. Intervals: paired bootstrap over queries, 95%. Runs were
scored at the shares of ``SHARES``; between them the reciprocal rank of each query is interpolated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
from collect import read_runs
from pages import Scores, arguments_of, at_share, interval, publish, reciprocal

from leanmatch.training.selection.choice import (
    CENTRE,
    PULL,
    SHARES,
    SHIFTED,
    TARGET,
    VALID,
    best_shares,
)

Recipe = Mapping[float, Mapping[str, Scores]]  # share -> slice -> reciprocal rank of each query
Setting = dict[str, Recipe]  # of one source, regime and seed: recipe by name
Key = tuple[str, str, int]  # regime, source, seed
RECIPES_NEEDED = ("half-rest", "default", "halves", "whole", "plain-rest", "plain", "early")
"""Settings that lack one of them are left out."""
FAMILIES = {
    "askubuntu": "questions",
    "quora": "questions",
    "cameras": "products",
    "computers": "products",
    "time": "next",
}
Rule = tuple[float, float]  # pull and centre of the choice
RULE = (PULL, CENTRE)
PULLS, CENTRES = (1.0, 1.5, 2.0, 3.0, 4.0), (0.7, 0.75, 0.8, 0.85, 0.9, 1.0)
RULES = tuple((pull, centre) for pull in PULLS for centre in CENTRES)
"""Candidates for the row whose rule is fitted on other families."""
SPLITS = 20
BEGIN, END = "<!-- shifts -->\n", "<!-- end of shifts -->\n"
DEFAULT, TARGETED = "**default**", "**default, `--target`**"
PLAIN = "`--regularizer none`"
WHOLE = "plain run never sees the slice"
RIVALS = ("base", "plain", "early stopping", "OutReg", "WiSE-FT 0.4", "WiSE-FT 0.6", "WiSE-FT 0.8")


def chosen(
    setting: Setting, recipe: str, unseen: str, *, target: str | None = None, rule: Rule = RULE
) -> float:
    """The share that ``leanmatch train`` takes.

    Args:
        setting: its runs.
        recipe: the recipe of the model.
        unseen: the recipe that the shifted slice is scored with; it was not trained on the slice.
        target: the test whose texts are the target, or none.
        rule: pull and centre; see :mod:`leanmatch.training.selection.choice`.
    """
    of = {VALID: (recipe, VALID), SHIFTED: (unseen, SHIFTED)}
    if target is not None:
        first = "halves" if recipe == "default-target" else recipe  # the other run was regularized on it
        of[TARGET] = (first, f"target {target}")
    per_query = {
        share: {name: setting[runs][share][part] for name, (runs, part) in of.items()} for share in SHARES
    }
    return float(best_shares(per_query, pull=rule[0], centre=rule[1])[0])


def recipes(rule: Rule = RULE) -> dict[str, Callable[[Setting, str], tuple[str, float]]]:
    """For each row of the table, a function from setting and test to the recipe and its share."""
    rows: dict[str, Callable[[Setting, str], tuple[str, float]]] = {
        "base": lambda setting, test: ("plain", 0.0),
        "plain": lambda setting, test: ("plain", 1.0),
        "early stopping": lambda setting, test: ("early", 1.0),
        "OutReg": lambda setting, test: ("out", 1.0),
    }
    for share in (0.4, 0.6, 0.8):
        rows[f"WiSE-FT {share:g}"] = lambda setting, test, share=share: ("plain", share)
    rows["the default's runs at share 1"] = lambda setting, test: ("default", 1.0)
    rows[PLAIN] = lambda setting, test: ("halves", chosen(setting, "halves", "half-rest", rule=rule))
    rows[WHOLE] = lambda setting, test: ("whole", chosen(setting, "whole", "plain-rest", rule=rule))
    rows[DEFAULT] = lambda setting, test: ("default", chosen(setting, "default", "half-rest", rule=rule))
    rows[TARGETED] = lambda setting, test: _with_target(setting, test, rule)
    return rows


def _with_target(setting: Setting, test: str, rule: Rule) -> tuple[str, float]:
    """If the plain run is worse than the base on the target texts, the ITVReg run is regularized on them."""
    base, first = (setting["halves"][share][f"target {test}"].mean() for share in (0.0, 1.0))
    recipe = "default-target" if first < base else "default"
    return recipe, chosen(setting, recipe, "half-rest", target=test, rule=rule)


def scores(setting: Setting, row: tuple[str, float], part: str) -> Scores:
    """Reciprocal ranks of a test's queries."""
    recipe, share = row
    return at_share({at: slices[part] for at, slices in setting[recipe].items()}, share)


def main(words: list[str] | None = None) -> None:
    arguments = arguments_of(__doc__, words)
    settings: dict[Key, Setting] = defaultdict(dict)
    for run in read_runs(arguments.results).values():
        key = run["regime"], run["setting"], run["seed"]
        settings[key][run["method"]] = {
            float(share): {name: reciprocal(packed) for name, packed in slices.items()}
            for share, slices in run["ranks"].items()
        }
    lines = []
    for regime in ("strong", "weak"):
        for targeted in (False, True):
            needed = {*RECIPES_NEEDED, *(["default-target"] if targeted else ())}
            some = {key: s for key, s in settings.items() if key[0] == regime and needed <= s.keys()}
            if some:
                lines += _section(f"{regime} fine-tuning" + ", `--target`" * targeted, some, targeted)
    publish("\n".join(lines) + "\n", arguments.output, BEGIN, END)


def _section(title: str, settings: dict[Key, Setting], targeted: bool) -> list[str]:
    tests = [
        (key, name.removeprefix("out "))
        for key, setting in settings.items()
        for name in setting["plain"][1.0]
        if name.startswith("out ")
    ]
    seeds = sorted({key[2] for key in settings})
    shown = [row for row in recipes() if row != TARGETED]
    if targeted:
        shown = ["base", "plain", DEFAULT, TARGETED]
    elif not all("out" in setting for setting in settings.values()):
        shown.remove("OutReg")
    lines = [
        f"\n### {title}: {len({test for _, test in tests})} shifts, {len(seeds)} seeds\n",
        "| | in | out | regret in: mean (worst) | regret out: mean (worst) | "
        "regret with the rival picked on other queries: in, out | significantly below the base, out |",
        "|---" * 7 + "|",
    ]
    table = {row: [_cells(settings[key], test, row, RULE) for key, test in tests] for row in shown}
    fitted = {} if targeted else _left_out(settings, tests, DEFAULT)
    lines += [_summary(row, cells) for row, cells in {**table, **fitted}.items()]
    if targeted:
        return lines
    lines += [
        "\nMean regret by seed: in / out; then the number of tests significantly below the base, out:\n",
        "| seed | default | plain |",
        "|---|---|---|",
    ]
    for seed in seeds:
        parts = [
            [cell for cell, (key, _) in zip(table[row], tests, strict=True) if key[2] == seed]
            for row in (DEFAULT, "plain")
        ]
        lines.append(f"| {seed} | {_short(parts[0])} | {_short(parts[1])} |")
    lines += [
        "\nMeans over the seeds, in / out. *Default's shares* has one share for each seed. The last column "
        "is the difference out of distribution; in brackets is the number of seeds whose interval is "
        "below 0.\n",
        "| | base | plain | default | default's shares | default against the base |",
        "|---" * 6 + "|",
    ]
    for name in dict.fromkeys(test for _, test in tests):
        at = [number for number, (_, test) in enumerate(tests) if test == name]
        shares = [f"{table[DEFAULT][i].share:g}" for i in at]
        columns = [name, *(_both([table[row][i] for i in at]) for row in ("base", "plain", DEFAULT))]
        columns += [", ".join(shares), _against([table[DEFAULT][i] for i in at])]
        lines.append("| " + " | ".join(columns) + " |")
    return lines


class _Cell:
    """A recipe on one test, in and out of distribution: its scores, the base's, and the rivals'."""

    def __init__(
        self, share: float, ours: dict[str, Scores], base: Scores, rivals: dict[str, Scores]
    ) -> None:
        self.share, self.ours, self.base, self.rivals = share, ours, base, rivals

    @cached_property
    def below(self) -> bool:
        """Whether it is significantly below the base out of distribution."""
        return interval(self.ours["out"] - self.base).high < 0

    def regret(self, side: str) -> float:
        """Against the rival that is best on all queries."""
        return 100 * float(self.rivals[side].mean(1).max() - self.ours[side].mean())

    def fair_regret(self, side: str) -> float:
        """On each half of the queries, against the rival that is best on the other half."""
        draw, rivals, count = np.random.default_rng(0), self.rivals[side], len(self.ours[side])
        regrets = []
        for _ in range(SPLITS):
            order = draw.permutation(count)
            parts = order[: count // 2], order[count // 2 :]
            for picked, judged in (parts, parts[::-1]):
                best = int(rivals[:, picked].mean(1).argmax())
                regrets.append((rivals[best, judged] - self.ours[side][judged]).mean())
        return 100 * float(np.mean(regrets))


def _cells(setting: Setting, test: str, row: str, rule: Rule) -> _Cell:
    sides = {"in": "in", "out": f"out {test}"}
    rows = recipes(rule)
    there = [made for made in (rows[rival](setting, test) for rival in RIVALS) if made[0] in setting]
    made = rows[row](setting, test)
    ours = {side: scores(setting, made, part) for side, part in sides.items()}
    rivals = {
        side: np.stack([scores(setting, rival, part) for rival in there]) for side, part in sides.items()
    }
    return _Cell(made[1], ours, scores(setting, ("plain", 0.0), sides["out"]), rivals)


def _left_out(settings: dict[Key, Setting], tests: list[tuple[Key, str]], row: str) -> dict[str, list[_Cell]]:
    """A recipe with the rule that minimizes the larger of the mean regrets, in and out, on other families."""
    by_rule = {rule: [_cells(settings[key], test, row, rule) for key, test in tests] for rule in RULES}
    picked = []
    for number, (key, _) in enumerate(tests):
        others = [i for i, (other, _) in enumerate(tests) if _family(other[1]) != _family(key[1])]
        fit = {
            rule: max(sum(cells[i].regret(side) for i in others) for side in ("in", "out"))
            for rule, cells in by_rule.items()
        }
        picked.append(by_rule[min(fit, key=fit.__getitem__)][number])
    return {f"{row}, rule fitted on other families": picked}


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
    fair = [np.mean([cell.fair_regret(side) for cell in cells]) for side in ("in", "out")]
    columns.append(f"{fair[0]:+.2f}, {fair[1]:+.2f}")
    columns.append(f"{_below(cells)} of {len(cells)}")
    return "| " + " | ".join(columns) + " |"


def _below(cells: list[_Cell]) -> int:
    return sum(cell.below for cell in cells)


def _short(cells: list[_Cell]) -> str:
    regrets = [float(np.mean([cell.regret(side) for cell in cells])) for side in ("in", "out")]
    return f"{regrets[0]:.2f} / {regrets[1]:.2f}; {_below(cells)}"


def _both(cells: list[_Cell]) -> str:
    return " / ".join(f"{100 * np.mean([c.ours[side].mean() for c in cells]):.1f}" for side in ("in", "out"))


def _against(cells: list[_Cell]) -> str:
    mean = 100 * float(np.mean([(cell.ours["out"] - cell.base).mean() for cell in cells]))
    return f"{mean:+.1f} ({_below(cells)})"


if __name__ == "__main__":
    main()
