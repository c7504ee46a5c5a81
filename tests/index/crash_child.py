"""Operations on a catalogue that kill themselves (SIGKILL) at the n-th step that touches the disk.

test_crashes.py starts it once; it forks a child for each trial, so that a trial takes milliseconds.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from catalogue_models import HashEncoder, items_of_shop

from leanmatch.index import (
    Item,
    create_catalogue,
    delete_items,
    rebuild_catalogue,
    upsert_items,
)
from leanmatch.index.search.scan import faiss_module
from leanmatch.index.storage import staging, transaction

ITEMS = items_of_shop(12)


def build(folder):
    create_catalogue(folder, ITEMS, HashEncoder())


def add(folder):
    upsert_items(folder, items_of_shop(3, start=100), HashEncoder())


def update(folder):
    changed = [Item("i1", "another text", {"price": 1.5}), Item("i2", ITEMS[2].text, {"category": "Games"})]
    upsert_items(folder, changed, HashEncoder(), patch=True)


def delete(folder):
    delete_items(folder, ["i3", "i4", "nothing"])


def rebuild(folder):
    rebuild_catalogue(folder, HashEncoder(name="hash-2"))


def compact(folder):
    transaction.MOST_SEGMENTS = 1
    add(folder)


def approximate(folder):
    staging.CHUNK_TEXTS = 100
    create_catalogue(
        folder, items_of_shop(90), HashEncoder(), transaction.WriteOptions(kind="ivf"), overwrite=True
    )


def hybrid(folder):
    rebuild_catalogue(folder, HashEncoder(), transaction.WriteOptions(hybrid=True))


OPERATIONS = {one.__name__: one for one in (build, add, update, delete, rebuild, compact, approximate)}
if find_spec("bm25s") is not None:  # the extra hybrid
    OPERATIONS["hybrid"] = hybrid


def run(operation, folder, kill_at):
    """Do it, killed at the ``kill_at``-th step; returns the number of steps where it ends."""
    staging.CHUNK_TEXTS = 5
    transaction._SMALL = 4  # so that chunks are written for a few texts too
    steps = 0

    def step():
        nonlocal steps
        steps += 1
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(function):
        def call(*arguments, **options):
            step()  # before it
            result = function(*arguments, **options)
            step()  # and after it
            return result

        return call

    for name in ("fsync", "replace", "unlink", "mkdir", "rmdir"):
        setattr(os, name, watched(getattr(os, name)))
    Path.unlink = watched(Path.unlink)
    shutil.rmtree = watched(shutil.rmtree)
    OPERATIONS[operation](folder)
    return steps


def serve():
    """One forked child for each line ``operation kill_at folder``; answers ``status steps``."""
    faiss_module()
    with tempfile.TemporaryDirectory() as folder:  # whatever is imported late is imported now, once
        build(folder)
        update(folder)
        OPERATIONS.get("hybrid", update)(folder)
    for line in sys.stdin:
        operation, kill_at, folder = line.rstrip("\n").split(" ", 2)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            code = 1
            try:
                os.write(writer, str(run(operation, Path(folder), int(kill_at))).encode())
                code = 0
            finally:
                os._exit(code)
        os.close(writer)
        answer = os.read(reader, 100).decode()
        os.close(reader)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), answer or "-", flush=True)


if __name__ == "__main__":
    serve()
