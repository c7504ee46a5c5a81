"""The load table of docs/results/serve.md from the runs of ``benchmarks/serve.py --json``.

python research/serve_table.py docs/results/serve/runs.jsonl -o docs/results/serve.md
"""

from __future__ import annotations

from typing import Any

from collect import read_runs
from pages import arguments_of, publish

BEGIN, END = "<!-- load table -->\n", "<!-- end of load table -->\n"
HEAD = (
    "model, workers",
    "date, load of the machine",
    "ready, s",
    "100/s: p50 / p99, ms",
    "one at a time, answers/s",
    "64 connections, answers/s",
    "ratio",
    "1,000 connections: answers",
    "memory, MB: calm / 1st overload / 2nd",
)


def main(words: list[str] | None = None) -> None:
    arguments = arguments_of(__doc__, words)
    rows = [_row(run) for run in read_runs(arguments.results).values()]
    table = "\n".join(["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|", *rows]) + "\n"
    publish(table, arguments.output, BEGIN, END)


def _row(run: dict[str, Any]) -> str:
    single, many, steady, over = (
        run[name] for name in ("one at a time", "64 connections", "100 a second", "1000 connections")
    )
    statuses = ", ".join(f"{count:,} x {status}" for status, count in over["statuses"].items())
    cells = (
        f"{run['model']}, {run['workers']}",
        f"{run['date']}, {run['load_before']:g}",
        f"{run['seconds_to_ready']:.2f}",
        f"{steady['p50_ms']:.1f} / {steady['p99_ms']:.1f}",
        f"{single['answers_per_second']:,.0f} ({single['cpu_ms_each']:.2f})",
        f"{many['answers_per_second']:,.0f} ({many['cpu_ms_each']:.2f})",
        f"{run['ratio']:.2f}",
        statuses,
        " / ".join(f"{size:.0f}" for size in over["memory_mb"]),
    )
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
