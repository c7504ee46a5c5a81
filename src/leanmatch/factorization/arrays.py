"""Types of arrays, and rounding to integer codes."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Float: TypeAlias = NDArray[np.float32]
Int8: TypeAlias = NDArray[np.int8]
Index: TypeAlias = NDArray[np.uint8 | np.uint16]


def largest_code(bits: int) -> int:
    """The largest symmetric integer code: 127 for 8 bits, 7 for 4."""
    return (1 << (bits - 1)) - 1


def round_to_codes(values: Float, bits: int) -> tuple[Int8, Float]:
    """Symmetric codes of ``bits`` bits with one scale for each run along the last axis.

    ``scale = max |values| / (2^(bits-1) - 1)``, 1 where all are 0; ``codes = round(values / scale)``.

    Returns:
        Codes, int8, in the shape of ``values``; scales, float32, without its last axis.
    """
    most = largest_code(bits)
    scale = np.abs(values).max(axis=-1, initial=0).astype(np.float32) / np.float32(most)
    scale = np.where(scale > 0, scale, np.float32(1))
    codes = np.clip(np.rint(values / scale[..., None]), -most, most)
    return codes.astype(np.int8), scale
