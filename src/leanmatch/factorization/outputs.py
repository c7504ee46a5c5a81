"""The weight whose outputs come nearest to wanted ones, from moments of inputs and outputs.

A layer of a compressed model reads inputs ``x`` that the layers before it have changed, and should give the
outputs ``y`` that the dense model gives in its place. :class:`OutputMoments` sums what least squares needs
over tokens, a chunk at a time, so memory does not grow with them; :func:`wanted_weight` solves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import DataError
from leanmatch.factorization.arrays import Float
from leanmatch.factorization.error_metric import Doubles

RIDGE = 0.1
"""Pull towards the present weight, as a share of the mean second moment of the inputs."""


@dataclass(frozen=True, eq=False)
class Centered:
    """Moments of inputs ``x (n,)`` and wanted outputs ``y (m,)`` over all tokens, about ``x_mean, y_mean``.

    Attributes:
        moments: ``H = E[x x^T]``, float64 ``(n, n)``.
        cross: ``C = E[y x^T]``, float64 ``(m, n)``.
        squares: ``E[y^2]``, float64 ``(m,)``.
        x_mean, y_mean: the centers; zeros where nothing was centered.
        centered: a layer with a bias; without one, moments are about 0.
    """

    moments: Doubles
    cross: Doubles
    squares: Doubles
    x_mean: Doubles
    y_mean: Doubles
    centered: bool = True

    def rows(self, rows: slice) -> Centered:
        """The same for some of the outputs."""
        return replace(self, cross=self.cross[rows], squares=self.squares[rows], y_mean=self.y_mean[rows])

    def error(self, weight: NDArray[np.floating]) -> float:
        """``E|y - W x|^2 / E|y|^2``: the share of the wanted outputs that a weight misses."""
        fitted = weight.astype(np.float64)
        lost = self.squares.sum() + ((fitted @ self.moments - 2 * self.cross) * fitted).sum()
        return float(max(lost, 0.0) / max(self.squares.sum(), 1e-300))

    def bias(self, weight: NDArray[np.floating]) -> Doubles:
        """``y_mean - W x_mean``: what makes the mean output the wanted one."""
        bias: Doubles = self.y_mean - weight.astype(np.float64) @ self.x_mean
        return bias


class OutputMoments:
    """Sums over tokens of ``x``, ``y``, ``x x^T``, ``y x^T`` and ``y^2``.

    Products of a chunk are float32 matrix products, sums over chunks float64. Both are taken about the first
    chunk's means, so that large constant inputs cost no digits.

    Args:
        centered: the layer has a bias: moments are about the means. Without one they are about 0.
    """

    def __init__(self, *, centered: bool = True) -> None:
        self.centered, self.tokens = centered, 0
        self._x_shift: Float = np.zeros(0, np.float32)
        self._y_shift: Float = np.zeros(0, np.float32)
        self._sums: tuple[Doubles, ...] = ()

    def add(self, x: Float, y: Float) -> None:
        """Add a chunk of tokens: float32 ``(N, n)`` and ``(N, m)``.

        Raises:
            DataError: values that are not finite.
        """
        if not len(x):
            return
        if not self.tokens:
            self._begin(x, y)
        with np.errstate(invalid="ignore", over="ignore"):
            x, y = x - self._x_shift, y - self._y_shift
            ones = np.ones(len(x), np.float32)
            products = (
                x.T @ x,  # numpy sees that both are one array, and computes half of it
                y.T @ x,
                ones @ x,
                ones @ y,
                np.einsum("tm,tm->m", y, y),
            )
        if not all(np.isfinite(product).all() for product in products):
            raise DataError("the model gives NaN or infinite numbers", remedy="its weights are damaged")
        for total, product in zip(self._sums, products, strict=True):
            np.add(total, product, out=total)
        self.tokens += len(x)

    def _begin(self, x: Float, y: Float) -> None:
        n, m = x.shape[1], y.shape[1]
        self._sums = tuple(np.zeros(shape) for shape in ((n, n), (m, n), n, m, m))
        self._x_shift, self._y_shift = np.zeros(n, np.float32), np.zeros(m, np.float32)
        if self.centered:
            self._x_shift, self._y_shift = x.mean(axis=0), y.mean(axis=0)

    def finish(self) -> Centered:
        """The moments of all chunks.

        Raises:
            DataError: there was no token.
        """
        if not self.tokens:
            raise DataError("there is no calibration text", remedy="give at least a few dozen texts")
        moments, cross, x_mean, y_mean, squares = (total / self.tokens for total in self._sums)
        if not self.centered:
            x_mean, y_mean = np.zeros_like(x_mean), np.zeros_like(y_mean)
        return Centered(
            moments - np.outer(x_mean, x_mean),
            cross - np.outer(y_mean, x_mean),
            squares - np.square(y_mean),
            x_mean + self._x_shift,
            y_mean + self._y_shift,
            self.centered,
        )


def wanted_weight(weight: NDArray[np.floating], outputs: Centered, ridge: float = RIDGE) -> Float:
    """``W + (C - W H) (H + ridge mean(diag H) I)^-1``: least squares with a pull towards the present weight.

    It minimizes ``E|y - V x|^2 + ridge mean(diag H) |V - W|^2`` over ``V``.

    Args:
        weight: ``W (m, n)``, the dense model's.
        outputs: of the layer's inputs and wanted outputs.
        ridge: see there; above 0.

    Returns:
        float32 ``(m, n)``; the weight itself where all inputs are 0.
    """
    from scipy.linalg import cho_factor, cho_solve

    moments = outputs.moments
    level = ridge * float(np.diagonal(moments).mean())
    if not level > 0:
        return weight.astype(np.float32)
    missing = outputs.cross - weight.astype(np.float64) @ moments
    factor = cho_factor(moments + level * np.eye(len(moments)), lower=True, overwrite_a=True)
    wanted: Float = (weight + cho_solve(factor, missing.T).T).astype(np.float32)
    return wanted
