"""Load on `leanmatch serve` over loopback: start, latency at a steady rate, throughput, overload.

    python benchmarks/serve.py MODEL [--items 50000] [--threads 1] [--workers 1] [--client wrk] [--json FILE]

The queries are made up, all different, and go through the real model. The item vectors are drawn (clusters
on the sphere): what a search costs does not depend on where they come from, and encoding 50,000 texts would
take most of the benchmark. Throughput is measured with wrk (one thread) where it is installed, else with
asyncio in this process, as the steady rate always is; the output says which. The client shares the machine's
cores with the server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter, deque
from pathlib import Path

import numpy as np

from leanmatch.index import Catalogue, Item, create_catalogue, open_encoder

WORDS = (  # noqa: SIM905
    "red blue green small large wooden steel folding electric quiet garden kitchen office travel "
    "winter summer light heavy cable lamp chair table bottle charger camera printer paper drill "
    "filter cover stand case holder mount adapter speaker keyboard bicycle tent jacket shoes gloves "
    "mirror clock frame shelf basket brush cleaner with for"
).split()


class DrawnItems:
    """An encoder of a model's identity whose item vectors are drawn."""

    def __init__(self, encoder):
        self.folder, self.name, self.dimension = encoder.folder, encoder.name, encoder.dimension
        self._random = np.random.default_rng(0)
        self._centres = self._random.normal(size=(500, self.dimension))

    def __call__(self, texts):
        kinds = self._random.integers(len(self._centres), size=len(texts))
        vectors = self._centres[kinds] + self._random.normal(size=(len(texts), self.dimension))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def phrases(seed, low=4, high=10):
    """Made-up queries without end."""
    source = random.Random(seed)
    while True:
        yield f"{' '.join(source.choices(WORDS, k=source.randint(low, high)))} {source.randint(0, 9999)}"


def request_of(text):
    """One request as bytes."""
    body = json.dumps({"texts": [text], "k": 10}).encode()
    head = "POST /v1/recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json"
    return f"{head}\r\ncontent-length: {len(body)}".encode() + b"\r\n\r\n" + body


class Connection:
    """A kept-alive connection that waits for each answer."""

    def __init__(self, port):
        self._port = port

    async def __aenter__(self):
        self._in, self._out = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_):
        self._out.close()

    async def ask(self, text):
        """The status of the answer."""
        return await self.send(request_of(text))

    async def send(self, request):
        """The status of the answer to a request as bytes."""
        if self._in.at_eof():  # the server closes connections that are idle
            await self.__aenter__()
        self._out.write(request)
        head = await self._in.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        await self._in.readexactly(length)
        return int(head.split(b" ", 2)[1])


async def closed_loop(port, connections, seconds):
    """Every connection asks again as soon as it is answered: statuses, answers a second, latencies."""
    statuses, taken = Counter(), []
    stop = time.perf_counter() + seconds

    async def one(seed):
        texts = phrases(seed)
        async with Connection(port) as connection:
            while time.perf_counter() < stop:
                begin = time.perf_counter()
                status = await connection.ask(next(texts))
                statuses[status] += 1
                taken.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    results = await asyncio.gather(*(one(seed) for seed in range(connections)), return_exceptions=True)
    broken = Counter(type(result).__name__ for result in results if result is not None)
    return summary(statuses, taken, time.perf_counter() - begin) | {"broken_connections": dict(broken)}


async def steady(port, rate, seconds, clients=32):
    """Requests at fixed times, whatever becomes of them: latency counts from when each was due.

    They come from so many clients in turn.
    """
    statuses, taken, texts = Counter(), [], phrases(10_000)
    free = deque([await Connection(port).__aenter__() for _ in range(clients)])

    async def one(due):
        connection = free.popleft() if free else await Connection(port).__aenter__()
        statuses[await connection.ask(next(texts))] += 1
        taken.append(time.perf_counter() - due)
        free.append(connection)

    begin = time.perf_counter()
    tasks = []
    for n in range(int(rate * seconds)):
        due = begin + n / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    return summary(statuses, taken, time.perf_counter() - begin)


def summary(statuses, taken, seconds):
    """Figures of one phase."""
    p50, p99 = np.percentile(taken, [50, 99]) * 1000 if taken else (0.0, 0.0)
    return {
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "answers_per_second": round(statuses[200] / seconds, 1),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
    }


WRK = r"""
local words = {}
for word in ("@WORDS@"):gmatch("%S+") do words[#words + 1] = word end
function init(_)
  math.randomseed(@SEED@)
  wrk.method = "POST"
  wrk.headers["content-type"] = "application/json"
end
function request()
  local some = {}
  for i = 1, math.random(4, 10) do some[i] = words[math.random(#words)] end
  local text = table.concat(some, " ") .. " " .. math.random(0, 9999)
  return wrk.format(nil, "/v1/recommend", nil, '{"texts": ["' .. text .. '"], "k": 10}')
end
function done(summary, latency, _)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, errors.status, summary.duration,
    latency:percentile(50), latency:percentile(99), broken))
end
"""


def wrk(port, connections, seconds):
    """:func:`closed_loop` by wrk; it tells good answers from others and no more."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK.replace("@WORDS@", " ".join(WORDS)).replace("@SEED@", str(time.time_ns() % 10**6)))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s"]
        done = subprocess.run(
            [*command, "-s", script.name, f"http://127.0.0.1:{port}"],
            check=False,
            capture_output=True,
            text=True,
            timeout=seconds + 60,
        )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    line = next(one for one in done.stdout.splitlines() if one.startswith("RESULT"))
    answers, refused, microseconds, p50, p99, broken = map(int, line.split()[1:])
    good = answers - refused
    return {
        "statuses": {"200": good, **({"other": refused} if refused else {})},
        "answers_per_second": round(good / microseconds * 1e6, 1),
        "p50_ms": p50 / 1000,
        "p99_ms": p99 / 1000,
        "broken_connections": broken,
    }


def machine():
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def client_seconds():
    """Processor time of this process and of the clients that it has started and waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def budget(folder, threads, rounds=40):
    """Milliseconds of processor time a request, by what the server does, for a batch of 1 and of 64."""
    from leanmatch.serve.api.matching import body_reader
    from leanmatch.serve.api.schemas import RecommendRequest
    from leanmatch.serve.engine import Answer, Engine, Recommend

    catalogue = Catalogue.open(folder)
    engine = Engine(open_encoder(catalogue.manifest.model.name), catalogue, threads)
    texts, out, read = phrases(77), {}, body_reader(RecommendRequest)
    for size in (1, 64):
        spent, batches = Counter(), max(8, rounds * 8 // size)
        for _ in range(batches):
            some = [next(texts) for _ in range(size)]
            bodies = [request_of(text).partition(b"\r\n\r\n")[2] for text in some]
            marks = [time.process_time()]
            for body in bodies:
                read(body, b"application/json")
            marks.append(time.process_time())
            vectors = engine.encode(some)
            marks.append(time.process_time())
            found = catalogue.search(vectors, [10] * size)
            marks.append(time.process_time())
            for one in found:
                Answer(catalogue, [one]).documents()
            marks.append(time.process_time())
            engine.run([Recommend([text], 10) for text in some])
            marks.append(time.process_time())
            for name, begin, end in zip(
                ("parse", "encode", "search", "documents", "engine whole"), marks[:-1], marks[1:], strict=True
            ):
                spent[name] += end - begin
        out[f"batch of {size}"] = {
            name: round(1000 * one / (size * batches), 3) for name, one in spent.items()
        }
    return out


class Server:
    """`leanmatch serve` in a process of its own."""

    def __init__(self, folder, more):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "leanmatch", "serve", str(folder), "--port", str(self.port), *more]
        self._begin = time.perf_counter()
        nowhere = subprocess.DEVNULL  # not our pipes: who reads those waits for every process that holds them
        self._process = subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def seconds_to_ready(self):
        """From the start of the process until /health says 200."""
        while True:
            if time.perf_counter() - self._begin > 120:
                raise SystemExit("the server is not ready after two minutes")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                    if answer.status == 200:
                        return time.perf_counter() - self._begin
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self._process.poll() is not None:
                    raise SystemExit("the server ended") from None
            time.sleep(0.01)

    def _processes(self):
        """It and its workers."""
        found = [self._process.pid]
        for each in found:
            found += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
        return found

    def cpu_seconds(self):
        """Processor time that it has taken: what a request costs, however busy the machine is otherwise."""
        ticks = 0
        for each in self._processes():
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_mb(self):
        """Resident memory, of all its processes together."""
        total = 0
        for each in self._processes():
            lines = Path(f"/proc/{each}/status").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("VmRSS")).split()[1])
        return total / 1024

    def batches(self):
        """Batches, and texts in them, so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return [
            sum(float(line.split()[-1]) for line in lines if line.startswith(f"leanmatch_batch_texts_{one}"))
            for one in ("count", "sum")
        ]

    def stop(self):
        """Ask it to end, and end it where it does not."""
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(40)
        except subprocess.TimeoutExpired:
            for each in self._processes():
                os.kill(each, signal.SIGKILL)
            raise


def measure(folder, more, seconds, rounds, client):
    """All phases against a fresh server; each round alternates them, medians are taken over rounds."""
    starts = []
    for _ in range(3):
        with Server(folder, more) as server:
            starts.append(server.seconds_to_ready())
    with Server(folder, more) as server:
        starts.append(server.seconds_to_ready())
        found = phases_of(server, seconds, rounds, client)
    return {"seconds_to_ready": round(float(np.median(starts)), 2), **found}


def phases_of(server, seconds, rounds, client):
    """All phases against a server that is ready."""
    asyncio.run(closed_loop(server.port, 8, 2))
    phases = {
        "one at a time": lambda: client(server.port, 1, seconds),
        "64 connections": lambda: client(server.port, 64, seconds),
        "100 a second": lambda: asyncio.run(steady(server.port, 100, seconds)),
    }
    rows = {name: [] for name in phases}
    for _ in range(rounds):
        for name, phase in phases.items():
            before = server.cpu_seconds(), client_seconds(), *server.batches()
            row = phase()
            after = server.cpu_seconds(), client_seconds(), *server.batches()
            server_s, client_s, batches, texts = (b - a for a, b in zip(before, after, strict=True))
            answers = max(1, row["statuses"].get("200", 0))
            row["cpu_ms_each"], row["client_cpu_ms_each"] = (
                1000 * server_s / answers,
                1000 * client_s / answers,
            )
            row["texts_a_batch"] = texts / max(1, batches)
            rows[name].append(row)
    calm = server.memory_mb()
    asyncio.run(closed_loop(server.port, 1000, 2))  # memory is measured from the first overload on
    before = server.memory_mb()
    overload = asyncio.run(closed_loop(server.port, 1000, 2 * seconds))  # by asyncio: it tells statuses
    after = server.memory_mb()
    alive = asyncio.run(closed_loop(server.port, 1, 1))["statuses"]
    found = {name: median(each) for name, each in rows.items()}
    ratio = found["64 connections"]["answers_per_second"] / found["one at a time"]["answers_per_second"]
    return {
        **found,
        "ratio": round(ratio, 2),
        "1000 connections": overload
        | {"memory_mb": [round(one, 1) for one in (calm, before, after)], "afterwards": alive},
    }


FIGURES = (
    "answers_per_second", "p50_ms", "p99_ms", "cpu_ms_each", "client_cpu_ms_each", "texts_a_batch",
)  # fmt: skip


def median(rows):
    """Medians of the figures of several rounds; statuses are added up."""
    out = {key: round(float(np.median([row[key] for row in rows])), 2) for key in FIGURES}
    statuses = Counter()
    for row in rows:
        statuses.update(row["statuses"])
    return {"statuses": dict(statuses), **out}


def main():
    """Make the catalogue, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--client", choices=("wrk", "asyncio"), default="wrk" if shutil.which("wrk") else "asyncio"
    )
    parser.add_argument("--seconds", type=int, default=5, help="of a phase")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--catalogue", help="keep the catalogue here and use it again")
    parser.add_argument("--json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(options.catalogue or Path(place, "catalogue"))
        if not folder.exists():
            texts = phrases(-1)
            items = [
                Item(f"i{n}", f"{next(texts)} {n}", {"category": WORDS[n % 7], "price": n % 500 / 5})
                for n in range(options.items)
            ]
            create_catalogue(folder, items, DrawnItems(open_encoder(options.model)))
        client = wrk if options.client == "wrk" else lambda *how: asyncio.run(closed_loop(*how))
        threads = ["--threads", str(options.threads), "--workers", str(options.workers)]
        found = {
            "client": options.client,
            "model": Path(options.model).name,
            "items": options.items,
            "date": time.strftime("%Y-%m-%d %H:%M"),
            "machine": machine(),
            "load_before": round(os.getloadavg()[0], 1),
            "nice": os.nice(0),
            "cores": len(os.sched_getaffinity(0)),
            "threads": options.threads,
            "workers": options.workers,
            **measure(folder, threads, options.seconds, options.rounds, client),
            "budget_cpu_ms": budget(folder, options.threads),
        }
    text = json.dumps(found, indent=2)
    print(text)
    if options.json:
        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        Path(options.json).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
