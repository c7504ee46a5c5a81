"""Writing so that nothing is lost or half-written: temporary name, fsync, rename."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from leanmatch.errors import LeanmatchError

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from leanmatch.types import JsonValue  # loads numpy

_POLL_SECONDS = 0.02


def fsync_path(path: Path) -> None:
    """Flush a file or a folder entry to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is synced and renamed over ``path``.

    When the block raises, the temporary file is removed and ``path`` stays as it was. The temporary name
    keeps ``path``'s suffixes, because many writers choose their format by them.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".partial-", suffix="-" + target.name, dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        fsync_path(temporary)
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, target)
        fsync_path(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it is synced and takes ``path``'s place.

    Args:
        path: the folder to make.
        overwrite: replace a folder that is there already. The old one is moved aside first and removed
            only when the new one stands; a crash between the two leaves it as ``.old-*`` beside it.

    Raises:
        LeanmatchError: ``path`` exists and is not an empty folder, and ``overwrite`` is false.
    """
    target = Path(path)
    if target.exists() and not overwrite and (not target.is_dir() or any(target.iterdir())):
        raise LeanmatchError(
            f"{target} exists already",
            remedy="name another folder or pass overwrite=True",
            command="name another folder or pass --overwrite",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".partial-", suffix="-" + target.name, dir=target.parent))
    try:
        yield temporary
        for root, _, names in os.walk(temporary):
            for name in names:
                fsync_path(Path(root, name))
            fsync_path(Path(root))
        temporary.chmod(0o777 & ~_umask())
        if target.exists():
            aside = Path(tempfile.mkdtemp(prefix=".old-", suffix="-" + target.name, dir=target.parent))
            os.replace(target, aside)
            os.replace(temporary, target)
            shutil.rmtree(aside)
        else:
            os.replace(temporary, target)
        fsync_path(target.parent)
    finally:
        if temporary.exists():
            shutil.rmtree(temporary)


def write_json(path: str | Path, value: JsonValue) -> None:
    """Write ``value`` as indented UTF-8 JSON, atomically. NaN and infinities are refused."""
    with atomic_file(path) as temporary:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def user_cache() -> Path | None:
    """The user's folder for files of leanmatch that can be made again at any time; it need not exist.

    ``$XDG_CACHE_HOME/leanmatch`` or ``~/.cache/leanmatch``; ``~/Library/Caches/leanmatch`` on macOS and
    ``%LOCALAPPDATA%\\leanmatch\\Cache`` on Windows. None for a user without a home.
    """
    base = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", "")
    if Path(base).is_absolute():  # the specification ignores relative paths
        return Path(base, "leanmatch", "Cache") if os.name == "nt" else Path(base, "leanmatch")
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if os.name == "nt":
        return home / "AppData" / "Local" / "leanmatch" / "Cache"
    return home.joinpath(*(("Library", "Caches") if sys.platform == "darwin" else (".cache",)), "leanmatch")


def why_unwritable(folder: Path) -> str | None:
    """Why no file can be made in a folder that may still have to be made itself; None where one can."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        if existing == folder:
            with tempfile.TemporaryFile(dir=folder):
                return None
    except OSError as error:
        return error.strerror or str(error)
    if not existing.is_dir():
        return f"{existing} is no folder"
    return None if os.access(existing, os.W_OK | os.X_OK) else f"{existing} is not writable"


def locked(path: Path, *, wait_seconds: float = 0.0) -> BaseFileLock | None:
    """An exclusive lock of a file, until ``release()``; the system drops it when its holder dies.

    None where another holds it and does not let go within ``wait_seconds``.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(timeout=wait_seconds, poll_interval=_POLL_SECONDS)
    except Timeout:
        return None
    return lock


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
