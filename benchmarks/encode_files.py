"""Bulk encoding: one process, two shards, Ray with two actors, Spark with two tasks.

Texts are made from a list of words, so nothing has to be downloaded. Each way encodes the same files with one
thread a process, in turn, and the median of the rounds counts::

    python benchmarks/encode_files.py MODEL --rows 200000 --rounds 3

Beside the seconds it reports processor seconds: of every process that a way starts, those of Ray too. They
say what a way costs also where other work runs on the machine. A file of 20,000 rows is encoded too: the
difference tells a way's start from its rate, and from how many rows on an engine is close to two shards.
``benchmarks/search_stores.py`` searches.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

WORDS = ["usb", "dock", "cable", "hdmi", "port", "red", "steel", "lamp", "router", "switch", "power", "bank"]
WORDS += ["case", "cover", "screen", "phone", "laptop", "stand", "holder", "mount", "camera", "lens", "bag"]
WORDS += ["charger", "adapter", "fast", "mini", "large", "small", "wireless", "keyboard", "mouse", "desk"]
WAYS = ("one process", "two shards", "ray, two actors", "spark, two tasks")
SPARK = """
import sys
from pyspark.sql import SparkSession
from pyspark.sql.types import ArrayType, FloatType, StructField, StructType
from leanmatch.batch import Encode
model, source, output = sys.argv[1:]
builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
for name in ("bindAddress", "host"):
    builder = builder.config(f"spark.driver.{name}", "127.0.0.1")
spark = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", "4096").getOrCreate()
items = spark.read.parquet(source)
encode = Encode(model, text_columns="title", threads=1, fixed_size=False)
schema = StructType([*items.schema, StructField("vector", ArrayType(FloatType()))])
items.mapInArrow(encode.batches, schema).write.parquet(output)
spark.stop()
"""
"""The job of docs/how-to/encode.md."""
FEW = 20_000
"""Rows of the file that shows the start."""
CLOSE = 1.15
"""An engine is close to two shards when it takes at most so many times as long."""
MARK = "LEANMATCH_BENCHMARK"
"""Variable that tells the processes of one way."""


def write_titles(path: Path, rows: int, row_group: int = 20_000) -> None:
    """``rows`` titles of 8 words and a number, in row groups of some rows, with columns for filters."""
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
    pq.write_table(pa.table(columns), path, row_group_size=row_group)


def encode(model: str, source: Path, output: Path, *options: str) -> subprocess.Popen[bytes]:
    """``leanmatch encode``, started; its messages go to ``OUTPUT.log``."""
    code = "import sys; from leanmatch.cli.app import main; sys.argv[0] = 'leanmatch'; main()"
    command = [sys.executable, "-c", code, "encode", model, str(source), "-o", str(output), *options]
    with output.with_name(output.name + ".log").open("ab") as log:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)


class Processors:
    """Processor seconds of all processes that carry a mark in their environment, and of the busiest of them.

    Processes of Ray leave their parent, so they are found by what they inherit. They are looked at twice
    a second; what a process does after the last look is lost.
    """

    def __init__(self) -> None:
        self.mark = f"{MARK}={uuid.uuid4().hex}"
        self._ticks: dict[str, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Processors:
        os.environ[MARK] = self.mark.partition("=")[2]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        del os.environ[MARK]
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    if self.mark.encode() in (process / "environ").read_bytes():
                        fields = (process / "stat").read_text().rpartition(")")[2].split()
                        self._ticks[process.name] = int(fields[11]) + int(fields[12])

    @property
    def seconds(self) -> float:
        """Of all of them."""
        return sum(self._ticks.values()) / os.sysconf("SC_CLK_TCK")

    @property
    def busiest(self) -> float:
        """Of the one that took most: at least so long it takes on idle processors."""
        return max(self._ticks.values(), default=0) / os.sysconf("SC_CLK_TCK")


def timed(started: list[subprocess.Popen[bytes]], begin: float) -> float:
    """Seconds until all processes have ended; each must have succeeded."""
    for process in started:
        if process.wait():
            raise SystemExit(f"failed: {process.args}")
    return time.perf_counter() - begin


def pinned(cpus: set[int]) -> None:
    """Let this process and those that it starts use some CPUs only, so that each has one thread."""
    os.sched_setaffinity(0, cpus)


def usable_ways() -> list[str]:
    """The ways, without Spark where it cannot run, which is told."""
    lacking = [] if importlib.util.find_spec("pyspark") else ["pyspark"]
    lacking += [] if shutil.which("java") else ["a Java runtime"]
    if not lacking:
        return list(WAYS)
    print(f"SPARK IS LEFT OUT: there is no {' and no '.join(lacking)}", file=sys.stderr, flush=True)
    return list(WAYS[:-1])


def on_spark(model: str, source: Path, output: Path) -> subprocess.Popen[bytes]:
    """The job in Spark, started."""
    command = [sys.executable, "-c", SPARK, model, str(source), str(output)]
    settings = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, env={**os.environ, **settings}, **quiet)


def compare(
    ways: list[str], model: str, source: Path, folder: Path, rows: int, rounds: int
) -> dict[str, Any]:
    """Seconds of each way, in turn."""
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        raise SystemExit("this comparison needs two CPUs")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    used: dict[str, list[float]] = {name: [] for name in ways}
    busiest: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in ways:
            output = folder / f"{name}-{number}"
            begin = time.perf_counter()
            with Processors() as processors:
                if name == "one process":
                    pinned({cpus[0]})
                    started = [encode(model, source, output)]
                elif name == "two shards":
                    started = []
                    for shard in range(2):
                        pinned({cpus[shard]})
                        started.append(encode(model, source, output, "--shard", f"{shard}/2"))
                elif name.startswith("ray"):
                    pinned(set(cpus[:2]))
                    started = [encode(model, source, output, "--engine", "ray", "--workers", "2")]
                else:
                    pinned(set(cpus[:2]))
                    started = [on_spark(model, source, output)]
                pinned(set(cpus))
                seconds[name].append(timed(started, begin))
            used[name].append(processors.seconds)
            busiest[name].append(processors.busiest)
            if not any((output / end).is_file() for end in ("complete.json", "_SUCCESS")):
                raise SystemExit(f"{name} did not finish")
            size = sum(path.stat().st_size for path in output.rglob("*.parquet"))
            shutil.rmtree(output)
    wall, work, longest = (
        {name: statistics.median(values) for name, values in found.items()}
        for found in (seconds, used, busiest)
    )
    report: dict[str, Any] = {
        "seconds": seconds,
        "processor seconds": used,
        "of the busiest process": busiest,
        "bytes a row of the parts": round(size / rows),
    }
    if "two shards" not in ways:
        return report
    if "one process" in ways:
        report["two shards against one process"] = wall["one process"] / wall["two shards"]
        by_processor = work["one process"] / longest["two shards"]
        report["two shards against one process, by processor time"] = by_processor
    for name in engines(ways):
        report[f"{name} over two shards"] = wall[name] / wall["two shards"] - 1
        report[f"{name} over two shards, by processor time"] = work[name] / work["two shards"] - 1
    return report


def engines(ways: list[str]) -> list[str]:
    """Those of the ways that are not leanmatch alone."""
    return [name for name in ways if "," in name]


def start_and_rate(ways: list[str], few: dict[str, Any], many: dict[str, Any], rows: int) -> dict[str, Any]:
    """Seconds before the first row and rows a second after it, of each way, from two sizes."""
    out: dict[str, Any] = {}
    starts, paces = {}, {}
    for name in ways:
        small, large = (statistics.median(report["seconds"][name]) for report in (few, many))
        paces[name] = (large - small) / (rows - FEW)
        starts[name] = small - paces[name] * FEW
        out[name] = {"start, seconds": round(starts[name], 2), "rows a second": round(1 / paces[name])}
    for name in engines(ways) if "two shards" in ways else ():
        gain = CLOSE * paces["two shards"] - paces[name]  # seconds a row
        needed = round((starts[name] - CLOSE * starts["two shards"]) / gain) if gain > 0 else None
        out[name][f"at most {CLOSE} times two shards from so many rows on"] = needed
    return out


def main() -> None:
    """Run the comparison and print it as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder or name of a model")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="all that can run here if not given")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        reports, ways = [], options.ways or usable_ways()
        for rows in (FEW, options.rows):
            write_titles(folder / f"{rows}.parquet", rows)
            source = folder / f"{rows}.parquet"
            reports.append(compare(ways, options.model, source, folder, rows, options.rounds))
    parts = start_and_rate(ways, *reports, options.rows)
    print(json.dumps({"rows": options.rows, **reports[1], "start and rate": parts}, indent=1))


if __name__ == "__main__":
    main()
