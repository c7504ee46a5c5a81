"""The table of ``research/contextual_shifts.py``: a part of ``docs/results/ood.md``.

    python research/contextual_table.py docs/results/ood/contextual.parquet -o docs/results/ood.md

Metric: MRR@10 in points. Intervals: paired bootstrap over queries, 95%.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from collect import read_runs
from pages import arguments_of, interval, publish, reciprocal

BEGIN, END = "<!-- contextual -->\n", "<!-- end of contextual -->\n"
ROWS = ("base", "plain", "WiSE-FT 0.6", "WiSE-FT 0.8", "OutReg", "ITVReg", "ITVReg at 0.8", "default")


def main(words: list[str] | None = None) -> None:
    arguments = arguments_of(__doc__, words)
    settings: dict[tuple[str, str, int], dict[str, Any]] = defaultdict(dict)
    for run in read_runs(arguments.results).values():
        settings[run["regime"], run["setting"], run["seed"]][run["method"]] = run
    lines = []
    for regime in sorted({key[0] for key in settings}):
        lines += [
            f"\n**{regime}** (in / out of distribution; in brackets the interval of the difference from the "
            "base, out):\n",
            "| | " + " | ".join(ROWS) + " | default's share |",
            "|---" * (len(ROWS) + 2) + "|",
        ]
        for runs in (settings[key] for key in sorted(settings) if key[0] == regime):
            ranks = {row: {p: reciprocal(v) for p, v in runs[row]["ranks"]["1"].items()} for row in ROWS}
            for test in (part for part in ranks["base"] if part != "in"):
                cells = [test.removeprefix("out ")]
                for row in ROWS:
                    cell = f"{100 * ranks[row]['in'].mean():.1f} / {100 * ranks[row][test].mean():.1f}"
                    if row != "base":
                        bounds = interval(ranks[row][test] - ranks["base"][test])
                        cell += f" ({100 * bounds.low:+.1f} to {100 * bounds.high:+.1f})"
                    cells.append(cell)
                lines.append(f"| {' | '.join(cells)} | {runs['default']['default_share']:g} |")
    publish("\n".join(lines) + "\n", arguments.output, BEGIN, END)


if __name__ == "__main__":
    main()
