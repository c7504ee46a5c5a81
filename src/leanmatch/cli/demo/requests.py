"""A few requests to a server that runs ``leanmatch serve`` in a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from leanmatch.errors import LeanmatchError

START_SECONDS = 60.0
STOP_SECONDS = 30.0
TIMED_REQUESTS = 40
SHOWN = 5


@contextmanager
def served(catalogue: Path) -> Iterator[str]:
    """The URL of a server on a free port of this machine; it has stopped gracefully when the block is left.

    Raises:
        LeanmatchError: it does not start, or does not stop.
    """
    command = [sys.executable, "-m", "leanmatch", "serve", str(catalogue), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    output: list[str] = []
    ready = threading.Event()
    reader = threading.Thread(target=_read, args=(process.stderr, output, ready), daemon=True)
    reader.start()
    try:
        ready.wait(START_SECONDS)
        address = re.search(r"http://\S+:\d+", "".join(output))
        if address is None:
            raise LeanmatchError(f"the server did not start; it said: {''.join(output)[-2000:]!r}")
        _wait_until_ready(address[0], process)
        yield address[0]
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise LeanmatchError(f"the server did not stop within {STOP_SECONDS:.0f} s") from None
        finally:
            reader.join(STOP_SECONDS)
            process.stderr.close()


def _wait_until_ready(url: str, process: subprocess.Popen[str]) -> None:
    """Ask for its health until it is well; the model is being loaded meanwhile."""
    end = time.monotonic() + START_SECONDS
    answer = "nothing"
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except urllib.error.HTTPError as error:
            answer = error.read().decode(errors="replace")
        except OSError as error:  # it does not listen yet
            answer = str(error)
        time.sleep(0.05)
    raise LeanmatchError(f"the server is not ready; it said: {answer!r:.500}")


def _read(stream: IO[str], output: list[str], ready: threading.Event) -> None:
    """Read to the end, so that the server never waits for us; an address or the end sets ``found``."""
    for line in stream:
        output.append(line)
        if "http://" in line:
            ready.set()
    ready.set()


def ask(catalogue: Path, queries: Sequence[str], *, where: str | None) -> dict[str, Any]:
    """Recommendations with their words, the times of single requests, and what the monitor says.

    Args:
        catalogue: the folder.
        queries: texts to recommend for.
        where: a filter.

    Returns:
        ``queries`` (text, ``items`` with id, score, text and the words that carried the match),
        ``start_seconds``, ``median_ms`` and ``slowest_ms`` of single recommendations, ``requests``,
        ``same_vectors``: embeddings over HTTP equal those of the model in this process, ``monitor``.

    Raises:
        LeanmatchError: the server refuses or fails.
    """
    import numpy as np

    from leanmatch.index import read_manifest
    from leanmatch.index.encoders import encoder_for
    from leanmatch.serve import Client

    begun = time.monotonic()
    with served(catalogue) as url, Client(url) as client:
        first = client.recommend(queries, SHOWN, filter=where, explain=True)
        started = time.monotonic() - begun
        times = []
        for number in range(TIMED_REQUESTS):
            before = time.perf_counter()
            client.recommend([queries[number % len(queries)]], 10, filter=where)
            times.append(1000 * (time.perf_counter() - before))
        vectors = client.embed(queries)
        monitor = client.status()
    own = encoder_for(read_manifest(catalogue), None)(queries)
    return {
        "queries": [
            {"text": text, "items": [_item(hit) for hit in hits]}
            for text, hits in zip(queries, first, strict=True)
        ],
        "start_seconds": round(started, 2),
        "requests": TIMED_REQUESTS,
        "median_ms": round(float(np.median(times)), 2),
        "slowest_ms": round(max(times), 2),
        "same_vectors": bool(np.allclose(vectors, own, atol=1e-5)),
        "monitor": monitor,
    }


def _item(hit: Any) -> dict[str, Any]:
    words = sorted(hit.item_words, key=lambda word: -word.importance)[:3]
    return {
        "id": hit.id,
        "score": round(hit.score, 4),
        "text": hit.text,
        "words": [hit.text[word.start : word.end] for word in words if word.importance > 0],
    }
