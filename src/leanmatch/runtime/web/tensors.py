"""The one file of arrays of a web model, and what ``model.json`` says of each array."""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import FormatError
from leanmatch.formats.artifact.bit_packing import pack, pack_odd

ALIGNMENT = 16
"""Every array begins at a multiple of so many bytes."""


class TensorWriter:
    """Writes arrays one after the other, little endian, in C order.

    Attributes:
        entries: name of an array to its ``dtype`` (``float32``, ``float16``, ``int8`` or ``packed``),
            ``shape`` and ``offset``; of packed whole numbers also ``bits`` and ``signed``,
            and of odd ones ``odd``.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._end = 0
        self.entries: dict[str, dict[str, Any]] = {}

    def add(self, name: str, array: NDArray[Any]) -> str:
        """Write float32, float16 or int8 numbers as they are; returns ``name``.

        Raises:
            FormatError: another dtype, or a name that was there before.
        """
        if array.dtype.name not in ("float32", "float16", "int8"):
            raise FormatError(f"{name}: web models hold no {array.dtype.name}")
        little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        return self._write(name, little.tobytes(), {"dtype": array.dtype.name, "shape": list(array.shape)})

    def add_packed(self, name: str, numbers: NDArray[Any], bits: int) -> str:
        """Write whole numbers of ``bits`` bits (:mod:`leanmatch.formats.artifact.bit_packing`)."""
        entry = {
            "dtype": "packed",
            "shape": list(numbers.shape),
            "bits": bits,
            "signed": numbers.dtype.kind == "i",
        }
        return self._write(name, pack(numbers, bits).tobytes(), entry)

    def add_odd(self, name: str, codes: NDArray[np.int8], bits: int) -> str:
        """Write odd codes of ``bits`` bits (:func:`leanmatch.formats.artifact.bit_packing.pack_odd`)."""
        entry = {"dtype": "packed", "shape": list(codes.shape), "bits": bits, "signed": True, "odd": True}
        return self._write(name, pack_odd(codes, bits).tobytes(), entry)

    def _write(self, name: str, content: bytes, entry: dict[str, Any]) -> str:
        if name in self.entries:
            raise FormatError(f"two arrays of a web model have the name {name}")
        start = -(-self._end // ALIGNMENT) * ALIGNMENT
        self._file.write(bytes(start - self._end) + content)
        self._end = start + len(content)
        self.entries[name] = {**entry, "offset": start}
        return name
