"""One writer at a time: an advisory lock that the system drops when its holder dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leanmatch.errors import LeanmatchError
from leanmatch.files import locked
from leanmatch.index.storage.manifest import LOCK


@contextmanager
def writer_lock(folder: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the catalogue's writer lock; readers never need it.

    Raises:
        LeanmatchError: another process holds it and did not let go within ``wait_seconds``.
    """
    lock = locked(folder / LOCK, wait_seconds=wait_seconds)
    if lock is None:
        raise LeanmatchError(
            f"another process is writing to the catalogue {folder}",
            remedy="wait until it is done, then run this again",
        )
    try:
        yield
    finally:
        lock.release()
