"""Low rank: of the whole matrix (SVD, FWSVD), or of each block of columns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leanmatch.errors import UsageError
from leanmatch.factorization.arrays import Float, Index
from leanmatch.factorization.checks import check_count, check_divides, index_dtype
from leanmatch.factorization.dense_sparse import DenseSparse
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


@dataclass(frozen=True)
class BlockLowRankOptions:
    """Options of :func:`block_low_rank`.

    Attributes:
        block: ``b``, columns per block; must divide ``n``.
        rank: of each block; ``r = k``.

    Raises:
        UsageError: out of range.
    """

    block: int = 64
    rank: int = 16

    def __post_init__(self) -> None:
        check_count("block", self.block, 1)
        check_count("rank", self.rank, 1, self.block)


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


def block_low_rank(
    weight: Float, options: BlockLowRankOptions | None = None, metric: ErrorMetric = PLAIN
) -> Solved:
    """``W_i ~ S_i D_i`` of rank ``r`` in each block: dense-sparse factors with ``k = r``, by SVD of every
    block.

    Every row uses all atoms of a block, so the indices carry no information; :class:`DenseSparse` stores and
    counts them all the same.

    Raises:
        UsageError: a block that does not divide ``n``, a rank above ``min(m, b)``.
    """
    options = options or BlockLowRankOptions()
    m, n = weight.shape
    check_divides(options.block, n)
    metric.check_fits((m, n))
    if options.rank > min(m, options.block):
        raise UsageError(
            f"rank must be at most min(m, block) = {min(m, options.block)} (found {options.rank})"
        )
    per_block = metric.by_block(m, n, options.block)
    blocks, rank = n // options.block, options.rank
    target = per_block.forward(weight, options.block).reshape(m, blocks, options.block).transpose(1, 0, 2)
    rows = np.ones((blocks, m, 1)) if per_block.rows is None else np.sqrt(per_block.rows.T[..., None])
    rows = np.where(rows > 0, rows, 1e-6)
    left, singular, right = np.linalg.svd(target * rows, full_matrices=False)
    values = left[:, :, :rank] * singular[:, None, :rank] / rows
    atoms = per_block.atoms_back(right[:, :rank])
    lengths = np.linalg.norm(atoms, axis=2)
    everything: Index = np.tile(np.arange(rank, dtype=index_dtype(rank)), (m, blocks, 1))
    factors = DenseSparse(
        (atoms / lengths[..., None]).astype(np.float32),
        everything,
        np.ascontiguousarray((values * lengths[:, None]).transpose(1, 0, 2), np.float32),
    )
    return solved("block-low-rank", weight, factors, metric)
