"""Servers on loopback, in a thread or in a process of their own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest


@contextmanager
def serving(app):
    """The address of an application in a thread."""
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed (extra serve)")
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        running.should_exit = True
        thread.join(20)
        listener.close()


def ready(url):
    deadline = time.monotonic() + 200  # a busy machine; the test itself has 300
    while True:
        try:
            if httpx.get(f"{url}/health").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline
        time.sleep(0.02)


def address_of(process):
    """The address that a server prints first. It chose the port, so no other process can hold it."""
    line = process.stderr.readline()
    address = re.search(r"http://[\d.]+:\d+", line)
    assert address, f"the server did not start: {line}{process.stderr.read()}"
    return address[0]


@contextmanager
def served(folder, *more):
    """``leanmatch serve`` of a catalogue, when it is ready: its first process and its address."""
    command = [sys.executable, "-m", "leanmatch", "serve", str(folder), "--port", "0", *more]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            url = address_of(process)
            threading.Thread(target=process.stderr.read, daemon=True).start()  # so that it never waits for us
            ready(url)
            yield process, url
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) in (0, -signal.SIGTERM)
        finally:
            if process.poll() is None:
                for child in workers_of(process):
                    os.kill(child, signal.SIGKILL)
                process.kill()


def workers_of(process):
    """Processes that hold the server's application: children that are not multiprocessing's tracker."""
    children = map(int, Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
    return [one for one in children if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]
