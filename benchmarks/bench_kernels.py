"""Linear kernels against their roofs, and dense-sparse against dense, on one core.

Roofs are measured in the same run: the time of each limiting instruction in registers
(`linear.measure_peaks`). A dense layer needs T m n / lanes multiplies; dense-sparse int8 needs T n r / 64
`vpdpbusd` and T ceil(m / 16) B ceil(k / 4) pairs of `vpermb` and `vpdpbusd`. Where T is so small that reading
the weights takes longer, that is the roof. All kernels of a shape take turns, round after round; a figure is
the lower quartile of the rounds, in processor time of the thread: other programs on the machine take turns
and caches, and the rounds that they spoil say nothing about a kernel. Weights are random: nothing depends
on their values.

    python benchmarks/bench_kernels.py [--rounds 25] [--output docs/results/kernels.md]
"""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import native_linear as linear
import numpy as np

SHAPES = ((384, 384), (1152, 384), (1536, 384), (384, 1536), (768, 768), (3072, 768), (768, 3072))
TOKENS = (1, 16, 64, 512)
WIDTH, ATOMS, NONZEROS = 16, 64, 4  # b, r, k
SECONDS = 1.5e-3  # that one measurement takes at least
CACHES = (("load_l1", 24 << 10), ("load_l2", 768 << 10), ("load_l3", 1 << 62))


@dataclass(frozen=True)
class Kernel:
    """A packed layer, how it is called, and its roof in seconds for T tokens."""

    layer: linear.PackedLinear
    quantized: bool
    roof: Callable[[int], float]


def roof_of(peaks: dict[str, float], weight_bytes: int, counts: dict[str, float]) -> Callable[[int], float]:
    """The larger of the instructions' time and that of reading the weights once; `counts` are per token."""
    cache = next(name for name, size in CACHES if weight_bytes <= size)
    reading = weight_bytes / 64 * peaks[cache]
    return lambda tokens: 1e-9 * max(sum(tokens * n * peaks[name] for name, n in counts.items()), reading)


def kernels(m: int, n: int, peaks: dict[str, float]) -> dict[str, Kernel]:
    """Every path that this machine has, for random weights of one shape."""
    rng = np.random.default_rng(0)
    blocks = n // WIDTH
    weight = rng.standard_normal((m, n)).astype(np.float32)
    indices = rng.integers(0, ATOMS, (m, blocks, NONZEROS)).astype(np.uint8)
    atoms_q = rng.integers(-127, 128, (blocks, ATOMS, WIDTH)).astype(np.int8)
    values_q = rng.integers(-127, 128, (m, blocks, NONZEROS)).astype(np.int8)
    bias = np.ones(m, np.float32)
    sparse_macs = n * ATOMS + m * blocks * NONZEROS
    found: dict[str, Kernel] = {}

    def add(name: str, layer: linear.PackedLinear, quantized: bool, **counts: float) -> None:
        found[name] = Kernel(layer, quantized, roof_of(peaks, layer.bytes, counts))

    add("dense f32", linear.dense_f32(weight, bias), False, fma=m * n / 16)
    sparse = linear.dense_sparse_f32(atoms_q / np.float32(127), indices, values_q / np.float32(127), bias)
    add("sparse f32", sparse, False, fma=sparse_macs / 16)
    if linear.has_bf16():
        # tdpbf16ps takes as long as tdpbusd, for half as many products
        counts = {"tdpbusd": m * n / 8192} if "tdpbusd" in peaks else {"vdpbf16ps": m * n / 32}
        add("dense bf16", linear.dense_bf16(weight, bias), False, **counts)
    if "vpdpbusd" in peaks:
        dense = linear.dense_i8(weight, bias)
        tables = linear.dense_sparse_i8(
            atoms_q, np.full((blocks, ATOMS), 0.01), indices, values_q, np.full(m, 0.01), bias
        )
        pairs = -(-m // 16) * blocks * -(-NONZEROS // 4)
        counts = {"tdpbusd": m * n / 16384} if "tdpbusd" in peaks else {"vpdpbusd": m * n / 64}
        for name, quantized in (("i8", True), ("i8, floats in", False)):
            add(f"dense {name}", dense, quantized, **counts)
            add(f"sparse {name}", tables, quantized, vpdpbusd=n * ATOMS / 64, lookup=pairs)
    return found


def measure(found: dict[str, Kernel], x: Any, rounds: int) -> dict[str, float]:
    """Seconds of a call of each kernel, lower quartile of the rounds; they take turns."""
    repeats = {}
    for name, kernel in found.items():
        once = kernel.layer.measure(x, quantized=kernel.quantized, repeats=3)
        repeats[name] = max(1, round(SECONDS / once))
    taken: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, kernel in found.items():
            taken[name].append(kernel.layer.measure(x, quantized=kernel.quantized, repeats=repeats[name]))
    return {name: statistics.quantiles(times, n=4)[0] for name, times in taken.items()}


def table(tokens: int, results: dict[tuple[int, int], dict[str, tuple[float, float]]]) -> list[str]:
    """Microseconds and share of the roof for every shape, and the ratios of dense to sparse."""
    names = list(next(iter(results.values())))
    pairs = [(kind, f"dense {kind}", f"sparse {kind}") for kind in ("i8", "i8, floats in", "f32")]
    pairs = [pair for pair in pairs if pair[1] in names]
    heads = [*names, *(f"ratio {kind}" for kind, *_ in pairs)]
    lines = [f"\n### {tokens} tokens\n", "| m x n | " + " | ".join(heads) + " |"]
    lines.append("|---" * (len(heads) + 1) + "|")
    for (m, n), row in results.items():
        cells = [f"{1e6 * seconds:.1f} ({100 * share:.0f}%)" for seconds, share in row.values()]
        cells += [f"**{row[dense][0] / row[sparse][0]:.2f}**" for _, dense, sparse in pairs]
        lines.append(f"| {m}x{n} | " + " | ".join(cells) + " |")
    return lines


def cpu_name() -> str:
    """The model line of /proc/cpuinfo, or what Python knows."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())


def main(rounds: int, output: Path) -> None:
    level = linear.resolve_level()
    peaks = linear.measure_peaks()
    if not peaks:
        raise SystemExit(f"level {level} has no peaks to compare with")
    lines = [
        "# Linear kernels\n",
        "Written by `benchmarks/bench_kernels.py`, which says what is measured and how; kernels-notes.md",
        "has the reasons and the limits.\n",
        f"Machine: {cpu_name()}, level {level}, one core. `b{WIDTH} r{ATOMS} k{NONZEROS}`, {rounds} rounds.",
        "Cells: microseconds of a call (share of the roof). Ratio: time of dense over time of dense-sparse;",
        '"floats in" includes the quantization of the activations, the others start from quantized ones.\n',
    ]
    lines += ["| peak | " + " | ".join(peaks) + " |", "|---" * (len(peaks) + 1) + "|"]
    lines.append("| ns | " + " | ".join(f"{value:.3f}" for value in peaks.values()) + " |")
    for tokens in TOKENS:
        results: dict[tuple[int, int], dict[str, tuple[float, float]]] = {}
        for m, n in SHAPES:
            x = np.random.default_rng(1).standard_normal((tokens, n)).astype(np.float32)
            found = kernels(m, n, peaks)
            times = measure(found, x, rounds)
            results[m, n] = {name: (t, found[name].roof(tokens) / t) for name, t in times.items()}
        lines += table(tokens, results)
        print("\n".join(lines[-len(SHAPES) - 3 :]), flush=True)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--output", type=Path, default=Path("docs/results/kernels.md"))
    options = parser.parse_args()
    main(options.rounds, options.output)
