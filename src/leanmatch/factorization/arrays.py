"""Types of arrays, and rounding to integer codes."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Float: TypeAlias = NDArray[np.float32]
Int8: TypeAlias = NDArray[np.int8]
Index: TypeAlias = NDArray[np.uint8 | np.uint16]


ODD_BITS = (3, 2)
"""With so few bits all codes are odd: 2 bits have -3, -1, 1 and 3. Codes around 0 would leave one unused."""

SMALLEST_HALF = np.float32(2.0**-24)
"""The smallest float16 above 0: the scale of odd codes that stand for zeros."""

_HALF_ERROR = np.float32(2.0**-10)
_MOST_AT_ONCE = 1 << 16
"""Scales are chosen for so many values at a time, or for one run if it is longer."""


def largest_code(bits: int) -> int:
    """The largest integer code.

    >>> [largest_code(bits) for bits in (8, 4, 3, 2)]
    [127, 7, 7, 3]
    """
    return (1 << bits) - 1 if bits in ODD_BITS else (1 << (bits - 1)) - 1


def round_to_codes(values: Float, bits: int) -> tuple[Int8, Float]:
    """Codes of ``bits`` bits with one scale for each run along the last axis.

    From 4 bits on ``scale = max |values| / (2^(bits-1) - 1)``, 1 where all are 0, and ``codes = round(values
    / scale)``. With 2 and 3 bits they come from :func:`best_odd_scale` and :func:`odd_codes`.

    Returns:
        Codes, int8, in the shape of ``values``; scales, float32, without its last axis.
    """
    if bits in ODD_BITS:
        scale = best_odd_scale(values, bits)
        return odd_codes(values, scale, bits), scale
    most = largest_code(bits)
    scale = np.abs(values).max(axis=-1, initial=0).astype(np.float32) / np.float32(most)
    scale = np.where(scale > 0, scale, np.float32(1))
    codes = np.clip(np.rint(values / scale[..., None]), -most, most)
    return codes.astype(np.int8), scale


def odd_codes(values: Float, scale: Float, bits: int | NDArray[np.integer]) -> Int8:
    """The nearest odd codes: ``2 h + 1``, ``h = floor(values / (2 scale))`` within two's complement.

    Args:
        values: ``(..., n)``.
        scale: ``(...)``, above 0.
        bits: 2 to 6, or integers that broadcast with ``values``.

    >>> odd_codes(np.float32([-9, -1, 0, 1.9, 2, 9]), np.float32(1), 2).tolist()
    [-3, -1, 1, 1, 3, 3]
    """
    half = np.float32(2) ** (np.asarray(bits, np.float32) - 1)
    h = np.clip(np.floor(values / (np.float32(2) * scale[..., None])), -half, half - 1)
    return (2 * h + 1).astype(np.int8)


def best_odd_scale(values: Float, bits: int) -> Float:
    """The scale of each run along the last axis that gives odd codes the least squared error.

    As the scale shrinks, the code of ``|v|`` grows from ``2 c - 1`` to ``2 c + 1`` where the scale is
    ``|v| / (2 c)``. Codes ``q`` with their best scale ``q.v / q.q`` leave the error ``v.v - (q.v)^2 / q.q``.
    So once these points are sorted, two running sums give the error of every possible choice of codes.

    Where float16 holds the scale within 2^-10, the scale is rounded to float16, so that an artifact keeps the
    same scale. A run of zeros gets :data:`SMALLEST_HALF`, or the smallest scale of the other runs if that is
    below it.

    Args:
        values: ``(..., n)``, finite.
        bits: 2 to 6.

    Returns:
        float32 ``(...)``, above 0.

    >>> best_odd_scale(np.float32([[-6, 2, 2, 6], [0, 0, 0, 0]]), 2).tolist()
    [2.0, 5.960464477539063e-08]
    """
    rows = np.abs(values).reshape(-1, values.shape[-1])
    scale = np.empty(len(rows), np.float32)
    step = max(1, _MOST_AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), step):
        scale[start : start + step] = _best_odd_scale(rows[start : start + step], bits)
    with np.errstate(over="ignore"):
        half = scale.astype(np.float16).astype(np.float32)
    scale = np.where(np.abs(half - scale) <= _HALF_ERROR * scale, half, scale)
    least = scale[scale > 0].min(initial=SMALLEST_HALF)
    return np.where(scale > 0, scale, least).reshape(values.shape[:-1])


def _best_odd_scale(rows: Float, bits: int) -> Float:
    """See :func:`best_odd_scale`; ``rows`` are not negative, and those of zeros get 0."""
    n = rows.shape[1]
    largest: Float = np.maximum(rows.max(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    parts: Float = rows / largest  # their squares stay within float32
    steps = np.arange(1, 1 << (bits - 1), dtype=np.float32)  # c
    points = (parts[:, None, :] / (2 * steps[:, None])).reshape(len(rows), -1)
    order = np.argsort(-points, axis=1)
    c = (order // n + 1).astype(np.float32)
    growth = 4 * c * np.take_along_axis(points, order, axis=1)  # of q.v: 2 |v|
    products = np.concatenate([parts.sum(axis=1, keepdims=True), growth], axis=1).cumsum(axis=1)
    squares = np.concatenate([np.full((len(rows), 1), n, np.float32), 8 * c], axis=1).cumsum(axis=1)
    best = np.argmax(products**2 / squares, axis=1)[:, None]
    found: Float = np.take_along_axis(products, best, axis=1) / np.take_along_axis(squares, best, axis=1)
    return (found * largest)[:, 0]
