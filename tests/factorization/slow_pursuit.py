"""The pursuit in float64, one row and block after another: slow, obvious, the judge of every fast path."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

DEPENDENT = 1e-4  # squared sine of the angle to the span of the atoms chosen


class ReferenceCodes(NamedTuple):
    """Indices and values ``(m, B, k)``, squared errors ``(m, B)``, and how clear each choice was.

    ``gap (m, B)`` is the smallest relative lead of the atom chosen over the runner-up, over all steps: where
    it is near rounding errors, another choice is as good.
    """

    indices: NDArray[np.int64]
    values: Doubles
    errors: Doubles
    gap: Doubles


def pursue_reference(
    weight: NDArray[np.floating], atoms: NDArray[np.floating], nonzeros: int, selection: str = "gain"
) -> ReferenceCodes:
    """What :func:`leanmatch.factorization.pursuit.native.pursue` computes, without supports to begin from."""
    m, (blocks, _, width) = weight.shape[0], atoms.shape
    rows = np.asarray(weight, np.float64).reshape(m, blocks, width)
    codes = ReferenceCodes(
        np.zeros((m, blocks, nonzeros), np.int64),
        np.zeros((m, blocks, nonzeros)),
        np.zeros((m, blocks)),
        np.zeros((m, blocks)),
    )
    for i in range(blocks):
        lengths = np.linalg.norm(atoms[i].astype(np.float64), axis=1)
        unit = atoms[i] / np.where(lengths > 0, lengths, 1)[:, None]
        for row in range(m):
            chosen, gap = _choose(rows[row, i], unit, nonzeros, selection)
            values, error = _least_squares(rows[row, i], unit, chosen)
            codes.indices[row, i], codes.gap[row, i] = _filled(chosen, nonzeros), gap
            codes.values[row, i, : len(chosen)] = values / lengths[chosen]
            codes.errors[row, i] = error
    return codes


def refit_reference(
    weight: NDArray[np.floating], atoms: NDArray[np.floating], indices: NDArray[np.integer]
) -> tuple[Doubles, Doubles]:
    """Least squares values ``(m, B, k)`` and squared errors ``(m, B)`` on given supports."""
    m, blocks, nonzeros = indices.shape
    rows = np.asarray(weight, np.float64).reshape(m, blocks, atoms.shape[2])
    values, errors = np.zeros((m, blocks, nonzeros)), np.zeros((m, blocks))
    for i in range(blocks):
        for row in range(m):
            values[row, i], errors[row, i] = _least_squares(rows[row, i], atoms[i], indices[row, i])
    return values, errors


def _choose(row: Doubles, unit: Doubles, nonzeros: int, selection: str) -> tuple[list[int], float]:
    chosen: list[int] = []
    gap = np.inf
    for _ in range(nonzeros):
        residual = row - _fitted(row, unit, chosen)
        height = np.square(unit - _onto(unit, chosen)).sum(axis=1)
        scores = np.square(unit @ residual)
        if selection == "gain":
            scores = scores / np.maximum(height, DEPENDENT)
        scores[(height <= DEPENDENT) | np.isin(np.arange(len(unit)), chosen)] = 0
        best = int(scores.argmax())
        if not scores[best] > 0:
            break
        gap = min(gap, 1 - np.delete(scores, best).max(initial=0) / scores[best])
        chosen.append(best)
    return chosen, float(gap)


def _onto(vectors: Doubles, unit_of: list[int]) -> Doubles:
    """Projections of the rows on the span of the rows named."""
    basis = np.linalg.qr(vectors[unit_of].T)[0]
    projected: Doubles = vectors @ basis @ basis.T
    return projected


def _fitted(row: Doubles, unit: Doubles, chosen: list[int]) -> Doubles:
    return np.zeros_like(row) if not chosen else _least_squares(row, unit, chosen)[0] @ unit[chosen]


def _least_squares(
    row: Doubles, atoms: NDArray[np.floating], chosen: list[int] | NDArray[np.integer]
) -> tuple[Doubles, float]:
    used = atoms[np.asarray(chosen, np.int64)].astype(np.float64)
    values = np.zeros(0)
    if len(used):
        values = np.linalg.lstsq(used.T, row, rcond=None)[0].astype(np.float64)
    return values, float(np.square(row - values @ used).sum())


def _filled(chosen: list[int], nonzeros: int) -> list[int]:
    """Unused atoms of the lowest numbers where the pursuit ended early."""
    unused = (atom for atom in range(len(chosen) + nonzeros) if atom not in chosen)
    return [*chosen, *(next(unused) for _ in range(nonzeros - len(chosen)))]
