"""The one safetensors file: its header is checked before the library reads it.

The library checks that offsets lie in the file and do not overlap. What it lets pass is refused here:
repeated names, other dtypes than the format's, headers of a size that only an attacker needs.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from leanmatch.errors import FormatError
from leanmatch.formats.artifact.fields import Array, Fields
from leanmatch.formats.json_files import parse

FILE_NAME = "compressed.safetensors"
MOST_HEADER = 4 * 2**20
MOST_AXES = 4
DTYPES: Mapping[str, str] = {"U8": "uint8", "I8": "int8", "F16": "float16", "F32": "float32", "I64": "int64"}
"""Name in safetensors to name in numpy."""

_REMEDY = "the file is damaged or was not written by leanmatch: compress the model again"


def read_tensors(path: Path) -> dict[str, Array]:
    """All tensors of a file.

    Raises:
        FormatError: no file, or one that does not follow the format in any way.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if not path.is_file():
        raise FormatError(f"there is no file {path}", remedy=_REMEDY)
    content = path.read_bytes()
    check_header(content, str(path))
    try:
        arrays: dict[str, Array] = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise FormatError(f"{path} cannot be read: {error}", remedy=_REMEDY) from error
    return arrays


def header_bytes(path: Path) -> int:
    """Bytes of the file before the tensors' own."""
    with path.open("rb") as handle:
        return 8 + int(struct.unpack("<Q", handle.read(8))[0])


def check_header(content: bytes, name: str) -> None:
    """Length, JSON, names, dtypes, shapes and offsets; the tensors must fill the rest of the file exactly.

    Raises:
        FormatError: anything else.
    """
    size = struct.unpack("<Q", content[:8])[0] if len(content) >= 8 else 0
    if not 2 <= size <= min(len(content) - 8, MOST_HEADER):
        raise FormatError(
            f"{name} has {len(content):,} bytes and says that {size:,} of them are its header", remedy=_REMEDY
        )
    header = parse(content[8 : 8 + size], f"the header of {name}", _REMEDY)
    if not isinstance(header, dict):
        raise FormatError(f"the header of {name} is no object", remedy=_REMEDY)
    header.pop("__metadata__", None)
    ends: list[tuple[int, int]] = []
    for tensor, entry in header.items():
        ends.append(_checked(f"{name}: tensor {tensor!r:.120}", entry, len(content)))
    reached = 0
    for start, stop in sorted(ends):
        if start != reached:
            raise FormatError(
                f"{name}: its tensors overlap or leave gaps at byte {reached:,}", remedy=_REMEDY
            )
        reached = stop
    if reached != len(content) - 8 - size:
        raise FormatError(
            f"{name}: its tensors take {reached:,} bytes, and {len(content) - 8 - size:,} are there",
            remedy=_REMEDY,
        )


def _checked(where: str, entry: Any, most: int) -> tuple[int, int]:
    fields = Fields(where, entry)
    dtype = np.dtype(DTYPES[fields.choice("dtype", DTYPES)])
    shape = fields.optional("shape")
    if not isinstance(shape, list) or len(shape) > MOST_AXES:
        raise FormatError(
            f"{where}: its shape is {shape!r:.80}, not at most {MOST_AXES} sizes", remedy=_REMEDY
        )
    sizes = Fields(where, {"shape": shape}).sizes("shape", len(shape), low=0, high=most)
    start, stop = fields.sizes("data_offsets", 2, low=0, high=most)
    fields.end()
    count = 1
    for size in sizes:
        count *= size
    if count * dtype.itemsize != stop - start:
        raise FormatError(
            f"{where}: {dtype} {tuple(sizes)} takes {count * dtype.itemsize:,} bytes "
            f"(found {stop - start:,})",
            remedy=_REMEDY,
        )
    return start, stop
