"""Machines, hours, bytes and euros for many items, from rates that were measured.

Encoding is linear in the texts behind the start of a process, and so is building a catalogue that is searched
exactly. From 200,001 items on it has an index of ``C = 4 sqrt(N)`` cells (IVF). Looking for the cell of a
vector costs a visit and a comparison with each centroid. K-means visits 64 vectors a cell ten times, and then
every vector is visited once: ``640 C + N`` visits with ``C`` comparisons each. Building a graph (HNSW) takes
``c N log2 N``. Rates come from a file (docs/results/scale.json has ours); put your own there::

    python benchmarks/scale_costs.py docs/results/scale.json --items 1e9 --cores 16 --memory 64 --euros 0.5
    python benchmarks/scale_costs.py docs/results/scale.json --check
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GB = 1e9
HOURS_A_MONTH = 730
GRAPHS = ("pgvector", "qdrant")
"""Engines whose index is a graph."""
VISITS_OF_K_MEANS = 640
"""For each cell: ten iterations over 64 vectors (leanmatch.index.search)."""


@dataclass(frozen=True)
class Machine:
    """What is paid for: cores, gigabytes of memory, and euros an hour."""

    cores: int
    memory: float
    euros: float


def encode_seconds(rates: dict[str, Any], items: float) -> float:
    """Processor seconds of encoding, with reading the texts and writing the parts."""
    encode = rates["encode"]
    return float(encode["start, seconds"]) + items / float(encode["texts a second and core"])


def build_seconds(rates: dict[str, Any], engine: str, items: float, dimension: int | None = None) -> float:
    """Processor seconds of building a store of encoded items; of the rates' dimension if none is given."""
    at, usual = rates["build"][engine], float(rates["dimension"])
    start = float(at["start, seconds"])
    linear = (float(at["processor seconds"]) - start) / float(at["rows"])  # seconds an item
    seconds = linear * items
    if engine in GRAPHS:
        seconds *= math.log2(max(items, 2)) / math.log2(at["rows"])
    cells = at.get("with cells")
    if cells is not None and items > cells["above, rows"]:
        number = 4 * math.sqrt(items)
        visits = VISITS_OF_K_MEANS * number + items
        seconds += visits * (cells["seconds a visit"] + number * cells["seconds a comparison"])
    return start + seconds * (dimension or usual) / usual


def estimate(rates: dict[str, Any], engine: str, items: float, machine: Machine) -> dict[str, float]:
    """What encoding, building and holding some items takes.

    Machines are as many as hold the memory of the engine. Hours of building assume that all cores of these
    machines work, each on its own shard.
    """
    of_cells = _bytes_of_cells(rates, engine, items)
    memory = items * (rates["memory bytes a vector"][engine] + of_cells) / GB
    machines = max(1, math.ceil(memory / machine.memory))
    encoding = encode_seconds(rates, items) / 3600 / machine.cores
    building = build_seconds(rates, engine, items / machines) * machines / 3600 / machine.cores
    return {
        "items": items,
        "encoding, machine hours": encoding,
        "parts, GB": items * rates["encode"]["bytes a row of the parts"] / GB,
        "building, machine hours": building,
        "disk, GB": items * (rates["disk bytes a vector"][engine] + of_cells) / GB,
        "memory, GB": memory,
        "machines": machines,
        "euros, once": (encoding + building) * machine.euros,
        "euros a month": machines * machine.euros * HOURS_A_MONTH,
    }


def _bytes_of_cells(rates: dict[str, Any], engine: str, items: float) -> int:
    """Bytes that a vector takes in an index of cells; 0 where there is none."""
    cells = rates["build"][engine].get("with cells")
    return 0 if cells is None or items <= cells["above, rows"] else int(cells["bytes a vector"])


def check(rates: dict[str, Any]) -> list[tuple[str, float, float]]:
    """Each measured point that gave no rate: its name, what was measured and what the model says."""
    out = []
    for point in rates["points"]:
        if point.get("gave a rate"):
            continue
        name = f"{point['what']} {point.get('engine', '')} {point['rows']:,}"
        if point["what"] == "encode":
            expected = encode_seconds(rates, point["rows"])
        else:
            expected = build_seconds(rates, point["engine"], point["rows"], point.get("dimension"))
        out.append((name, point["processor seconds"], expected))
    return out


def _table(rows: list[dict[str, Any]]) -> str:
    names = list(rows[0])
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    lines += [" | ".join(_shown(row[name]) for name in names) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2g}"


def main() -> None:
    """Print the table of costs, or the check."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rates", type=Path, help="a file of measured rates")
    parser.add_argument("--items", type=float, nargs="+", default=[1e7, 1e8, 1e9])
    parser.add_argument("--cores", type=int, default=16)
    parser.add_argument("--memory", type=float, default=64, help="gigabytes of a machine")
    parser.add_argument("--euros", type=float, default=0.5, help="an hour of a machine")
    parser.add_argument("--check", action="store_true", help="compare the model with the measured points")
    options = parser.parse_args()
    rates = json.loads(options.rates.read_text(encoding="utf-8"))
    if options.check:
        for name, measured, expected in check(rates):
            print(f"{name}: measured {measured:,.1f} s, model {expected:,.1f} s ({expected / measured:.2f})")
        return
    machine = Machine(options.cores, options.memory, options.euros)
    rows = [
        {"engine": engine, **estimate(rates, engine, items, machine)}
        for items in options.items
        for engine in rates["build"]
    ]
    print(_table(rows))


if __name__ == "__main__":
    main()
