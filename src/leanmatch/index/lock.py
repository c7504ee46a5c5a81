"""One writer at a time: an advisory lock that the system drops when its holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leanmatch.errors import LeanmatchError
from leanmatch.index.manifest import LOCK

_POLL_SECONDS = 0.02


@contextmanager
def writer_lock(folder: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the catalogue's writer lock; readers never need it.

    Raises:
        LeanmatchError: another process holds it and did not let go within ``wait_seconds``.
    """
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= deadline:
                    raise LeanmatchError(
                        f"another process is writing to the catalogue {folder}",
                        remedy="wait until it is done, then run this again",
                    ) from error
                time.sleep(_POLL_SECONDS)
        yield
    finally:
        os.close(descriptor)
