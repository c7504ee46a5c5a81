"""Reading ``.npy`` and ``.npz`` files as :func:`numpy.save` and :func:`numpy.savez` write them, no others.

Numpy's own reader evaluates a header as Python text and allocates what that asks for. This one knows the few
types that leanmatch stores, compares the shape with the bytes that are there before it allocates, and needs
no ``ast`` (which CPython 3.11 breaks where two threads parse at once).
"""

from __future__ import annotations

import math
import mmap
import re
import zipfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_MEMBERS = 100_000
MOST_HEADER = 4_096
MOST_DIMENSIONS = 2
_MAGIC = b"\x93NUMPY"
_HEADER = re.compile(
    r"\{'descr': '(?P<kind><f4|<f8|<i4|<i8|\|u1|\|b1|<U[0-9]{1,5})', 'fortran_order': (?P<order>False|True), "
    r"'shape': \((?P<shape>[0-9, ]{0,48})\), \} *\n"
)
_SHAPE = re.compile(r"|(?P<one>[0-9]{1,18}),|(?P<rows>[0-9]{1,18}), (?P<columns>[0-9]{1,18})")


@dataclass(frozen=True)
class Header:
    """What an array consists of, and where its values begin."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int

    @property
    def end(self) -> int:
        """Where its values end."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize


def read_header(data: bytes) -> Header:
    """The header at the beginning of an array file.

    Args:
        data: the beginning, :data:`MOST_HEADER` bytes of it or all.

    Raises:
        ValueError: it is none, or of an array that leanmatch does not store.
    """
    if data[:6] != _MAGIC or len(data) < 12 or data[6:8] not in {b"\1\0", b"\2\0"}:
        raise ValueError("it is no array of numpy's")
    width = 2 if data[6] == 1 else 4
    start = 8 + width
    length = int.from_bytes(data[8:start], "little")
    if start + length > min(len(data), MOST_HEADER):
        raise ValueError(f"its header has {length:,} bytes")
    text = data[start : start + length].decode("latin-1")
    header = _HEADER.fullmatch(text)
    shape = None if header is None else _SHAPE.fullmatch(header["shape"])
    if header is None or shape is None:
        raise ValueError(f"its header is {text[:100].strip()!r}")
    sizes = tuple(int(size) for size in shape.groups() if size is not None)
    if header["order"] == "True" and len(sizes) > 1:
        raise ValueError("its values stand column by column")
    return Header(np.dtype(header["kind"]), sizes, start + length)


def parse_array(data: bytes) -> NDArray[Any]:
    """The array of a whole file; it is read-only and shares the bytes.

    Raises:
        ValueError: it is none, or has more or fewer bytes than its shape needs.
    """
    header = read_header(data[:MOST_HEADER])
    _check_length(header, len(data))
    values = np.frombuffer(data, header.dtype, math.prod(header.shape), header.start)
    return values.reshape(header.shape)


def read_array(path: Path) -> NDArray[Any]:
    """The array of a file.

    Raises:
        OSError, ValueError: see :func:`parse_array`.
    """
    return parse_array(path.read_bytes())


def map_array(path: Path) -> NDArray[Any]:
    """The array of a file, read from the disk where it is used.

    Raises:
        OSError, ValueError: see :func:`parse_array`.
    """
    with path.open("rb") as stream:
        header = read_header(stream.read(MOST_HEADER))
        _check_length(header, path.stat().st_size)
        if header.end == header.start:
            return np.zeros(header.shape, header.dtype)
        mapped = mmap.mmap(stream.fileno(), header.end, access=mmap.ACCESS_READ)
    values = np.frombuffer(mapped, header.dtype, math.prod(header.shape), header.start)
    return values.reshape(header.shape)


def read_arrays(path: Path, names: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file by their names; nothing in it may be compressed.

    Args:
        path: the file.
        names: the arrays that it must have, no others; any where not given.

    Raises:
        OSError, ValueError: it is damaged, or something else.
    """
    size = path.stat().st_size
    out: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MOST_MEMBERS:
                raise ValueError(f"it has {len(members):,} members")
            if sum(member.file_size for member in members) > size:
                raise ValueError("its members are larger than it is")
            for member in members:
                name = member.filename.removesuffix(".npy")
                stored = member.compress_type == zipfile.ZIP_STORED and member.flag_bits & 1 == 0
                if not stored or member.file_size != member.compress_size or name in out:
                    raise ValueError(f"its member {member.filename[:80]!r} is not one that leanmatch writes")
                out[name] = parse_array(archive.read(member))
    except (OSError, ValueError):
        raise
    except Exception as error:  # zipfile has many ways to fail on a damaged archive
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if names is not None and out.keys() != set(names):
        raise ValueError(f"it holds the arrays {', '.join(sorted(out))[:200]}")
    return out


def _check_length(header: Header, size: int) -> None:
    if header.end != size:
        raise ValueError(
            f"an array of type {header.dtype.str} and shape {header.shape} ends at byte {header.end:,}, "
            f"and there are {size:,}"
        )
