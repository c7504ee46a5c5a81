"""Updates on fixed supports: of atoms, block by block, and of values where each entry has its own weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leanmatch.factorization.arrays import Float
from leanmatch.factorization.pursuit.native import Codes

Doubles = NDArray[np.float64]

CELLS = 1 << 16
"""Rows times blocks that :func:`weighted_values` treats at once."""
RIDGE = 1e-6
"""Relative to the energy of each atom's coefficients; keeps atoms that always come together apart."""


def sparse_block(codes: Codes, i: int, atoms: int) -> Float:
    """``S_i (m, r)`` with its zeros."""
    rows = len(codes.indices)
    sparse = np.zeros(rows * atoms, np.float32)
    sparse[(np.arange(rows) * atoms)[:, None] + codes.indices[:, i]] = codes.values[:, i]
    return sparse.reshape(rows, atoms)


def block_of(weight: Float, i: int, block: int) -> Float:
    """``W_i (m, b)``."""
    return weight[:, i * block : (i + 1) * block]


def least_squares_atoms(weight: Float, codes: Codes, atoms: Float, rows: Doubles | None = None) -> Float:
    """``D_i = (S_i^T R S_i)^-1 S_i^T R W_i``, the best atoms for these codes (method of optimal directions).

    Args:
        weight: float32 ``(m, n)``.
        codes: their supports and values.
        atoms: the atoms until now ``(B, r, b)``; those that no row uses stay.
        rows: weights ``R`` of the rows ``(m, B)``.

    Source: Engan, Aase, Husoy, "Method of optimal directions for frame design" (1999).
    """
    blocks, count, block = atoms.shape
    updated = atoms.copy()
    for i in range(blocks):
        sparse = sparse_block(codes, i, count)
        weighted = sparse if rows is None else sparse * rows[:, i, None].astype(np.float32)
        gram = (weighted.T @ sparse).astype(np.float64)
        energy = np.diagonal(gram)
        used = energy > 0
        if not used.any():
            continue
        gram += np.diag(np.where(used, RIDGE * energy, 1.0))
        target = (weighted.T @ block_of(weight, i, block)).astype(np.float64)
        updated[i, used] = np.linalg.solve(gram, target)[used]
    return updated


def revive_atoms(weight: Float, codes: Codes, atoms: Float, share: float = 0.0) -> tuple[Float, int]:
    """Atoms that no row uses, and the ``share`` of all atoms that matter least, become the rows that err
    most.

    What an atom matters is the energy of its coefficients, ``sum values^2``.

    Returns:
        The atoms, and how many were replaced.
    """
    blocks, count, block = atoms.shape
    revived, replaced = atoms.copy(), 0
    for i in range(blocks):
        energy = np.bincount(
            codes.indices[:, i].ravel(), np.square(codes.values[:, i], dtype=np.float64).ravel(), count
        )
        fewest = max(int(share * count), int((energy == 0).sum()))
        if not fewest:
            continue
        weak = np.argsort(energy, kind="stable")[:fewest]
        worst = np.argsort(-codes.errors[:, i], kind="stable")[: len(weak)]
        worst = worst[codes.errors[worst, i] > 0]
        revived[i, weak[: len(worst)]] = block_of(weight, i, block)[worst]
        replaced += len(worst)
    return revived, replaced


def weighted_values(weight: Float, fisher: NDArray[np.floating], codes: Codes, atoms: Float) -> Float:
    """Values that lower ``sum F (W - S D)^2`` on the supports given, for any ``F (m, n)``: exact, row by row.

    ``values = (A F A^T)^-1 A F w`` with ``A (k, b)`` the atoms of a row and block. Where all of ``F`` is 0,
    values stay.
    """
    m, blocks, _ = codes.indices.shape
    block = atoms.shape[2]
    values = codes.values.copy()
    for begin in range(0, m, CELLS // blocks + 1):
        rows = slice(begin, begin + CELLS // blocks + 1)
        used = atoms[np.arange(blocks)[None, :, None], codes.indices[rows]].astype(np.float64)
        factor = fisher[rows].reshape(-1, blocks, 1, block).astype(np.float64)
        gram = (used * factor) @ used.transpose(0, 1, 3, 2)
        target = (used * factor) @ weight[rows].reshape(-1, blocks, block, 1).astype(np.float64)
        ridge = RIDGE * np.diagonal(gram, axis1=2, axis2=3).mean(axis=2)
        gram += np.where(ridge > 0, ridge, 1.0)[..., None, None] * np.eye(gram.shape[2])
        solved = np.linalg.solve(gram, target)[..., 0]
        values[rows] = np.where(ridge[..., None] > 0, solved, values[rows])
    return values
