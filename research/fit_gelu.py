"""Fits the polynomials of csrc/linear/kernels/vector_math.inc.h again; prints coefficients and errors.

`Phi(x) - 1/2 = x P(2 x^2 / L^2 - 1)` on `[-L, L]`, with `P(1) = 1 / (2 L)` so that clamped values are exact;
iteratively reweighted least squares at Chebyshev nodes. Errors are those of the fp32 evaluation.
"""

from __future__ import annotations

import numpy as np
from scipy.special import erf

FITS = ((12, 5.1), (7, 4.0))


def phi(x: np.ndarray) -> np.ndarray:
    """`Phi(x) - 1/2`."""
    return 0.5 * erf(x / np.sqrt(2))


def fit(degree: int, limit: float) -> np.ndarray:
    """Coefficients of P, constant first."""
    nodes = np.cos(np.pi * (np.arange(2000) + 0.5) / 2000)
    x = np.sqrt((nodes + 1) / 2) * limit
    s = 2 * (x / limit) ** 2 - 1
    basis = np.polynomial.chebyshev.chebvander(s, degree - 1) * ((s - 1) * x)[:, None]
    target = phi(x) - x * 0.5 / limit
    weights = np.ones_like(x)
    for _ in range(300):
        solution = np.linalg.lstsq(basis * weights[:, None], target * weights, rcond=None)[0]
        error = np.abs(basis @ solution - target)
        weights *= (error / error.max() + 1e-3) ** 0.15
        weights /= weights.max()
    rest = np.polynomial.chebyshev.cheb2poly(solution)
    coefficients = np.polynomial.polynomial.polymul(rest, [-1, 1])
    coefficients[0] += 0.5 / limit
    return coefficients.astype(np.float32)


def largest_error(coefficients: np.ndarray, limit: float) -> float:
    """Of Phi on [-60, 60], evaluated in fp32 as the kernels do."""
    x = np.linspace(-60, 60, 2_000_001).astype(np.float32)
    clamped = np.clip(x, -limit, limit).astype(np.float32)
    s = np.float32(2 / limit**2) * (clamped * clamped) - np.float32(1)
    p = np.full_like(s, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        p = p * s + coefficient
    found = np.clip(p * clamped, np.float32(-0.5), np.float32(0.5))
    return float(np.abs(found - phi(x.astype(np.float64))).max())


if __name__ == "__main__":
    for degree, limit in FITS:
        coefficients = fit(degree, limit)
        print(f"degree {degree}, L = {limit}: largest error of Phi {largest_error(coefficients, limit):.1e}")
        print("  " + ", ".join(f"{float(c)!r}f" for c in coefficients))
