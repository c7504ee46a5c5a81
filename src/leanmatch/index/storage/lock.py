"""One writer at a time: an advisory lock that the system drops when its holder dies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leanmatch.errors import LeanmatchError
from leanmatch.files import try_lock
from leanmatch.index.storage.manifest import LOCK

_POLL_SECONDS = 0.02


@contextmanager
def writer_lock(folder: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the catalogue's writer lock; readers never need it.

    Raises:
        LeanmatchError: another process holds it and did not let go within ``wait_seconds``.
    """
    deadline = time.monotonic() + wait_seconds
    while (handle := try_lock(folder / LOCK)) is None:
        if time.monotonic() >= deadline:
            raise LeanmatchError(
                f"another process is writing to the catalogue {folder}",
                remedy="wait until it is done, then run this again",
            )
        time.sleep(_POLL_SECONDS)
    with handle:
        yield
