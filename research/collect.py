"""Folds result files, one JSON a run, into the one file of a table under ``docs/results``.

    python research/collect.py build/compression docs/results/compression/runs.jsonl
    python research/collect.py build/ood docs/results/ood/runs.parquet

Grids and ``benchmarks/serve.py --json`` write a file a run, so that they can be interrupted. A run replaces
the one that the folded file has under the same name; the others stay. Runs of the out-of-distribution grid
carry the rank of every query, some 5 million in all: they go into Parquet, and averages that the fresh run
lacks are kept. Everything else is a line of JSON a run.
"""

from __future__ import annotations

import argparse
import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.files import atomic_file

Run = dict[str, Any]


def read_runs(source: Path) -> dict[str, Run]:
    """Name to run, in the order of the names: of a folder of JSON files, or of a folded file.

    Ranks are bytes, one a query: ``run["ranks"][average][slice]``.
    """
    if source.is_dir():
        runs = {path.stem: _unpacked(json.loads(path.read_text("utf-8"))) for path in source.glob("*.json")}
    elif source.suffix == ".parquet":
        runs = _read_ranks(source)
    elif source.is_file():
        lines = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
        runs = {line.pop("name"): line for line in lines}
    else:
        raise SystemExit(f"{source} is neither a folder of result files nor a folded file")
    return {name: runs[name] for name in sorted(runs, key=lambda name: f"{name}.json")}


def write_runs(target: Path, runs: dict[str, Run]) -> None:
    """The folded file: Parquet or lines of JSON, by its suffix."""
    runs = {name: runs[name] for name in sorted(runs, key=lambda name: f"{name}.json")}
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as temporary:
        if target.suffix == ".parquet":
            _write_ranks(temporary, runs)
        else:
            lines = [json.dumps({"name": name, **run}, separators=(",", ":")) for name, run in runs.items()]
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def ranks_of(reciprocal: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Ranks of queries from their reciprocal ranks; 0 stays 0."""
    return np.where(reciprocal > 0, np.rint(1 / np.maximum(reciprocal, 1e-9)), 0).astype(np.uint8)


def pack_ranks(ranks: bytes) -> str:
    """Ranks of queries, a byte each, for a result file in JSON."""
    return base64.b64encode(zlib.compress(ranks, 9)).decode()


def _unpacked(run: Run) -> Run:
    if "ranks" in run:
        run["ranks"] = {
            average: {part: zlib.decompress(base64.b64decode(packed)) for part, packed in slices.items()}
            for average, slices in run["ranks"].items()
        }
    return run


def _write_ranks(path: Path, runs: dict[str, Run]) -> None:
    """A row for each run, average and slice; rows of the same queries are neighbours, to compress well."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = []
    for name, run in runs.items():
        told = json.dumps({key: value for key, value in run.items() if key not in ("ranks", "mrr10")})
        for average, slices in run["ranks"].items():
            for part, ranks in slices.items():
                same = run["encoder"], run["setting"], run["seed"], part, run["regime"], run["method"]
                rows.append((same, float(average), (name, told, average, part, ranks)))
    rows.sort(key=lambda row: row[:2])
    columns = zip(*(row[2] for row in rows), strict=True)
    names = ("name", "run", "average", "slice")
    table = pa.table([pa.array(column) for column in columns], [*names, "ranks"])
    parquet.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=list(names),
        data_page_size=1 << 26,
        write_statistics=False,
    )


def _read_ranks(path: Path) -> dict[str, Run]:
    from pyarrow import parquet

    runs: dict[str, Run] = {}
    for row in parquet.read_table(path).to_pylist():
        run = runs.setdefault(row["name"], {**json.loads(row["run"]), "ranks": {}})
        run["ranks"].setdefault(row["average"], {})[row["slice"]] = row["ranks"]
    return runs


def main(arguments: list[str] | None = None) -> None:
    """Fold a folder into a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("target", type=Path)
    options = parser.parse_args(arguments)
    fresh = read_runs(options.folder)
    if not fresh:
        raise SystemExit(f"{options.folder} has no result files (*.json)")
    there = read_runs(options.target) if options.target.exists() else {}
    for name in there.keys() & fresh.keys():
        if "ranks" in fresh[name]:
            fresh[name]["ranks"] = there[name]["ranks"] | fresh[name]["ranks"]
    write_runs(options.target, there | fresh)
    replaced = len(there.keys() & fresh.keys())
    print(f"{options.target}: {len(there | fresh)} runs, {len(fresh) - replaced} new, {replaced} replaced")


if __name__ == "__main__":
    main()
