"""Integer codes with a number of bits for each row: fewer bits where a matrix is seldom read.

A table of words is read by token. If token ``t`` occurs ``c_t`` times in texts of the domain, the mean
relative squared error of what is read is ``sum_t c_t e(b_t) / sum_t c_t``. Here ``e(b)`` is the error of a
row in ``b`` bits. :func:`bits_of_rows` minimizes that mean for a given mean of the bits ``b_t``. Rows
that never occur keep at least 2 bits, so that other texts can still be read.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leanmatch.factorization.arrays import Float, best_odd_scale, odd_codes
from leanmatch.factorization.factors import ROW_BITS, MixedIntMatrix

ROW_ERRORS = (0.1188, 0.03744, 0.01154, 0.00104)
"""Least relative squared error of normally distributed numbers in uniform codes, for each of :data:`ROW_BITS`
(Max, *Quantizing for minimum distortion*, 1960)."""
UNSEEN = 0.5
"""Added to how often each row was read, so that rows that were never read count too."""


def bits_of_rows(counts: NDArray[np.integer], average: float) -> NDArray[np.uint8]:
    """The bits of each row that give the least error if rows are read as often as ``counts`` says.

    Each further bit goes where ``(counts + 0.5) * (what it saves of the error)`` is largest, and in a tie to
    the first row. Because each bit of a row saves less than the one before, this is the optimum.

    Args:
        counts: times that each row was read, ``(m,)``, at least 0.
        average: mean of the bits, from 2 to 6.

    Returns:
        uint8 ``(m,)``; their sum is at most ``average m``.

    >>> bits_of_rows(np.array([0, 100, 3, 0]), 3.5).tolist()
    [2, 6, 4, 2]
    """
    widths, errors = np.array(ROW_BITS), np.array(ROW_ERRORS)
    steps = np.diff(widths)
    saved = -np.diff(errors) / steps
    gains = ((np.asarray(counts, np.float64) + UNSEEN)[:, None] * saved).T.ravel()
    cost = np.repeat(steps, len(counts))
    order = np.argsort(-gains, kind="stable")
    taken = order[np.cumsum(cost[order]) <= (average - widths[0]) * len(counts) + 1e-9]
    bits = np.full(len(counts), widths[0])
    np.add.at(bits, taken % len(counts), cost[taken])
    return bits.astype(np.uint8)


def round_rows(weight: Float, row_bits: NDArray[np.uint8]) -> MixedIntMatrix:
    """Codes with the scales that give each row the least squared error.

    Args:
        weight: ``(m, n)``, finite.
        row_bits: uint8 ``(m,)``, each 2, 3, 4 or 6.
    """
    scale = np.empty(len(weight), np.float32)
    for bits in ROW_BITS:
        rows = row_bits == bits
        if rows.any():
            scale[rows] = best_odd_scale(weight[rows], bits)
    return MixedIntMatrix(odd_codes(weight, scale, row_bits[:, None]), scale, row_bits)
