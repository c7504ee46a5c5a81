"""Blocks one after another, each making up for the errors of the others."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.linalg import solve_triangular

from leanmatch.factorization.arrays import Float
from leanmatch.factorization.calibration import BlockMetric, Calibration, Doubles
from leanmatch.factorization.dense_sparse import DenseSparse


class Solver(Protocol):
    """Factors of some columns in a metric, begun anew or from earlier atoms ``(1, r, b)``."""

    def __call__(
        self, weight: Float, metric: BlockMetric, start: Float | None = None
    ) -> tuple[DenseSparse, tuple[float, ...]]:
        """The factors, and the relative error of every round."""


def compensated(
    weight: Float, calibration: Calibration, metric: BlockMetric, width: int, solve: Solver, sweeps: int = 0
) -> tuple[DenseSparse, tuple[float, ...]]:
    """Factor block after block; the best reply of all later columns to a block's error is added to them.

    Then ``sweeps`` times every block is solved again (:func:`swept`), now that the errors of all others,
    later ones too, are known.

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
    for _ in range(sweeps):
        parts = swept(weight, parts, calibration, metric, width, solve)
    factors = DenseSparse(
        np.concatenate([part.atoms for part in parts]),
        np.concatenate([part.indices for part in parts], axis=1),
        np.concatenate([part.values for part in parts], axis=1),
    )
    return factors, tuple(float(error) for error in np.mean(histories, axis=0))


def swept(
    weight: Float,
    parts: list[DenseSparse],
    calibration: Calibration,
    metric: BlockMetric,
    width: int,
    solve: Solver,
) -> list[DenseSparse]:
    """Block coordinate descent, once over all blocks: each is solved given the errors of all others.

    With ``E`` the error of all columns, block ``i``'s best reply to the others is the target ``W_i + E_others
    H_others,i H_ii^-1``, and what is left of the whole error is that of the target in the metric of ``H_ii``.
    A block that gets no better stays as it is, so the whole error falls.
    """
    moments, roots = calibration.damped, calibration.roots(width)
    error = weight.astype(np.float64) - np.concatenate([part.dense() for part in parts], axis=1)
    kept = list(parts)
    for i, part in enumerate(parts):
        here = slice(i * width, (i + 1) * width)
        own = moments[here, here]
        others = error @ moments[:, here] - error[:, here] @ own
        target = weight[:, here].astype(np.float64) + np.linalg.solve(own, others.T).T
        rows = None if metric.rows is None else metric.rows[:, i, None]
        found, _ = solve(
            np.ascontiguousarray(target, np.float32), BlockMetric(roots[i, None], rows), start=part.atoms
        )
        if _left(target, found, roots[i], rows) < _left(target, part, roots[i], rows):
            kept[i] = found
            error[:, here] = weight[:, here] - found.dense()
    return kept


def _left(target: Doubles, part: DenseSparse, root: Doubles, rows: Doubles | None) -> float:
    squares = np.square((target - part.dense()) @ root)
    return float((squares if rows is None else squares * rows).sum())
