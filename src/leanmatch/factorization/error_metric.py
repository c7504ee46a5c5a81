"""The error that a solver minimizes: plain, or weighted by the layer's inputs or by the loss's gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import DataError
from leanmatch.factorization.checks import check_array, check_finite, check_shape

Doubles = NDArray[np.float64]

DAMPING = 0.01
"""Share of the mean of the diagonal that is added to second moments before they are factored (as in GPTQ)."""


@dataclass(frozen=True, eq=False)
class ErrorMetric:
    """How the error ``E = W - W^`` is measured; with neither field every squared entry counts the same.

    Attributes:
        moments: ``H = E[x x^T]`` of the layer's inputs, ``(n, n)``, symmetric. The error is ``tr(E H E^T)``:
            the mean squared change of the layer's output.
        fisher: ``(m, n)``, at least 0: the mean squared gradient of the loss with respect to each weight. The
            error is ``sum F E^2``. With both, rows are weighted by the row means of ``fisher``, columns by
            ``moments``.

    Raises:
        DataError: wrong shapes, values that are not finite, negative ones in ``fisher`` or on the diagonal of
            ``moments``, ``moments`` that are not symmetric.
    """

    moments: NDArray[np.floating] | None = None
    fisher: NDArray[np.floating] | None = None

    def __post_init__(self) -> None:
        if self.moments is not None:
            check_array("moments", self.moments, ("n", "n"), (np.float32, np.float64))
            check_finite("moments", self.moments)
            if self.moments.shape[0] != self.moments.shape[1]:
                raise DataError(f"moments must be square (found {self.moments.shape})")
            size = float(np.abs(self.moments).max(initial=0))
            if not np.allclose(self.moments, self.moments.T, rtol=1e-3, atol=1e-4 * size):
                raise DataError("moments must be symmetric (found a matrix that is not)")
            if float(np.diagonal(self.moments).min(initial=0)) < 0:
                raise DataError("moments must be at least 0 on their diagonal")
        if self.fisher is not None:
            check_array("fisher", self.fisher, ("m", "n"), (np.float32, np.float64))
            check_finite("fisher", self.fisher)
            if float(self.fisher.min(initial=0)) < 0:
                raise DataError(f"fisher must be at least 0 (found {float(self.fisher.min())})")

    @property
    def plain(self) -> bool:
        """Whether it is the plain squared error."""
        return self.moments is None and self.fisher is None

    def check_fits(self, shape: tuple[int, int]) -> None:
        """The fields belong to a matrix ``(m, n)``.

        Raises:
            DataError: they do not.
        """
        if self.moments is not None:
            check_shape("moments", self.moments, (shape[1], shape[1]), "(n, n)")
        if self.fisher is not None:
            check_shape("fisher", self.fisher, shape, "(m, n)")

    @cached_property
    def damped(self) -> Doubles:
        """``moments`` with :data:`DAMPING`, float64; a matrix of zeros becomes the identity."""
        if self.moments is None:
            raise DataError("second moments are needed here", remedy="ErrorMetric(moments=...)")
        moments = self.moments.astype(np.float64)
        level = float(np.diagonal(moments).mean())
        size = len(moments)
        return (moments + moments.T) / 2 + (DAMPING * level if level > 0 else 1.0) * np.eye(size)

    def roots(self, block: int) -> Doubles:
        """Lower Cholesky factors of the blocks of :attr:`damped` on the diagonal, ``(B, b, b)``."""
        blocks = len(self.damped) // block
        parts = self.damped.reshape(blocks, block, blocks, block)
        lower: Doubles = np.linalg.cholesky(np.stack([parts[i, :, i] for i in range(blocks)]))
        return lower

    def by_block(self, m: int, n: int, block: int) -> BlockMetric:
        """The metric of each block of ``block`` columns of a matrix ``(m, n)``.

        Second moments are exact within a block; products of two blocks are left out. A Fisher matrix is exact
        where it is a product of row and column weights within each block; elsewhere the sums of its rows and
        columns stand for it.
        """
        blocks = n // block
        roots = None if self.moments is None else self.roots(block)
        rows = None
        if self.fisher is not None:
            parts = self.fisher.reshape(m, blocks, block).astype(np.float64)
            rows = parts.mean(axis=2)
            rows = rows / np.maximum(rows.mean(axis=0, keepdims=True), 1e-300)
            if roots is None:
                columns = parts.mean(axis=0)
                level = columns.mean(axis=1, keepdims=True)
                columns = np.where(level > 0, columns + 1e-3 * level, 1.0)
                roots = np.sqrt(columns)[:, :, None] * np.eye(block)
            else:
                rows = np.repeat(self.fisher.mean(axis=1, keepdims=True), blocks, axis=1).astype(np.float64)
            rows = np.where(rows.sum(axis=0) > 0, rows, 1.0)
        return BlockMetric(roots, rows)

    @cached_property
    def inverse_root(self) -> Doubles:
        """``U``, upper triangular, with ``H^-1 = U^T U`` for the damped moments ``H``; computed once.

        With the columns in reverse order Cholesky gives ``H = R R^T``, ``R`` upper triangular: ``U = R^-1``.
        """
        from scipy.linalg import cholesky
        from scipy.linalg.lapack import dtrtri

        turned = np.ascontiguousarray(self.damped[::-1, ::-1])
        upper = cholesky(turned, lower=True, overwrite_a=True)[::-1, ::-1]
        inverse, failed = dtrtri(upper, lower=0)
        if failed:
            raise DataError("second moments cannot be inverted", remedy="give more calibration texts")
        root: Doubles = inverse
        return root

    def error(self, weight: NDArray[np.floating], approximation: NDArray[np.floating]) -> float:
        """The weighted squared error relative to that of approximating by 0; 0 for a matrix of zeros."""
        scale = self._weighted_square(weight.astype(np.float64))
        return self._weighted_square(weight.astype(np.float64) - approximation) / scale if scale > 0 else 0.0

    def _weighted_square(self, error: Doubles) -> float:
        if self.moments is None:
            return float((error * error * (1 if self.fisher is None else self.fisher)).sum())
        rows = ((error @ self.moments) * error).sum(axis=1)
        return float((rows if self.fisher is None else rows * self.fisher.mean(axis=1)).sum())


@dataclass(frozen=True, eq=False)
class BlockMetric:
    """An error metric as solvers use it: ``sum_i sum_rows rows[row, i] |(w_i - s_i D_i) L_i|^2``.

    Attributes:
        roots: ``L``, ``(B, b, b)``: ``L_i L_i^T`` is block ``i``'s part of the moments; None for identity
            matrices.
        rows: ``(m, B)``; None for 1.
    """

    roots: Doubles | None = None
    rows: Doubles | None = None

    def forward(self, weight: NDArray[np.floating], block: int) -> NDArray[np.float32]:
        """``W_i L_i``, the blocks side by side, float32."""
        m, n = weight.shape
        if self.roots is None:
            return np.ascontiguousarray(weight, np.float32)
        blocks = weight.reshape(m, n // block, block).astype(np.float64)
        turned: NDArray[np.float32] = np.einsum("mib,ibc->mic", blocks, self.roots).astype(np.float32)
        return turned.reshape(m, n)

    def atoms_forward(self, atoms: NDArray[np.floating]) -> NDArray[np.float32]:
        """``D_i L_i``: atoms as they are in the space in which pursuit works."""
        turned = atoms if self.roots is None else atoms.astype(np.float64) @ self.roots
        return np.ascontiguousarray(turned, np.float32)

    def atoms_back(self, atoms: NDArray[np.floating]) -> Doubles:
        """``D_i L_i^-1`` of atoms that were found for ``W_i L_i``."""
        if self.roots is None:
            return atoms.astype(np.float64)
        columns = atoms.astype(np.float64).transpose(0, 2, 1)
        turned = np.linalg.solve(self.roots.transpose(0, 2, 1), columns).astype(np.float64)
        return turned.transpose(0, 2, 1)
