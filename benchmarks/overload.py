"""What a server does to others while clients behave badly: slow clients, overload, varied requests.

    python benchmarks/overload.py MODEL [--items 20000] [--seconds 10] [--waiting 16] [--json FILE]

1. *Slow clients.* A thousand connections leave their headers or bodies unfinished, send them byte by byte, or
   leave their answer unread; one that the server closes is opened anew. Others ask at a steady rate.
2. *Overload.* Ten times as many connections as the server lets wait ask again as soon as they are answered,
   by 429 in most cases. Others ask at a steady rate, and may be refused as well.
3. *Varied requests.* 20,000 requests, no two alike in texts, filters, k and length, some of them wrong;
   memory is read after each tenth.

Latency counts from when a request was due. The bars are a p99 below 50 ms for others in 1, the same for every
answer to others in 2, and memory that does not grow in 3. Clients and server share the machine's cores; run
it on an idle machine (the load beforehand is printed). It ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from serve import WORDS, Connection, DrawnItems, Server, machine, phrases, request_of, steady, summary

from leanmatch.index import Item, create_catalogue, open_encoder

SLOW_CLIENTS = 1_000
OVERLOAD = 10
VARIED = 20_000
BAR_MS = 50.0
GROWTH_MB = 20.0
"""Between the fourth tenth, when the bounded caches have filled, and the last."""


async def slow_clients(port, count, seconds):
    """Keep so many bad connections open; how many were closed on us, and how many answers came."""
    stop, closed, answers = time.monotonic() + seconds, 0, Counter()
    whole = request_of("a slow client")
    head = whole.index(b"\r\n\r\n") + 4

    async def one(kind):
        nonlocal closed
        while time.monotonic() < stop:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
                try:
                    if kind == 0:
                        writer.write(whole[: head // 2])
                    elif kind == 1:
                        writer.write(whole[:-1])
                    elif kind == 2:
                        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")  # and read nothing
                    for n in range(10**6):
                        if kind == 3:
                            writer.write(whole[n : n + 1])
                        await asyncio.sleep(min(1.0, max(0.0, stop - time.monotonic())))
                        if time.monotonic() >= stop:
                            break
                        if kind != 2 and (reader.at_eof() or reader._buffer):
                            break
                    if reader._buffer:
                        answers[bytes(reader._buffer[9:12]).decode()] += 1
                    closed += time.monotonic() < stop
                finally:
                    writer.close()

    await asyncio.gather(*(one(n % 4) for n in range(count)))
    return {"connections": count, "closed_by_the_server": closed, "answers": dict(answers)}


async def flood(port, connections, seconds):
    """Every connection asks again as soon as it is answered, whatever the answer."""
    statuses, stop = Counter(), time.monotonic() + seconds

    async def one(seed):
        texts = phrases(seed)
        async with Connection(port) as connection:
            while time.monotonic() < stop:
                statuses[await connection.ask(next(texts))] += 1

    await asyncio.gather(*(one(seed) for seed in range(connections)), return_exceptions=True)
    return {"connections": connections, "answers": {str(s): n for s, n in sorted(statuses.items())}}


def apart(work, *arguments):
    """Run a client in a process of its own; a function that waits for what it gives."""
    pool = multiprocessing.get_context("spawn").Pool(1)
    result = pool.apply_async(_run, (work.__name__, arguments))

    def wait():
        with pool:
            return result.get(600)

    return wait


def _run(name, arguments):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    return asyncio.run(globals()[name](*arguments))


def others(port, rate, seconds, bad=None):
    """A steady rate of good requests while a bad client works, and what became of both."""
    waiting = None if bad is None else apart(*bad)
    if waiting is not None:
        time.sleep(3)  # until it is under way
    good = asyncio.run(steady(port, rate, seconds, clients=2 * rate))  # each comes every two seconds
    return good | ({} if waiting is None else {"bad": waiting()})


async def varied(server, count):
    """Requests that are all different; memory after each tenth."""
    memory, statuses, taken = [], Counter(), []
    source = random.Random(1)
    async with Connection(server.port) as connection:
        for n in range(count):
            body = {"texts": [" ".join(source.choices(WORDS, k=source.randint(1, 60)))], "k": 1 + n % 50}
            if n % 3 == 0:
                body["filter"] = f'category = "{source.choice(WORDS)}" or price < {n / 100}'
            if n % 7 == 0:
                body["filter"] = {"column": "price", "in": [n + source.random() for _ in range(n % 400)]}
            if n % 11 == 0:
                body["filter"] = f'category = "{"x" * (n % 20_000)}{n}"'
            if n % 13 == 0:
                body["exclude"] = [f"i{source.randint(0, 10**6)}" for _ in range(n % 100)]
            if n % 17 == 0:
                body["colour"] = n  # no such field
            if n % 101 == 0:
                body["explain"] = True
            raw = json.dumps(body).encode()
            head = "POST /v1/recommend HTTP/1.1\r\nhost: x\r\ncontent-type: application/json"
            begin = time.perf_counter()
            statuses[
                await connection.send(f"{head}\r\ncontent-length: {len(raw)}\r\n\r\n".encode() + raw)
            ] += 1
            taken.append(time.perf_counter() - begin)
            if (n + 1) % (count // 10) == 0:
                memory.append(round(server.memory_mb(), 1))
    return summary(statuses, taken, sum(taken)) | {"memory_mb": memory}


def measure(folder, options):
    """All three, against one server each."""
    found = {}
    with Server(folder, ["--threads", str(options.threads), "--waiting", str(options.waiting)]) as server:
        server.seconds_to_ready()
        asyncio.run(flood(server.port, 8, 3))
        found["capacity"] = asyncio.run(flood(server.port, options.waiting, 3))["answers"].get("200", 0) / 3
        rate = max(5, min(50, int(found["capacity"] / 4)))
        found["rate_of_others"] = rate
        seconds, port = options.seconds, server.port
        found["alone"] = others(port, rate, seconds)
        found["beside slow clients"] = others(
            port, rate, seconds, (slow_clients, port, SLOW_CLIENTS, seconds + 4)
        )
        found["beside overload"] = others(
            port, rate, seconds, (flood, port, OVERLOAD * options.waiting, seconds + 4)
        )
        found["afterwards"] = others(port, rate, 3)
        begin = time.monotonic()
        held = apart(slow_clients, port, SLOW_CLIENTS, 8)
        time.sleep(4)
        begin = time.monotonic()
        server.stop()
        found["seconds_to_stop_with_slow_clients"] = round(time.monotonic() - begin, 1)
        held()
    with Server(folder, ["--threads", str(options.threads)]) as server:
        server.seconds_to_ready()
        found["varied"] = asyncio.run(varied(server, options.varied))
    return found


def missed(found):
    """The bars that were missed."""
    memory = found["varied"]["memory_mb"]
    checks = {
        "others beside slow clients": found["beside slow clients"]["p99_ms"] < BAR_MS,
        "others beside overload": found["beside overload"]["p99_ms"] < BAR_MS,
        "every other was answered 200 beside slow clients": set(found["beside slow clients"]["statuses"])
        == {"200"},
        "flat memory": memory[-1] - memory[3] < GROWTH_MB,
        "no answer was a 500": not any(
            status.startswith("500")
            for one in found.values()
            if isinstance(one, dict)
            for status in one["statuses"]
        ),
        "SIGTERM within 8 seconds": found["seconds_to_stop_with_slow_clients"] < 8,
    }
    return [name for name, met in checks.items() if not met]


def main():
    """Make the catalogue, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--waiting", type=int, default=16, help="capacity times the latency that is wanted")
    parser.add_argument("--seconds", type=int, default=10, help="of a phase")
    parser.add_argument("--varied", type=int, default=VARIED)
    parser.add_argument("--json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder, texts = Path(place, "catalogue"), phrases(-1)
        items = [
            Item(f"i{n}", f"{next(texts)} {n}", {"category": WORDS[n % 7], "price": n % 500 / 5})
            for n in range(options.items)
        ]
        create_catalogue(folder, items, DrawnItems(open_encoder(options.model)))
        load = os.getloadavg()[0]
        found = measure(folder, options)
    found |= {
        "model": Path(options.model).name,
        "items": options.items,
        "machine": machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(load, 1),
        "waiting": options.waiting,
    }
    found["missed"] = missed(found)
    text = json.dumps(found, indent=2)
    print(text)
    if options.json:
        Path(options.json).parent.mkdir(parents=True, exist_ok=True)
        Path(options.json).write_text(text + "\n", encoding="utf-8")
    sys.exit(1 if found["missed"] else 0)


if __name__ == "__main__":
    main()
