"""Low rank of the whole matrix: SVD, FWSVD."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leanmatch.errors import UsageError
from leanmatch.factorization.arrays import Float
from leanmatch.factorization.checks import check_count
from leanmatch.factorization.error_metric import ErrorMetric
from leanmatch.factorization.factors import LowRank
from leanmatch.factorization.solved import PLAIN, Solved, solved


@dataclass(frozen=True)
class LowRankOptions:
    """Options of :func:`svd` and :func:`fwsvd`.

    Attributes:
        rank: ``q``; it costs ``q (m + n)`` values and multiply-adds.

    Raises:
        UsageError: below 1.
    """

    rank: int = 64

    def __post_init__(self) -> None:
        check_count("rank", self.rank, 1)


def svd(weight: Float, options: LowRankOptions | None = None, metric: ErrorMetric = PLAIN) -> Solved:
    """``W ~ left right`` of rank ``q``, the best one: truncated singular value decomposition.

    With second moments ``H = L L^T`` it is that of ``W L``: the exact best rank ``q`` for the layer's
    output. A Fisher matrix plays no part here; :func:`fwsvd` is for that.

    Raises:
        UsageError: a rank above ``min(m, n)``.
    """
    options = options or LowRankOptions()
    metric.check_fits((weight.shape[0], weight.shape[1]))
    return solved("svd", weight, _truncated(weight, options.rank, metric, None), metric)


def fwsvd(weight: Float, options: LowRankOptions | None = None, metric: ErrorMetric = PLAIN) -> Solved:
    """Fisher-weighted SVD: the best ``left right`` where each row counts as its Fisher information.

    ``W ~ R^-1 svd(R W)`` with ``R^2 = diag(sum_j F_ij)``. Exact for weights that are constant along rows; the
    weights within a row are lost (the problem with a weight of its own for each entry has no closed form).

    Raises:
        UsageError: no Fisher matrix; a rank above ``min(m, n)``.

    Source: Hsu, Hua, Chang, Lou, Shen, Jin, "Language model compression with weighted low-rank
    factorization" (2022).
    """
    options = options or LowRankOptions()
    metric.check_fits((weight.shape[0], weight.shape[1]))
    if metric.fisher is None:
        raise UsageError("fwsvd needs a Fisher matrix", remedy="ErrorMetric(fisher=...), or the method svd")
    rows = metric.fisher.astype(np.float64).sum(axis=1)
    level = rows.mean() if rows.size else 0.0
    rows = np.sqrt(np.maximum(rows, 1e-6 * level)) if level > 0 else np.ones_like(rows)
    return solved("fwsvd", weight, _truncated(weight, options.rank, PLAIN, rows), metric)


def _truncated(
    weight: Float,
    rank: int,
    metric: ErrorMetric,
    rows: np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None,
) -> LowRank:
    m, n = weight.shape
    if rank > min(m, n):
        raise UsageError(f"rank must be at most min(m, n) = {min(m, n)} (found {rank})")
    scaled = weight.astype(np.float64) if rows is None else weight * rows[:, None]
    root = None if metric.moments is None else np.linalg.cholesky(metric.damped)
    left, singular, right = np.linalg.svd(scaled if root is None else scaled @ root, full_matrices=False)
    root_of_singular = np.sqrt(singular[:rank])
    left, right = left[:, :rank] * root_of_singular, root_of_singular[:, None] * right[:rank]
    if root is not None:
        right = np.linalg.solve(root.T, right.T).T
    if rows is not None:
        left = left / rows[:, None]
    return LowRank(np.ascontiguousarray(left, np.float32), np.ascontiguousarray(right, np.float32))
