"""Dense-sparse factors with square orthonormal dictionaries: codes need no pursuit, atoms no inverse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leanmatch.factorization.arrays import Float
from leanmatch.factorization.checks import check_count, check_divides, index_dtype
from leanmatch.factorization.dense_sparse import DenseSparse
from leanmatch.factorization.error_metric import BlockMetric, ErrorMetric
from leanmatch.factorization.solved import PLAIN, Solved, solved


@dataclass(frozen=True)
class OrthonormalOptions:
    """Options of :func:`orthonormal`.

    Attributes:
        block: ``b``, columns per block and atoms: ``r = b``; must divide ``n``.
        nonzeros: ``k``, nonzeros per row and block.
        iterations: updates of codes and dictionaries.

    Raises:
        UsageError: out of range.
    """

    block: int = 16
    nonzeros: int = 4
    iterations: int = 30

    def __post_init__(self) -> None:
        check_count("block", self.block, 1)
        check_count("nonzeros", self.nonzeros, 1, self.block)
        check_count("iterations", self.iterations, 0)


def orthonormal(
    weight: Float, options: OrthonormalOptions | None = None, metric: ErrorMetric = PLAIN
) -> Solved:
    """``W_i ~ S_i Q_i`` with orthonormal ``Q_i (b, b)``: hard threshold and Procrustes in turn.

    Codes are the ``k`` largest of ``W_i Q_i^T``, exactly the best ones; ``Q_i = U V^T`` of the singular value
    decomposition of ``S_i^T W_i``, exactly the best one. The error never rises. ``Q_i`` begins with the right
    singular vectors of ``W_i``. With an error metric all of this happens in its space, and the atoms
    that come back are not orthonormal.

    Args:
        weight: float32 ``(m, n)``.
        options: see there.
        metric: the error to minimize (:meth:`~leanmatch.factorization.error_metric.ErrorMetric.by_block`).

    Raises:
        UsageError: a block that does not divide ``n``.

    Source: Lesage, Gribonval, Bimbot, Benaroya, "Learning unions of orthonormal bases" (2005).

    >>> weight = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)
    >>> report = orthonormal(weight, OrthonormalOptions(block=8, nonzeros=4)).report
    >>> all(np.diff(report.history) <= 1e-6)
    True
    """
    options = options or OrthonormalOptions()
    m, n = weight.shape
    check_divides(options.block, n)
    metric.check_fits((m, n))
    per_block = metric.by_block(m, n, options.block)
    blocks, block = n // options.block, options.block
    target = per_block.forward(weight, block).reshape(m, blocks, block).transpose(1, 0, 2)  # (B, m, b)
    rows = np.ones((blocks, m, 1), np.float32)
    if per_block.rows is not None:
        rows = per_block.rows.T[..., None].astype(np.float32)
    scale = max(float((rows * target**2).sum(dtype=np.float64)), 1e-300)
    atoms = np.linalg.eigh((rows * target).transpose(0, 2, 1) @ target)[1].transpose(0, 2, 1)
    history: list[float] = []
    for step in range(options.iterations + 1):
        codes, support = _largest(target @ atoms.transpose(0, 2, 1), options.nonzeros)
        history.append(float((rows * (target - codes @ atoms) ** 2).sum(dtype=np.float64)) / scale)
        if step < options.iterations:
            left, _, right = np.linalg.svd((rows * codes).transpose(0, 2, 1) @ target)
            atoms = left @ right
    factors = _factors(atoms, codes, support, per_block)
    return solved("orthonormal", weight, factors, metric, tuple(history))


def _largest(codes: Float, nonzeros: int) -> tuple[Float, np.ndarray[tuple[int, ...], np.dtype[np.int64]]]:
    """The ``k`` largest of each row, and which they are ``(B, m, k)``."""
    support = np.argsort(-np.abs(codes), axis=2, kind="stable")[..., :nonzeros].astype(np.int64)
    kept = np.zeros_like(codes)
    np.put_along_axis(kept, support, np.take_along_axis(codes, support, axis=2), axis=2)
    return kept, support


def _factors(
    atoms: Float,
    codes: Float,
    support: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    per_block: BlockMetric,
) -> DenseSparse:
    back = per_block.atoms_back(atoms)
    lengths = np.linalg.norm(back, axis=2)
    values = np.take_along_axis(codes * lengths[:, None], support, axis=2)
    return DenseSparse(
        (back / lengths[..., None]).astype(np.float32),
        np.ascontiguousarray(support.transpose(1, 0, 2), index_dtype(atoms.shape[1])),
        np.ascontiguousarray(values.transpose(1, 0, 2), np.float32),
    )
