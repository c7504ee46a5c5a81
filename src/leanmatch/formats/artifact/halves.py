"""float16 where it loses next to nothing, float32 elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_ERROR = 2.0**-10
"""Largest rounding error that is taken for half the bytes; float16 in its normal range has at most 2^-11."""


def stored(array: NDArray[Any]) -> NDArray[Any]:
    """A tensor as float16 where no entry moves by more than :data:`MOST_ERROR` of the largest entry's size.

    Values beyond the range of float16, and tensors of tiny values only, stay float32.
    """
    values = np.ascontiguousarray(array, dtype=np.float32)
    largest = float(np.abs(values).max(initial=0))
    if largest == 0:
        return values.astype(np.float16)
    half = _half(values)
    error = float(np.abs(half.astype(np.float32) - values).max())
    return half if error <= MOST_ERROR * largest else values


def stored_scales(scales: NDArray[Any]) -> NDArray[Any]:
    """Scales as float16 where each keeps its own value within :data:`MOST_ERROR`, so that none becomes 0."""
    values = np.ascontiguousarray(scales, dtype=np.float32)
    half = _half(values)
    close = np.abs(half.astype(np.float32) - values) <= MOST_ERROR * np.abs(values)
    return half if bool(close.all()) else values


def _half(values: NDArray[np.float32]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        return values.astype(np.float16)
