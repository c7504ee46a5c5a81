"""Sparse codes of every row and block on given atoms, natively; decoding, and the decoder's gradients.

The kernels run at the best level of portable, avx2 and avx512 that :func:`leanmatch.native.variants` allows.
Contiguous arrays are read in place, those of torch tensors too (``x.numpy()``); others are
copied. The slow reference is ``tests/factorization/slow_pursuit.py``.
"""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

import numpy as np

from leanmatch.cpus import usable_cpus
from leanmatch.errors import DataError, UsageError
from leanmatch.factorization.arrays import Float, Index
from leanmatch.factorization.checks import INDEX_DTYPES, check_array, check_shape, index_dtype
from leanmatch.native import LIMIT_VARIABLE, load, variants

LEVELS = ("portable", "avx2", "avx512")
"""Levels that have kernels of the pursuit, slowest first."""

MOST_BEAM_NONZEROS = 64
DEPENDENT = 1e-4
"""An atom depends on those chosen where the squared sine of its angle to their span is at most this."""

SELECTIONS = {
    "gain": "orthogonal least squares: the atom that lowers the error most",
    "correlation": "orthogonal matching pursuit: the atom closest to the residual in angle",
}


class Codes(NamedTuple):
    """What a pursuit returns.

    Attributes:
        indices: uint8 or uint16 ``(m, B, k)``, distinct within a row and block.
        values: float32 ``(m, B, k)``.
        errors: squared error of each row and block, float32 ``(m, B)``.
    """

    indices: Index
    values: Float
    errors: Float


def level() -> str:
    """The level whose kernels run now.

    >>> level() in LEVELS
    True
    """
    return _level(os.environ.get(LIMIT_VARIABLE))


@functools.cache
def _level(limit: str | None) -> str:
    return [name for name, variant in variants().items() if variant.runs and name in LEVELS][-1]


def pursue(
    weight: Float,
    atoms: Float,
    nonzeros: int,
    *,
    selection: str = "gain",
    beam: int = 1,
    threads: int | None = None,
) -> Codes:
    """Greedy least squares: ``k`` atoms for every row and block, ``W_i ~ S_i D_i``.

    Atoms are chosen one by one (:data:`SELECTIONS`), coefficients are those of least squares on all that are
    chosen. An atom that lies in the span of those before it (squared sine at most 1e-4) is never chosen;
    where nothing is left to gain, unused atoms of the lowest numbers get the value 0. Of equals the first is
    chosen.

    Args:
        weight: float32 ``(m, n)``.
        atoms: float32 ``(B, r, b)`` of any norm, ``n = B b``.
        nonzeros: ``k``, from 1 to ``r``.
        selection: one of :data:`SELECTIONS`. ``gain`` costs about a third more time and errs less.
        beam: supports that are kept at every step, with ``gain``; 1 is greedy. 4 costs about 4 times as much
            and errs 5 to 20% less on weights of transformers.
        threads: at most this many; None for all that the process may use.

    Raises:
        DataError: arrays that do not fit, numbers that are not finite.
        UsageError: options out of range.

    Source: Pati, Rezaiifar, Krishnaprasad (1993); Chen, Billings, Luo (1989) for ``gain``.
    """
    if selection not in SELECTIONS:
        raise UsageError(f"unknown selection {selection!r}", remedy=f"one of {', '.join(SELECTIONS)}")
    if beam < 1 or (beam > 1 and (selection != "gain" or nonzeros > MOST_BEAM_NONZEROS)):
        limits = f"above 1 only with selection 'gain' and up to {MOST_BEAM_NONZEROS} nonzeros"
        raise UsageError(f"beam must be at least 1, {limits} (found {beam!r}, {selection!r}, {nonzeros!r})")
    return _run(weight, atoms, nonzeros, None, selection == "gain", threads, beam)


def refit(weight: Float, atoms: Float, indices: Index, *, threads: int | None = None) -> Codes:
    """Least squares coefficients on given supports ``(m, B, k)``: the projection of STF between refreshes.

    An atom that depends on others of its support gets 0.

    Raises:
        DataError: arrays that do not fit, numbers that are not finite.
    """
    check_array("indices", indices, ("m", "B", "k"), INDEX_DTYPES)
    return _run(weight, atoms, indices.shape[2], indices, False, threads)


def _run(
    weight: Float,
    atoms: Float,
    nonzeros: int,
    support: Index | None,
    gain: bool,
    threads: int | None,
    beam: int = 1,
) -> Codes:
    check_array("weight", weight, ("m", "n"), (np.float32,))
    check_array("atoms", atoms, ("B", "r", "b"), (np.float32,))
    blocks, count, width = atoms.shape
    m, n = weight.shape
    if not atoms.size or n != blocks * width:
        raise DataError(
            f"weight (m, B b) and atoms (B, r, b) do not fit (found {weight.shape}, {atoms.shape})"
        )
    if not 1 <= nonzeros <= count:
        raise UsageError(f"nonzeros must be from 1 to the number of atoms, {count} (found {nonzeros!r})")
    shape = (m, blocks, nonzeros)
    if support is not None:
        support = _indices("indices", support, count, shape)
    indices: Index = np.empty(shape, index_dtype(count)) if support is None else support
    values, errors = np.empty(shape, np.float32), np.empty(shape[:2], np.float32)
    finite = load().pursue(
        level(),
        np.ascontiguousarray(weight),
        np.ascontiguousarray(atoms),
        indices if support is None else None,
        values,
        errors,
        support=support,
        gain=gain,
        beam=beam,
        threads=_threads(threads),
    )
    if not finite or not np.isfinite(atoms).all():
        raise DataError("weight or atoms have values that are not finite, or too large to square in float32")
    return Codes(indices, values, errors)


def decode(
    indices: Index,
    values: Float,
    atoms: Float,
    *,
    out: Float | None = None,
    threads: int | None = None,
) -> Float:
    """``W (m, n)`` float32 of the factors: ``W[:, block i] = sum_j values_j atoms[i, indices_j]``.

    Args:
        indices: uint8 or uint16 ``(m, B, k)``.
        values: float32 ``(m, B, k)``.
        atoms: float32 ``(B, r, b)``.
        out: where to write; contiguous float32 ``(m, n)``.
        threads: at most this many; None for all that the process may use.

    Raises:
        DataError: arrays that do not fit, indices out of range.
    """
    indices = _check_factors(indices, values, atoms)
    m, (blocks, _, width) = values.shape[0], atoms.shape
    if out is None:
        out = np.empty((m, blocks * width), np.float32)
    check_array("out", out, ("m", "n"), (np.float32,))
    check_shape("out", out, (m, blocks * width), "(m, n)")
    if not (out.flags.c_contiguous and out.flags.writeable):
        raise DataError("out must be contiguous and writable")
    values, atoms = np.ascontiguousarray(values), np.ascontiguousarray(atoms)
    load().decode(level(), indices, values, atoms, out, threads=_threads(threads))
    return out


def decode_backward(
    gradient: Float, indices: Index, values: Float, atoms: Float, *, threads: int | None = None
) -> tuple[Float, Float]:
    """Gradients of :func:`decode`: from ``G = dL/dW (m, n)`` those of values and atoms.

    ``d_values[row, i, j] = <atoms[i, indices_j], G[row, block i]>`` and ``d_atoms[i, a] = sum values_j G[row,
    block i]`` over the rows and ``j`` that chose ``a``. Sums are split among threads in a fixed way: the same
    number of threads gives the same bits.

    Returns:
        ``d_values (m, B, k)`` and ``d_atoms (B, r, b)``, float32.

    Raises:
        DataError: arrays that do not fit, indices out of range.
    """
    indices = _check_factors(indices, values, atoms)
    check_array("gradient", gradient, ("m", "n"), (np.float32,))
    check_shape("gradient", gradient, (values.shape[0], atoms.shape[0] * atoms.shape[2]), "(m, n)")
    d_values, d_atoms = np.empty(values.shape, np.float32), np.empty(atoms.shape, np.float32)
    load().decode_backward(
        level(),
        np.ascontiguousarray(gradient),
        indices,
        np.ascontiguousarray(values),
        np.ascontiguousarray(atoms),
        d_values,
        d_atoms,
        threads=_threads(threads),
    )
    return d_values, d_atoms


def _threads(threads: int | None) -> int:
    if threads is None:
        return usable_cpus()
    if threads < 1:
        raise UsageError(f"threads must be at least 1 (found {threads!r})")
    return threads


def _check_factors(indices: Index, values: Float, atoms: Float) -> Index:
    check_array("values", values, ("m", "B", "k"), (np.float32,))
    check_array("atoms", atoms, ("B", "r", "b"), (np.float32,))
    if values.shape[1] != atoms.shape[0]:
        raise DataError(f"values (m, B, k) and atoms (B, r, b) must share B ({values.shape}, {atoms.shape})")
    return _indices("indices", indices, atoms.shape[1], values.shape)


def _indices(name: str, indices: Index, atoms: int, shape: tuple[int, ...]) -> Index:
    """Contiguous atom numbers, every one below ``atoms``."""
    check_array(name, indices, ("m", "B", "k"), INDEX_DTYPES)
    check_shape(name, indices, shape, "(m, B, k)")
    if indices.size and int(indices.max()) >= atoms:
        raise DataError(f"{name} must be below the number of atoms, {atoms} (found {int(indices.max())})")
    result: Index = np.ascontiguousarray(indices, index_dtype(atoms))
    return result
