"""Blocks one after another, each making up for the errors of the others."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_triangular

from leanmatch.factorization.arrays import Float
from leanmatch.factorization.dense_sparse import DenseSparse
from leanmatch.factorization.dictionary import DenseSparseOptions, learn
from leanmatch.factorization.error_metric import BlockMetric, Doubles, ErrorMetric
from leanmatch.factorization.pursuit.native import decode


def compensated(
    weight: Float, metric: ErrorMetric, per_block: BlockMetric, options: DenseSparseOptions
) -> tuple[DenseSparse, tuple[float, ...]]:
    """Factor block after block; the best reply of all later columns to a block's error is added to them.

    Then every block is solved again ``options.sweeps`` times (:func:`swept`), given the errors of all others.

    With ``H^-1 = U^T U`` (``U`` upper triangular), the output's error after the best reply is ``sum_i |E_i
    U_ii^-1|^2``, and the reply to ``E_i`` is ``-E_i U_ii^-1 U_i,later``. So block
    ``i`` is solved in the metric ``L_i = U_ii^-1``, which counts only what later blocks cannot mend.

    Returns:
        The factors, and the mean history of the blocks.

    Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ" (2022), for one column at a time.
    """
    n = weight.shape[1]
    upper = metric.inverse_root
    current = weight.astype(np.float64)
    parts, histories = [], []
    block = options.block
    for begin in range(0, n, block):
        columns = slice(begin, begin + block)
        root = solve_triangular(upper[columns, columns], np.eye(block), lower=False)
        rows = None if per_block.rows is None else per_block.rows[:, begin // block, None]
        part, history = learn(
            np.ascontiguousarray(current[:, columns], np.float32), BlockMetric(root[None], rows), options
        )
        error = (current[:, columns] - _dense(part)) @ root
        current[:, begin + block :] -= error @ upper[columns, begin + block :]
        parts.append(part)
        histories.append(history)
    for _ in range(options.sweeps):
        parts = swept(weight, parts, metric, per_block, options)
    factors = DenseSparse(
        np.concatenate([part.atoms for part in parts]),
        np.concatenate([part.indices for part in parts], axis=1),
        np.concatenate([part.values for part in parts], axis=1),
    )
    return factors, tuple(float(error) for error in np.mean(histories, axis=0))


def swept(
    weight: Float,
    parts: list[DenseSparse],
    metric: ErrorMetric,
    per_block: BlockMetric,
    options: DenseSparseOptions,
) -> list[DenseSparse]:
    """Block coordinate descent, once over all blocks: each is solved given the errors of all others.

    With ``E`` the error of all columns, block ``i``'s best reply to the others is the target ``W_i + E_others
    H_others,i H_ii^-1``, and the rest of the whole error is that of the target in the metric of ``H_ii``.
    A block that gets no better stays as it is, so the whole error falls.
    """
    block = options.block
    moments, roots = metric.damped, metric.roots(block)
    error = weight.astype(np.float64) - np.concatenate([_dense(part) for part in parts], axis=1)
    kept = list(parts)
    for i, part in enumerate(parts):
        columns = slice(i * block, (i + 1) * block)
        own = moments[columns, columns]
        others = error @ moments[columns].T - error[:, columns] @ own
        target = weight[:, columns].astype(np.float64) + others @ np.linalg.inv(own)
        rows = None if per_block.rows is None else per_block.rows[:, i, None]
        solved, _ = learn(
            np.ascontiguousarray(target, np.float32),
            BlockMetric(roots[i, None], rows),
            options,
            start=part.atoms,
        )
        if _square_error(target, solved, roots[i], rows) < _square_error(target, part, roots[i], rows):
            kept[i] = solved
            error[:, columns] = weight[:, columns] - _dense(solved)
    return kept


def _square_error(target: Doubles, part: DenseSparse, root: Doubles, rows: Doubles | None) -> float:
    squares = np.square((target - _dense(part)) @ root)
    return float((squares if rows is None else squares * rows).sum())


def _dense(part: DenseSparse) -> Float:
    return decode(part.indices, part.values, part.atoms, threads=1)
