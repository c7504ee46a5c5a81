"""Whole numbers of a few bits each, one after the other in a row of bytes.

Number ``i`` of width ``w`` fills the bits ``i w`` to ``i w + w - 1`` of the stream, its lowest bit first;
bit ``j`` of the stream is bit ``j % 8`` of byte ``j // 8``. The last byte is filled up with zero bits. Signed
numbers are kept as the low ``w`` bits of their two's complement.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import FormatError

_CHUNK = 1 << 18
"""Numbers that are packed, and groups of eight that are unpacked, at once: bounds the memory for it."""


def packed_size(count: int, bits: int) -> int:
    """Bytes that hold ``count`` numbers of ``bits`` bits.

    >>> packed_size(5, 6), packed_size(5, 0)
    (4, 0)
    """
    return -(-count * bits // 8)


def pack(numbers: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Pack numbers of any shape, in C order.

    Args:
        numbers: integers; unsigned ones below ``2^bits``, signed ones within two's complement of ``bits``.
        bits: 0 to 16. With 0 every number must be 0, and nothing is stored.

    Returns:
        uint8, ``(packed_size(numbers.size, bits),)``.

    Raises:
        FormatError: a number that does not fit.

    >>> pack(np.array([1, 2, 3], dtype=np.uint8), 4).tolist()
    [33, 3]
    """
    flat = numbers.reshape(-1)
    half = 2**bits >> 1
    low, high = (0, 2**bits - 1) if numbers.dtype.kind == "u" else (-half, max(half - 1, 0))
    if flat.size and (int(flat.min()) < low or int(flat.max()) > high):
        raise FormatError(
            f"numbers of {bits} bits must lie between {low} and {high} (found {flat.min()} to {flat.max()})"
        )
    if bits == 0 or not flat.size:
        return np.zeros(0, dtype=np.uint8)
    return np.concatenate(
        [_pack(flat[start : start + _CHUNK], bits) for start in range(0, flat.size, _CHUNK)]
    )


def _pack(numbers: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    octets = np.ascontiguousarray(numbers.astype("<u2")).view(np.uint8).reshape(-1, 2)
    stream = np.unpackbits(octets, axis=1, count=bits, bitorder="little")
    return np.packbits(stream.reshape(-1), bitorder="little")


def unpack(packed: NDArray[np.uint8], count: int, bits: int) -> NDArray[np.uint16]:
    """The inverse of :func:`pack`, without signs.

    Args:
        packed: uint8 ``(packed_size(count, bits),)``.
        count: how many numbers.
        bits: 0 to 16.

    Returns:
        uint16 ``(count,)``.

    Raises:
        FormatError: too few or too many bytes, or fill bits that are not zero.

    >>> unpack(np.array([33, 3], dtype=np.uint8), 3, 4).tolist()
    [1, 2, 3]
    """
    if packed.shape != (packed_size(count, bits),):
        raise FormatError(
            f"{count:,} numbers of {bits} bits take {packed_size(count, bits):,} bytes "
            f"(found {packed.size:,})"
        )
    spare = 8 * packed.size - count * bits
    if spare and int(packed[-1]) >> (8 - spare):
        raise FormatError(f"the last {spare} fill bits are not zero (the last byte is {int(packed[-1])})")
    out = np.zeros(count, dtype=np.uint16)
    if bits == 0 or count == 0:
        return out
    if bits == 8:
        out[:] = packed
        return out
    groups = -(-count // 8)  # eight numbers fill exactly `bits` bytes
    for start in range(0, groups, _CHUNK):
        stop = min(groups, start + _CHUNK)
        out[8 * start : 8 * stop] = _unpack_groups(packed[start * bits : stop * bits], stop - start, bits)[
            : count - 8 * start
        ]
    return out


def signed(numbers: NDArray[np.uint16], bits: int) -> NDArray[np.int8]:
    """Two's complement of ``bits`` bits (at most 8) to int8.

    >>> signed(np.array([7, 9, 15], dtype=np.uint16), 4).tolist()
    [7, -7, -1]
    """
    shift = 8 - bits
    return (numbers.astype(np.uint8) << np.uint8(shift)).view(np.int8) >> np.int8(shift)


def pack_odd(codes: NDArray[np.int8], bits: int) -> NDArray[np.uint8]:
    """Pack odd codes ``2 h + 1``: each ``h`` in two's complement of ``bits`` bits.

    >>> pack_odd(np.array([-3, -1, 1, 3], dtype=np.int8), 2).tolist()
    [78]
    """
    return pack((codes - np.int8(1)) >> np.int8(1), bits)


def odd(halves: NDArray[np.int8]) -> NDArray[np.int8]:
    """``2 h + 1`` for each number ``h`` from :func:`signed`: the codes that :func:`pack_odd` packed.

    >>> odd(signed(unpack(np.array([78], dtype=np.uint8), 4, 2), 2)).tolist()
    [-3, -1, 1, 3]
    """
    return np.int8(2) * halves + np.int8(1)


def _unpack_groups(packed: NDArray[np.uint8], groups: int, bits: int) -> NDArray[np.uint16]:
    """``8 groups`` numbers; number ``j`` of a group lies in the three bytes from ``j bits // 8`` on."""
    whole = np.zeros(groups * bits, dtype=np.uint8)
    whole[: packed.size] = packed
    rows = np.zeros((groups, bits + 2), dtype=np.uint8)  # two more, so that three can be read anywhere
    rows[:, :bits] = whole.reshape(groups, bits)
    out = np.empty((groups, 8), dtype=np.uint16)
    mask = np.uint32(2**bits - 1)
    for j in range(8):
        first, shift = divmod(j * bits, 8)
        word = rows[:, first].astype(np.uint32)
        word |= rows[:, first + 1].astype(np.uint32) << np.uint32(8)
        if shift + bits > 16:
            word |= rows[:, first + 2].astype(np.uint32) << np.uint32(16)
        out[:, j] = (word >> np.uint32(shift)) & mask
    return out.reshape(-1)
