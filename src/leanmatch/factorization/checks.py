"""Checks of arrays that come from outside: dtype, axes, finite values, ranges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import DataError, UsageError
from leanmatch.factorization.arrays import ODD_BITS, largest_code

INDEX_DTYPES = (np.uint8, np.uint16)
MOST_ATOMS = 1 << 16


def check_array(
    name: str, array: object, axes: Sequence[str], dtypes: Sequence[type[np.generic]]
) -> NDArray[np.generic]:
    """An array with one of the dtypes and as many axes as named.

    Raises:
        DataError: something else.
    """
    wanted = f"{' or '.join(dtype.__name__ for dtype in dtypes)} ({', '.join(axes)})"
    if not isinstance(array, np.ndarray):
        raise DataError(f"{name} must be a numpy array, {wanted} (found {type(array).__name__})")
    if array.dtype not in [np.dtype(dtype) for dtype in dtypes] or array.ndim != len(axes):
        raise DataError(
            f"{name} must be {wanted} (found {array.dtype} {array.shape})",
            remedy=f"convert it, for example numpy.ascontiguousarray({name}, numpy.{dtypes[0].__name__})",
        )
    return array


def check_shape(name: str, array: NDArray[np.generic], shape: tuple[int, ...], axes: str) -> None:
    """The array has this shape.

    Raises:
        DataError: it has another.
    """
    if array.shape != shape:
        raise DataError(f"{name} must have the shape {shape} = {axes} (found {array.shape})")


def check_not_empty(name: str, array: NDArray[np.generic], axes: Sequence[str]) -> None:
    """Every axis has a length above 0, but for the first one where it is ``m``: a matrix may have no rows.

    Raises:
        DataError: an axis of length 0.
    """
    empty = [axis for axis, size in zip(axes, array.shape, strict=True) if size == 0 and axis != "m"]
    if empty:
        raise DataError(f"{name} is empty along {', '.join(empty)} (found the shape {array.shape})")


def check_finite(name: str, array: NDArray[np.generic]) -> None:
    """No NaN and no infinity.

    Raises:
        DataError: there is one; the message says where the first one is.
    """
    finite = np.isfinite(array)
    if not finite.all():
        where = tuple(int(axis) for axis in np.unravel_index(int(np.argmin(finite)), array.shape))
        raise DataError(
            f"{name} has {int((~finite).sum())} values that are not finite, the first at {where}",
            value=float(array[where]),
        )


def check_float(name: str, array: object, axes: tuple[str, ...]) -> None:
    """A float32 array, finite, with no empty axis but ``m``.

    Raises:
        DataError: it is not.
    """
    checked = check_array(name, array, axes, (np.float32,))
    check_not_empty(name, checked, axes)
    check_finite(name, checked)


def check_bits(name: str, bits: int, valid: tuple[int, ...]) -> None:
    """A supported number of bits.

    Raises:
        UsageError: another one.
    """
    if bits not in valid:
        raise UsageError(f"{name} {bits!r} is not supported", remedy=f"one of {', '.join(map(str, valid))}")


def check_codes(name: str, array: NDArray[np.int8], bits: int) -> None:
    """Integer codes are at most :func:`~leanmatch.factorization.arrays.largest_code` in size, and odd with 2
    and 3 bits.

    Raises:
        DataError: a code is larger, or even where all must be odd.
    """
    most = largest_code(bits)
    if array.size and (int(array.min()) < -most or int(array.max()) > most):
        raise DataError(
            f"{name} of {bits} bits must lie between {-most} and {most} "
            f"(found {int(array.min())} to {int(array.max())})"
        )
    if bits in ODD_BITS and not (array & 1).all():
        even = array[(array & 1) == 0]
        raise DataError(f"{name} of {bits} bits must be odd (found {int(even[0])})")


def check_indices(name: str, indices: NDArray[np.generic], atoms: int) -> None:
    """Atom numbers ``(m, B, k)``: below ``atoms``, distinct within a row and block.

    Raises:
        DataError: out of range, or the same atom twice.
    """
    if not indices.size:
        return
    largest = int(indices.max())
    if largest >= atoms:
        raise DataError(f"{name} must be below the number of atoms, {atoms} (found {largest})")
    repeated = _repeated(indices)
    if repeated.any():
        row, block = np.unravel_index(int(np.argmax(repeated)), repeated.shape)
        raise DataError(
            f"{name} must be distinct within a row and block; row {row}, block {block} names an atom twice",
            value=indices[row, block].tolist(),
        )


FEW = 16
"""Nonzeros a block up to which comparing all pairs is faster than sorting (4: 27 times)."""


def _repeated(indices: NDArray[np.generic]) -> NDArray[np.bool_]:
    """``(m, B)``: does the row name an atom of the block twice?"""
    nonzeros = indices.shape[-1]
    if nonzeros > FEW:
        ordered = np.sort(indices, axis=-1)
        repeated: NDArray[np.bool_] = (ordered[..., 1:] == ordered[..., :-1]).any(axis=-1)
        return repeated
    columns = [np.ascontiguousarray(indices[..., number]) for number in range(nonzeros)]
    repeated = np.zeros(indices.shape[:-1], np.bool_)
    for number, column in enumerate(columns):
        for other in columns[:number]:
            repeated |= column == other
    return repeated


def check_scale(name: str, scale: NDArray[np.float32]) -> None:
    """Scales are finite and above 0.

    Raises:
        DataError: one is not.
    """
    check_finite(name, scale)
    if scale.size and float(scale.min()) <= 0:
        raise DataError(f"{name} must be above 0 (found {float(scale.min())})")


def index_dtype(atoms: int) -> type[np.uint8] | type[np.uint16]:
    """The dtype of atom numbers: uint8 up to 256 atoms, else uint16.

    Raises:
        DataError: more than 65536 atoms.

    >>> index_dtype(256).__name__, index_dtype(257).__name__
    ('uint8', 'uint16')
    """
    if atoms > MOST_ATOMS:
        raise DataError(f"a block can have at most {MOST_ATOMS} atoms (found {atoms})")
    return np.uint8 if atoms <= 256 else np.uint16


def check_count(name: str, value: int, low: int, high: int | None = None) -> None:
    """A whole number of an option.

    Raises:
        UsageError: it is out of range.
    """
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise UsageError(f"{name} must be {limits} (found {value!r})")


def check_divides(block: int, n: int) -> None:
    """Blocks of ``block`` columns fill the matrix.

    Raises:
        UsageError: they do not.
    """
    if block < 1 or n % block:
        fitting = [size for size in range(1, min(n, 256) + 1) if n % size == 0]
        raise UsageError(
            f"the block of a block must divide the {n} columns (found {block!r})",
            remedy=f"one of {', '.join(map(str, fitting))}",
        )
