"""Updates of the atoms on fixed supports, block by block, and what becomes of atoms that nobody uses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leanmatch.factorization.arrays import Float
from leanmatch.factorization.pursuit import Codes

Doubles = NDArray[np.float64]

RIDGE = 1e-6
"""Relative to the energy of each atom's coefficients; keeps atoms that always come together apart."""


def sparse_block(codes: Codes, block: int, atoms: int) -> Float:
    """``S_i (m, r)`` with its zeros."""
    sparse = np.zeros((codes.indices.shape[0], atoms), np.float32)
    np.put_along_axis(sparse, codes.indices[:, block].astype(np.int64), codes.values[:, block], axis=1)
    return sparse


def block_of(weight: Float, block: int, width: int) -> Float:
    """``W_i (m, b)``."""
    return weight[:, block * width : (block + 1) * width]


def least_squares_atoms(weight: Float, codes: Codes, atoms: Float, rows: Doubles | None = None) -> Float:
    """``D_i = (S_i^T R S_i)^-1 S_i^T R W_i``, the best atoms for these codes (method of optimal directions).

    Args:
        weight: float32 ``(m, n)``.
        codes: their supports and values.
        atoms: the atoms until now ``(B, r, b)``; those that no row uses stay.
        rows: weights ``R`` of the rows ``(m, B)``.

    Source: Engan, Aase, Husoy, "Method of optimal directions for frame design" (1999).
    """
    blocks, count, width = atoms.shape
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
        target = (weighted.T @ block_of(weight, i, width)).astype(np.float64)
        updated[i, used] = np.linalg.solve(gram, target)[used]
    return updated


def k_svd_atoms(weight: Float, codes: Codes, atoms: Float, rows: Doubles | None = None) -> Float:
    """One approximate K-SVD sweep: each atom in turn, with its coefficients, by one step of the power method.

    ``d <- E^T R c / |E^T R c|`` and ``c <- E d`` over the rows that use the atom, ``E`` their error without
    it.

    Source: Rubinstein, Zibulevsky, Elad, "Efficient implementation of the K-SVD algorithm" (2008).
    """
    blocks, count, width = atoms.shape
    updated = atoms.copy()
    for i in range(blocks):
        sparse = sparse_block(codes, i, count)
        error = block_of(weight, i, width) - sparse @ updated[i]
        for atom in range(count):
            users = np.flatnonzero(sparse[:, atom])
            if not users.size:
                continue
            value = sparse[users, atom]
            without = error[users] + value[:, None] * updated[i, atom]
            direction = (value if rows is None else value * rows[users, i]) @ without
            length = float(np.linalg.norm(direction))
            if not length > 0:
                continue
            direction = (direction / length).astype(np.float32)
            value = without @ direction
            error[users] = without - value[:, None] * direction
            sparse[users, atom] = value
            updated[i, atom] = direction
    return updated


def revive_atoms(weight: Float, codes: Codes, atoms: Float, share: float = 0.0) -> tuple[Float, int]:
    """Atoms that no row uses, and the ``share`` of all atoms that matter least, become the rows that err
    most.

    What an atom matters is the energy of its coefficients, ``sum values^2``.

    Returns:
        The atoms, and how many were replaced.
    """
    blocks, count, width = atoms.shape
    revived, replaced = atoms.copy(), 0
    for i in range(blocks):
        energy = np.bincount(
            codes.indices[:, i].ravel(), np.square(codes.values[:, i], dtype=np.float64).ravel(), count
        )
        weak = np.argsort(energy, kind="stable")[: max(int(share * count), int((energy == 0).sum()))]
        worst = np.argsort(-codes.errors[:, i], kind="stable")[: len(weak)]
        worst = worst[codes.errors[worst, i] > 0]
        revived[i, weak[: len(worst)]] = block_of(weight, i, width)[worst]
        replaced += len(worst)
    return revived, replaced
