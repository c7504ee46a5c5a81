"""The solver of dense-sparse factors: which blocks are solved together, and in what metric."""

from __future__ import annotations

import numpy as np

from leanmatch.errors import UsageError
from leanmatch.factorization.arrays import Float
from leanmatch.factorization.atoms import weighted_values
from leanmatch.factorization.checks import check_divides
from leanmatch.factorization.compensation import compensated
from leanmatch.factorization.dense_sparse import DenseSparse
from leanmatch.factorization.dictionary import DenseSparseOptions, learn
from leanmatch.factorization.error_metric import ErrorMetric
from leanmatch.factorization.pursuit.native import Codes
from leanmatch.factorization.solved import PLAIN, Solved, solved


def dense_sparse(
    weight: Float, options: DenseSparseOptions | None = None, metric: ErrorMetric = PLAIN
) -> Solved:
    """``W_i ~ S_i D_i`` with ``k`` nonzeros in every row of ``S_i``, by pursuit and atom updates in turn.

    The error that is lowered is ``sum_i |(W_i - S_i D_i) L_i|^2`` with ``L_i L_i^T`` the block of the second
    moments, or a row and column weighting from a Fisher matrix (:class:`ErrorMetric`); with a Fisher matrix
    alone the values are at last fitted to its own weight of every entry, exactly, on the supports found. The
    best factors of all iterations are returned, with atoms of length 1.

    Args:
        weight: float32 ``(m, n)``.
        options: see there.
        metric: the error to minimize.

    Raises:
        UsageError: a block that does not divide ``n``; ``compensate`` without second moments.
        DataError: numbers that are not finite.

    >>> weight = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    >>> result = dense_sparse(weight, DenseSparseOptions(block=8, atoms=16, nonzeros=3))
    >>> result.factors.nonzeros, result.report.relative_error < 0.2
    (3, True)
    """
    factors, history = dense_sparse_factors(weight, options, metric)
    return solved("dense-sparse", weight, factors, metric, history)


def dense_sparse_factors(
    weight: Float, options: DenseSparseOptions | None = None, metric: ErrorMetric = PLAIN
) -> tuple[DenseSparse, tuple[float, ...]]:
    """:func:`dense_sparse` without its report: the factors, and the relative error after each iteration."""
    options = options or DenseSparseOptions()
    check_divides(options.block, weight.shape[1])
    metric.check_fits((weight.shape[0], weight.shape[1]))
    per_block = metric.by_block(weight.shape[0], weight.shape[1], options.block)
    if options.compensate:
        if metric.moments is None:
            raise UsageError("compensate needs second moments", remedy="ErrorMetric(moments=...)")
        factors, history = compensated(weight, metric, per_block, options)
    else:
        factors, history = learn(weight, per_block, options)
    if metric.fisher is not None and metric.moments is None:
        codes = Codes(factors.indices, factors.values, np.empty(factors.indices.shape[:2], np.float32))
        values = weighted_values(weight, metric.fisher, codes, factors.atoms)
        factors = DenseSparse(factors.atoms, factors.indices, values)
    return factors, history
