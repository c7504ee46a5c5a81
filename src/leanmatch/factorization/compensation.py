"""Blocks one after another, each making up for the errors of those before it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.linalg import solve_triangular

from leanmatch.factorization.arrays import Float
from leanmatch.factorization.calibration import BlockMetric, Calibration
from leanmatch.factorization.dense_sparse import DenseSparse

Solver = Callable[[Float, BlockMetric], tuple[DenseSparse, tuple[float, ...]]]


def compensated(
    weight: Float, calibration: Calibration, metric: BlockMetric, width: int, solve: Solver
) -> tuple[DenseSparse, tuple[float, ...]]:
    """Factor block after block; the best reply of all later columns to a block's error is added to them.

    With ``H^-1 = U^T U`` (``U`` upper triangular), the output's error after the best reply is ``sum_i |E_i
    U_ii^-1|^2``, and the reply to ``E_i`` is ``-E_i U_ii^-1 U_i,later``. So block
    ``i`` is solved in the metric ``L_i = U_ii^-1``, which counts only what later blocks cannot mend.

    Returns:
        The factors, and the mean history of the blocks.

    Source: Frantar, Ashkboos, Hoefler, Alistarh, "GPTQ" (2022), for one column at a time.
    """
    n = weight.shape[1]
    upper = calibration.inverse_root
    current = weight.astype(np.float64)
    parts, histories = [], []
    for begin in range(0, n, width):
        here = slice(begin, begin + width)
        root = solve_triangular(upper[here, here], np.eye(width), lower=False)
        rows = None if metric.rows is None else metric.rows[:, begin // width, None]
        part, history = solve(
            np.ascontiguousarray(current[:, here], np.float32), BlockMetric(root[None], rows)
        )
        error = (current[:, here] - part.dense()) @ root
        current[:, begin + width :] -= error @ upper[here, begin + width :]
        parts.append(part)
        histories.append(history)
    factors = DenseSparse(
        np.concatenate([part.atoms for part in parts]),
        np.concatenate([part.indices for part in parts], axis=1),
        np.concatenate([part.values for part in parts], axis=1),
    )
    return factors, tuple(float(error) for error in np.mean(histories, axis=0))
