"""Is a file of a catalogue what its manifest says? Nothing is answered from one that is not."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import FormatError

if TYPE_CHECKING:
    from leanmatch.types import Vectors

REMEDY = "restore it from a copy, or index the items anew"
LENGTH_TOLERANCE = 1e-3
"""How far a vector's length may be from 1. All zeros are allowed: a text without any known token."""

_ROWS_AT_ONCE = 16_384
_REMEMBERED = 1_024
_Version = tuple[int, int, int, int, str]


@dataclass(frozen=True)
class StoredFile:
    """An immutable file of the folder."""

    name: str
    bytes: int
    sha256: str


class Verified:
    """Files whose checksum was right, by what changes when they change: a process reads each once."""

    def __init__(self) -> None:
        self._versions: OrderedDict[_Version, None] = OrderedDict()
        self._lock = Lock()

    def check(self, path: Path, file: StoredFile, *, again: bool = False) -> None:
        """Compare a file's size and SHA-256 with the manifest's.

        Args:
            path: where it lies.
            file: what the manifest says.
            again: read it even if it was right before.

        Raises:
            FileNotFoundError: it is not there.
            FormatError: it differs; the message names it.
        """
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise FormatError(f"{path} is no file", remedy=REMEDY)
        with path.open("rb") as stream:
            state = os.fstat(stream.fileno())
            if state.st_size != file.bytes:
                raise FormatError(f"{path} has {state.st_size:,} bytes, not {file.bytes:,}", remedy=REMEDY)
            version = (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, file.sha256)
            if not again:
                with self._lock:
                    if version in self._versions:
                        return
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != file.sha256:
            raise FormatError(
                f"{path} is damaged: its SHA-256 is {digest[:12]}..., not {file.sha256[:12]}...",
                remedy=REMEDY,
            )
        with self._lock:
            self._versions[version] = None
            while len(self._versions) > _REMEMBERED:
                self._versions.popitem(last=False)


VERIFIED = Verified()


def check_lengths(path: Path, vectors: Vectors) -> None:
    """Refuse vectors that are neither of length 1 nor zero, and NaN and infinite numbers with them.

    Raises:
        FormatError: with the file and the first row.
    """
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        part = vectors[start : start + _ROWS_AT_ONCE]
        sound = are_unit(part)
        if not sound.all():
            row = int(np.argmin(sound))
            with np.errstate(over="ignore", invalid="ignore"):
                length = float(np.linalg.norm(part[row]))
            raise FormatError(
                f"{path} is damaged: the vector in row {start + row + 1} has the length {length:.6g}, not 1",
                remedy=REMEDY,
            )


def are_unit(vectors: Vectors) -> NDArray[np.bool_]:
    """Which rows are of length 1 or zero; NaN and infinite numbers are not."""
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.einsum("rd,rd->r", vectors, vectors)
        sound: NDArray[np.bool_] = np.abs(squares - 1) <= 2 * LENGTH_TOLERANCE
        odd = np.flatnonzero(~sound)
        sound[odd[~vectors[odd].any(axis=1)]] = True
    return sound
