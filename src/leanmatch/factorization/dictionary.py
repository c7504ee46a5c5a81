"""Dense-sparse factors: pursuit and atom updates in turn, in the metric of the calibration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError
from leanmatch.factorization.arrays import Float
from leanmatch.factorization.atoms import k_svd_atoms, least_squares_atoms, revive_atoms, weighted_values
from leanmatch.factorization.calibration import BlockMetric, Calibration, block_metric
from leanmatch.factorization.compensation import compensated
from leanmatch.factorization.dense_sparse import DenseSparse
from leanmatch.factorization.pursuit.native import Codes, pursue
from leanmatch.factorization.solved import PLAIN, Solved, check_count, check_divides, solved

RENEWED = 0.03
"""Share of a block's atoms, those that matter least, that begin anew every :data:`RENEW_EVERY` rounds."""
RENEW_EVERY = 3
SETTLING = 5
"""Last rounds, in which no atom that is used begins anew."""
SWEEP_ROUNDS = 2
"""Atom updates of a block in a sweep."""

UPDATES = {"least-squares": least_squares_atoms, "k-svd": k_svd_atoms}


@dataclass(frozen=True)
class DenseSparseOptions:
    """Options of :func:`dense_sparse`.

    Attributes:
        width: ``b``, columns per block; must divide ``n``.
        atoms: ``r``, atoms per block.
        nonzeros: ``k``, nonzeros per row and block.
        iterations: rounds of pursuit and atom update.
        beam: supports kept in the pursuit (:func:`leanmatch.factorization.pursuit.native.pursue`) in the
            second half of the rounds, twice as many in the last one. 1 is three times as fast as 4 and errs a
            fifth more.
        update: one of :data:`UPDATES`.
        compensate: blocks make up for the errors of others; needs second moments.
        sweeps: with ``compensate``, how often all blocks are solved again given the others, a few rounds
            each. Two lower the error by a sixth and cost as much as eight ``iterations``.
        seed: of the rows that are the first atoms.
        threads: of the pursuit; None for all that the process may use.

    Raises:
        UsageError: out of range.
    """

    width: int = 16
    atoms: int = 64
    nonzeros: int = 4
    iterations: int = 30
    beam: int = 4
    update: str = "least-squares"
    compensate: bool = False
    sweeps: int = 2
    seed: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        check_count("width", self.width, 1)
        check_count("atoms", self.atoms, 1, 1 << 16)
        check_count("nonzeros", self.nonzeros, 1, self.atoms)
        check_count("iterations", self.iterations, 0)
        check_count("beam", self.beam, 1)
        check_count("sweeps", self.sweeps, 0)
        if self.update not in UPDATES:
            raise UsageError(f"unknown update {self.update!r}", remedy=f"one of {', '.join(UPDATES)}")


def dense_sparse(
    weight: Float, options: DenseSparseOptions | None = None, calibration: Calibration = PLAIN
) -> Solved:
    """``W_i ~ S_i D_i`` with ``k`` nonzeros in every row of ``S_i``, by pursuit and atom updates in turn.

    The error that is lowered is ``sum_i |(W_i - S_i D_i) L_i|^2`` with ``L_i L_i^T`` the block of the second
    moments, or a row and column weighting from a Fisher matrix (:func:`block_metric`); with a Fisher matrix
    alone the values are at last fitted to its own weight of every entry, exactly, on the supports found. The
    best factors of all rounds are returned, with atoms of length 1.

    Args:
        weight: float32 ``(m, n)``.
        options: see there.
        calibration: weights of the error.

    Raises:
        UsageError: a width that does not divide ``n``; ``compensate`` without second moments.
        DataError: numbers that are not finite.

    >>> weight = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    >>> result = dense_sparse(weight, DenseSparseOptions(width=8, atoms=16, nonzeros=3))
    >>> result.factors.nonzeros, result.report.relative_error < 0.2
    (3, True)
    """
    factors, history = dense_sparse_factors(weight, options, calibration)
    return solved("dense-sparse", weight, factors, calibration, history)


def dense_sparse_factors(
    weight: Float, options: DenseSparseOptions | None = None, calibration: Calibration = PLAIN
) -> tuple[DenseSparse, tuple[float, ...]]:
    """:func:`dense_sparse` without its report: the factors, and the relative errors round by round."""
    options = options or DenseSparseOptions()
    check_divides(options.width, weight.shape[1])
    calibration.check_fits((weight.shape[0], weight.shape[1]))
    metric = block_metric(calibration, weight.shape[0], weight.shape[1], options.width)
    if options.compensate:
        if calibration.moments is None:
            raise UsageError("compensate needs second moments", remedy="Calibration(moments=...)")
        factors, history = compensated(
            weight, calibration, metric, options.width, partial(_learn, options=options), options.sweeps
        )
    else:
        factors, history = _learn(weight, metric, options=options)
    if calibration.fisher is not None and calibration.moments is None:
        codes = Codes(factors.indices, factors.values, np.empty(factors.indices.shape[:2], np.float32))
        values = weighted_values(weight, calibration.fisher, codes, factors.atoms)
        factors = DenseSparse(factors.atoms, factors.indices, values)
    return factors, history


def first_atoms(weight: Float, width: int, count: int, seed: int) -> Float:
    """Rows of each block, drawn without replacement; random directions where too few are not 0."""
    m, n = weight.shape
    rng = np.random.default_rng(seed)
    atoms = rng.normal(size=(n // width, count, width)).astype(np.float32)
    for i in range(n // width):
        block = weight[:, i * width : (i + 1) * width]
        rows = rng.permutation(m)
        rows = rows[block[rows].any(axis=1)][:count]
        atoms[i, : len(rows)] = block[rows]
    return atoms


def _learn(
    weight: NDArray[np.floating],
    metric: BlockMetric,
    start: Float | None = None,
    *,
    options: DenseSparseOptions,
) -> tuple[DenseSparse, tuple[float, ...]]:
    """Pursuit and atom updates in turn, from rows of the weight or from the atoms ``start``."""
    target = metric.forward(weight, options.width)
    m, n = target.shape
    energy = np.square(target).reshape(m, n // options.width, options.width).sum(axis=2)
    scale = max(_total(energy, metric), 1e-300)
    if start is None:
        iterations = options.iterations
        atoms = first_atoms(target, options.width, options.atoms, options.seed)
    else:
        iterations = min(SWEEP_ROUNDS, options.iterations)
        atoms = _of_length_one(metric.atoms_forward(start))
    best: tuple[float, Float, Codes] | None = None
    history = []
    for round_ in range(iterations + 1):
        left = iterations - round_
        beam = _beam(options, left) if start is None else (2 if left == 0 else 1) * options.beam
        codes = pursue(target, atoms, options.nonzeros, beam=beam, threads=options.threads)
        error = _total(codes.errors, metric)
        history.append(error / scale)
        if best is None or error < best[0]:
            best = error, atoms, codes
        if left:
            atoms = _of_length_one(UPDATES[options.update](target, codes, atoms, metric.rows))
            renew = RENEWED if round_ % RENEW_EVERY == RENEW_EVERY - 1 and left > SETTLING else 0.0
            atoms, _ = revive_atoms(target, codes, atoms, renew)
    assert best is not None
    return _finished(best[1], best[2], metric), tuple(history)


def _beam(options: DenseSparseOptions, left: int) -> int:
    """Greedy in the first half: atoms move more, and end in a better place than with a beam throughout."""
    if left == 0 and options.beam > 1:
        return 2 * options.beam
    return options.beam if 2 * left <= options.iterations else 1


def _of_length_one(atoms: Float) -> Float:
    lengths = np.linalg.norm(atoms, axis=2, keepdims=True)
    unit: Float = np.divide(atoms, lengths, out=atoms.copy(), where=lengths > 0)
    return unit


def _total(errors: NDArray[np.floating], metric: BlockMetric) -> float:
    return float((errors if metric.rows is None else errors * metric.rows).sum(dtype=np.float64))


def _finished(atoms: Float, codes: Codes, metric: BlockMetric) -> DenseSparse:
    """Back in the space of the weights, atoms of length 1."""
    back = metric.atoms_back(atoms)
    lengths = np.linalg.norm(back, axis=2)
    lengths = np.where(lengths > 0, lengths, 1.0)
    chosen = lengths[np.arange(len(atoms))[None, :, None], codes.indices]
    values = (codes.values * chosen).astype(np.float32)
    return DenseSparse((back / lengths[..., None]).astype(np.float32), codes.indices, values)
