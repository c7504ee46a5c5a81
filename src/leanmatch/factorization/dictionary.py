"""Dictionary learning: pursuit and atom updates in turn, in the metric of each block."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.factorization.arrays import Float
from leanmatch.factorization.atoms import least_squares_atoms, revive_atoms
from leanmatch.factorization.checks import check_count
from leanmatch.factorization.dense_sparse import DenseSparse
from leanmatch.factorization.error_metric import BlockMetric
from leanmatch.factorization.pursuit.native import Codes, pursue

RENEWED = 0.03
"""Share of a block's atoms, those that matter least, that begin anew every :data:`RENEW_EVERY` iterations."""
RENEW_EVERY = 3
SETTLING = 5
"""Last iterations, in which no atom that is used begins anew."""
SWEEP_ITERATIONS = 2
"""Atom updates of a block in a sweep."""


@dataclass(frozen=True)
class DenseSparseOptions:
    """Options of :func:`leanmatch.factorization.dense_sparse_solver.dense_sparse`.

    Attributes:
        block: ``b``, columns per block; must divide ``n``.
        atoms: ``r``, atoms per block.
        nonzeros: ``k``, nonzeros per row and block.
        iterations: of pursuit and atom update.
        beam: supports kept in the pursuit (:func:`leanmatch.factorization.pursuit.native.pursue`) in the
            second half of the iterations, twice as many in the last one. 1 is three times as fast as 4, with
            an error larger by a fifth.
        compensate: blocks make up for the errors of others; needs second moments.
        sweeps: with ``compensate``, how often all blocks are solved again given the others, a few
            iterations each. Two lower the error by a sixth and cost as much as eight ``iterations``.
        seed: of the rows that are the first atoms.
        threads: of the pursuit; None for all that the process may use.

    Raises:
        UsageError: out of range.
    """

    block: int = 16
    atoms: int = 64
    nonzeros: int = 4
    iterations: int = 30
    beam: int = 4
    compensate: bool = False
    sweeps: int = 2
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        check_count("block", self.block, 1)
        check_count("atoms", self.atoms, 1, 1 << 16)
        check_count("nonzeros", self.nonzeros, 1, self.atoms)
        check_count("iterations", self.iterations, 0)
        check_count("beam", self.beam, 1)
        check_count("sweeps", self.sweeps, 0)


def first_atoms(weight: Float, block: int, count: int, seed: int) -> Float:
    """Rows of each block, drawn without replacement; random directions where too few are not 0."""
    m, n = weight.shape
    rng = np.random.default_rng(seed)
    atoms = rng.normal(size=(n // block, count, block)).astype(np.float32)
    for i in range(n // block):
        part = weight[:, i * block : (i + 1) * block]
        rows = rng.permutation(m)
        rows = rows[part[rows].any(axis=1)][:count]
        atoms[i, : len(rows)] = part[rows]
    return atoms


def learn(
    weight: NDArray[np.floating],
    per_block: BlockMetric,
    options: DenseSparseOptions,
    start: Float | None = None,
) -> tuple[DenseSparse, tuple[float, ...]]:
    """Pursuit and atom updates in turn; the best factors of all iterations are returned.

    Args:
        weight: float32 ``(m, n)``.
        per_block: the metric of its blocks.
        options: see there; ``compensate`` and ``sweeps`` play no part.
        start: atoms to begin from, ``(B, r, b)``, with few iterations; None begins from rows of the weight.

    Returns:
        The factors, and the relative error after each iteration.
    """
    target = per_block.forward(weight, options.block)
    m, n = target.shape
    energy = np.square(target).reshape(m, n // options.block, options.block).sum(axis=2)
    scale = max(_total(energy, per_block), 1e-300)
    if start is None:
        iterations = options.iterations
        atoms = first_atoms(target, options.block, options.atoms, options.seed)
    else:
        iterations = min(SWEEP_ITERATIONS, options.iterations)
        atoms = _of_length_one(per_block.atoms_forward(start))
    best: tuple[float, Float, Codes] | None = None
    history = []
    for step in range(iterations + 1):
        left = iterations - step
        beam = _beam(options, left) if start is None else (2 if left == 0 else 1) * options.beam
        codes = pursue(target, atoms, options.nonzeros, beam=beam, threads=options.threads)
        error = _total(codes.errors, per_block)
        history.append(error / scale)
        if best is None or error < best[0]:
            best = error, atoms, codes
        if left:
            atoms = _of_length_one(least_squares_atoms(target, codes, atoms, per_block.rows))
            renew = RENEWED if step % RENEW_EVERY == RENEW_EVERY - 1 and left > SETTLING else 0.0
            atoms, _ = revive_atoms(target, codes, atoms, renew)
    assert best is not None
    return _finished(best[1], best[2], per_block), tuple(history)


def _beam(options: DenseSparseOptions, left: int) -> int:
    """Greedy in the first half: atoms move more, and end in a better place than with a beam throughout."""
    if left == 0 and options.beam > 1:
        return 2 * options.beam
    return options.beam if 2 * left <= options.iterations else 1


def _of_length_one(atoms: Float) -> Float:
    lengths = np.linalg.norm(atoms, axis=2, keepdims=True)
    unit: Float = np.divide(atoms, lengths, out=atoms.copy(), where=lengths > 0)
    return unit


def _total(errors: NDArray[np.floating], per_block: BlockMetric) -> float:
    return float((errors if per_block.rows is None else errors * per_block.rows).sum(dtype=np.float64))


def _finished(atoms: Float, codes: Codes, per_block: BlockMetric) -> DenseSparse:
    """Back in the space of the weights, atoms of length 1."""
    back = per_block.atoms_back(atoms)
    lengths = np.linalg.norm(back, axis=2)
    lengths = np.where(lengths > 0, lengths, 1.0)
    chosen = lengths[np.arange(len(atoms))[None, :, None], codes.indices]
    values = (codes.values * chosen).astype(np.float32)
    return DenseSparse((back / lengths[..., None]).astype(np.float32), codes.indices, values)
