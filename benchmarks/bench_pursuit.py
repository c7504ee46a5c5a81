"""Seconds of a full projection of all linear layers: native kernels, batched torch, the float64 reference.

    OMP_NUM_THREADS=2 python benchmarks/bench_pursuit.py --write docs/results/pursuit.md

Bars (2 cores, b16 r64 k4): MiniLM's 36 layers in at most 0.2 s, BERT-base's 72 in at most 2 s. Weights are
made up; their values hardly matter to the time. All contestants take turns in every round, and a ratio is
taken within its round. The reference is timed on a few rows and scaled up; its factors are checked against
the native ones.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from leanmatch.cpus import usable_cpus
from leanmatch.factorization.pursuit.batched import pursue_torch
from leanmatch.factorization.pursuit.native import (
    LEVELS,
    decode,
    decode_backward,
    level,
    pursue,
    refit,
)
from leanmatch.files import atomic_file
from leanmatch.native import LIMIT_VARIABLE, variants

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "factorization"))
from slow_pursuit import pursue_reference

WIDTH, ATOMS, NONZEROS = 16, 64, 4
REFERENCE_ROWS = 4  # of each layer's matrix, in one block
SHAPES = {
    "MiniLM": [*[(384, 384)] * 4, (1536, 384), (384, 1536)] * 6,
    "BERT-base": [*[(768, 768)] * 4, (3072, 768), (768, 3072)] * 12,
}
ROUNDS_SHARE = {"MiniLM": 1, "BERT-base": 3}  # batched torch takes long there
BARS = {"MiniLM": 0.2, "BERT-base": 2.0}
NATIVE, TORCH = "native", "batched torch"
BY_CORRELATION: dict[str, Any] = {"selection": "correlation", "threads": 1}


class Layer(NamedTuple):
    weight: np.ndarray
    atoms: np.ndarray


def layers(shapes: list[tuple[int, int]]) -> list[Layer]:
    rng = np.random.default_rng(0)
    made = []
    for m, n in shapes:
        atoms = rng.normal(size=(n // WIDTH, ATOMS, WIDTH)).astype(np.float32)
        made.append(Layer(rng.normal(size=(m, n)).astype(np.float32), atoms))
    return made


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def processor_seconds(work: Callable[[Any, Any], object], pairs: list[tuple[Any, Any]]) -> float:
    begin = time.process_time()
    for layer, code in pairs:
        work(layer, code)
    return time.process_time() - begin


def race(made: list[Layer], rounds: int, threads: int) -> dict[str, list[float]]:
    """Seconds of native and torch, round by round; the first round warms up and is dropped."""
    tensors = [(torch.from_numpy(layer.weight), torch.from_numpy(layer.atoms)) for layer in made]
    contestants: dict[str, Callable[[], object]] = {
        NATIVE: lambda: [pursue(*layer, NONZEROS, threads=threads) for layer in made],
        "native, by correlation": lambda: [
            pursue(*layer, NONZEROS, selection="correlation", threads=threads) for layer in made
        ],
        TORCH: lambda: [pursue_torch(weight, atoms, NONZEROS) for weight, atoms in tensors],
    }
    spent: dict[str, list[float]] = {name: [] for name in contestants}
    for round_ in range(rounds + 1):
        for name, work in contestants.items():
            took = seconds(work)
            if round_:
                spent[name].append(took)
    return spent


def reference_seconds(made: list[Layer]) -> float:
    """Of all rows and blocks, scaled up from a few; refuses where native and reference differ."""
    took = cells = 0.0
    for weight, atoms in made[:6]:
        part = weight[:REFERENCE_ROWS, :WIDTH]
        begin = time.perf_counter()
        expected = pursue_reference(part, atoms[:1], NONZEROS)
        took += time.perf_counter() - begin
        cells += REFERENCE_ROWS
        found = pursue(np.ascontiguousarray(part), atoms[:1], NONZEROS)
        clear = expected.gap > 1e-3
        if not clear.any() or not (found.indices[clear] == expected.indices[clear]).all():
            raise AssertionError("the native pursuit and the reference differ")
    return took * sum(weight.size for weight, _ in made) / WIDTH / cells


def by_level(made: list[Layer], rounds: int) -> dict[str, dict[str, float]]:
    """Least processor seconds of one thread, for every level that runs here and every kernel."""
    before = os.environ.get(LIMIT_VARIABLE)
    table: dict[str, dict[str, float]] = {}
    try:
        for name in LEVELS:
            os.environ.pop(LIMIT_VARIABLE, None)
            if name not in variants() or not variants()[name].runs:
                continue
            os.environ[LIMIT_VARIABLE] = name
            assert level() == name
            codes = [pursue(*layer, NONZEROS, threads=1) for layer in made]
            kernels = {
                "by correlation": lambda layer, _: pursue(
                    *layer, NONZEROS, selection="correlation", threads=1
                ),
                "by gain": lambda layer, _: pursue(*layer, NONZEROS, threads=1),
                "beam of 4": lambda layer, _: pursue(*layer, NONZEROS, beam=4, threads=1),
                "refit": lambda layer, code: refit(*layer, code.indices, threads=1),
                "decode": lambda layer, code: decode(code.indices, code.values, layer.atoms, threads=1),
                "decode, backward": lambda layer, code: decode_backward(
                    layer.weight, code.indices, code.values, layer.atoms, threads=1
                ),
            }
            pairs = list(zip(made, codes, strict=True))
            table[name] = {
                kernel: min(processor_seconds(work, pairs) for _ in range(rounds))
                for kernel, work in kernels.items()
            }
    finally:
        os.environ.pop(LIMIT_VARIABLE, None)
        if before is not None:
            os.environ[LIMIT_VARIABLE] = before
    return table


def report(arguments: argparse.Namespace, command: list[str]) -> str:
    threads = usable_cpus()
    torch.set_num_threads(threads)
    lines = [
        "# Pursuit: a full projection of all linear layers",
        "",
        f"Made by the command below; the head of the script says how. b{WIDTH} r{ATOMS} k{NONZEROS}, "
        f"{threads} threads, level {level()}.",
        "",
        f"- command: `{shlex.join(['python', *command])}`",
        f"- date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"- machine: {platform.machine()}, {os.cpu_count()} CPUs; load average {os.getloadavg()[0]:.1f}",
        f"- versions: Python {platform.python_version()}, leanmatch {version('leanmatch')}, "
        f"torch {torch.__version__}",
        "",
        "| model | native, s: median (least) | by correlation | batched torch | torch / native | "
        "reference / native | bar |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in arguments.models:
        made = layers(SHAPES[name][: arguments.layers or None])
        spent = race(made, max(1, arguments.rounds // ROUNDS_SHARE[name]), threads)
        ratio = statistics.median(b / a for a, b in zip(spent[NATIVE], spent[TORCH], strict=True))
        medians = {who: statistics.median(took) for who, took in spent.items()}
        slow = reference_seconds(made) / medians[NATIVE]
        verdict = "met" if medians[NATIVE] <= BARS[name] else "MISSED"
        lines.append(
            f"| {name} | {medians[NATIVE]:.3f} ({min(spent[NATIVE]):.3f}) | "
            f"{medians['native, by correlation']:.3f} | {medians[TORCH]:.2f} | {ratio:.1f} | {slow:,.0f} | "
            f"{BARS[name]} s: {verdict} |"
        )
    table = by_level(layers(SHAPES["MiniLM"][: arguments.layers or None]), arguments.rounds)
    lines += [
        "",
        "## MiniLM, one thread, least processor seconds",
        "",
        f"| kernel | {' | '.join(table)} |",
        f"|---|{'---|' * len(table)}",
        *(
            f"| {kernel} | {' | '.join(f'{row[kernel]:.3f}' for row in table.values())} |"
            for kernel in next(iter(table.values()))
        ),
        "",
    ]
    return "\n".join(lines)


def main(command: list[str]) -> str:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--layers", type=int, default=0, help="matrices, from the first on; 0 for all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", type=Path, help="write the tables to this file")
    arguments = parser.parse_args(command)
    text = report(arguments, ["benchmarks/bench_pursuit.py", *command])
    print(text)
    if arguments.write:
        with atomic_file(arguments.write) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return text


if __name__ == "__main__":
    main(sys.argv[1:])
