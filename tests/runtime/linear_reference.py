"""The linear paths in float64 and in exact integers: slow, obvious, the measure of every kernel.

Each ``expect_*`` gives the outputs and the largest error that csrc/linear/linear.h allows there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from native_linear import QuantizedRows
from numpy.typing import NDArray

Array = NDArray[Any]

EPS = 2.0**-24
GELU_ERROR = {"f32": 1e-6, "i8": 5e-5}
"""Times ``max(1, |x|)``."""


@dataclass(frozen=True)
class Expected:
    """Outputs before the activation, and their bound."""

    sums: Array
    bound: Array

    def finish(self, activation: str, residual: Array | None, kind: str) -> tuple[Array, Array]:
        """Outputs and bound after activation and residual. ``|gelu'| <= 1.13``."""
        y, bound = self.sums, self.bound
        if activation == "relu":
            y = np.maximum(y, 0)
        if activation == "gelu":
            erf = np.vectorize(math.erf, otypes=[np.float64])
            bound = 1.13 * bound + GELU_ERROR[kind] * np.maximum(1, np.abs(y))
            y = y * 0.5 * (1 + erf(y / math.sqrt(2)))
        if residual is not None:
            y = y + residual
            bound = bound + EPS * (np.abs(y) + np.abs(residual))
        return y, bound + 1e-37


def expect_dense(x: Array, weight: Array, bias: Array | None, terms: int | None = None) -> Expected:
    """fp32: ``|error| <= 2^-24 (n + 4) sum_j |w_j x_j|``."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    b = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    total = np.abs(x) @ np.abs(weight).T + np.abs(b)
    return Expected(x @ weight.T + b, EPS * ((terms or x.shape[1]) + 4) * total)


def expect_bf16(x: Array, weight: Array, bias: Array | None) -> Expected:
    """Both rounded to bfloat16 (2^-8 each): relative error of a product below 2^-6.9."""
    exact = expect_dense(x, weight, bias)
    return Expected(exact.sums, exact.bound + 2**-6.9 * (np.abs(x).astype(np.float64) @ np.abs(weight).T))


def expect_dense_sparse(
    x: Array, atoms: Array, indices: Array, values: Array, bias: Array | None
) -> Expected:
    """``y = sum_i S_i (D_i x_i)``; the bound is that of two sums in turn, of b and of B k terms."""
    blocks, _, width = atoms.shape
    split = x.astype(np.float64).reshape(len(x), blocks, width)
    z, size = (np.einsum("tic,irc->tir", f(split), f(atoms.astype(np.float64))) for f in (np.asarray, np.abs))
    y, total = np.zeros((len(x), len(indices))), np.zeros((len(x), len(indices)))
    for i in range(blocks):
        for q in range(indices.shape[2]):
            y += values[:, i, q].astype(np.float64) * z[:, i, indices[:, i, q]]
            total += np.abs(values[:, i, q].astype(np.float64)) * size[:, i, indices[:, i, q]]
    b = np.zeros(len(indices)) if bias is None else bias.astype(np.float64)
    return Expected(y + b, EPS * (width + blocks * indices.shape[2] + 4) * (total + np.abs(b)))


def centred(rows: QuantizedRows) -> Array:
    """``u - zero`` as int64 ``(T, n)``."""
    return rows.values[:, : rows.width].astype(np.int64) - (rows.zero & 255)[:, None]


def expect_dense_i8(rows: QuantizedRows, q: Array, scale: Array, bias: Array | None) -> Expected:
    """Exact integer sums; only the fp32 epilogue rounds."""
    sums = (
        (centred(rows) @ q.astype(np.int64).T)
        * scale.astype(np.float64)
        * rows.scale[:, None].astype(np.float64)
    )
    b = np.zeros(len(q)) if bias is None else bias.astype(np.float64)
    return Expected(sums + b, 4 * EPS * (np.abs(sums) + np.abs(b)))


def table_zeros(zero: int) -> list[int]:
    """The zero points that a token of a dense-sparse layer with tables may choose from.

    >>> table_zeros(128), table_zeros(16)
    ([128, 48, 88, 168, 208], [16])
    """
    if zero < 64:
        return [zero]
    return [zero, max(zero - 80, 1), max(zero - 40, 1), min(zero + 40, 254), min(zero + 80, 254)]


PRODUCT_ZEROS = (128, 32, 52, 72, 90, 108, 148, 180)
"""The same for the products ``z``."""


def rounded_product(a: Array, b: Array) -> Array:
    """``vpmulhrsw``: the product of two int16 over 2^15, rounded half up."""
    return (a.astype(np.int64) * b + 0x4000) >> 15


def expect_tables(
    rows: QuantizedRows,
    atoms_q: Array,
    atoms_scale: Array,
    indices: Array,
    values_q: Array,
    values_scale: Array,
    bias: Array | None,
    head: Array | None = None,
    zero: int = 128,
    choose: bool = False,
) -> Expected:
    """dense_sparse_i8 with tables: the arithmetic that the header states, in integers.

    ``head`` names the blocks with scales and zero points of their own; their sums are rounded once, to the
    others' unit.
    """
    blocks, nonzeros = indices.shape[1:]
    head = np.zeros(0, int) if head is None else head
    most = int(np.abs(atoms_q.astype(np.int64)).sum(axis=2).max())
    zeros = table_zeros(zero) if choose else [zero]
    reach = max(*zeros, 255 - min(zeros))
    shift = 0
    while (reach * most + (1 << shift) // 2) >> shift > 32766:
        shift += 1
    split = centred(rows).reshape(len(rows.scale), blocks, atoms_q.shape[2])
    if len(head):
        split[:, head] += ((rows.zero & 255) - (rows.zero >> 8))[:, None, None]
    z = (np.einsum("tic,irc->tir", split, atoms_q.astype(np.int64)) + (1 << shift) // 2) >> shift
    unit = np.float64(atoms_scale.max()) * 2.0**shift
    if (atoms_scale != atoms_scale.max()).any():
        unit *= 32768 / 32767
        scale15 = np.floor(atoms_scale / atoms_scale.max() * np.float32(32767) + np.float32(0.5)).astype(
            np.int64
        )
        z = rounded_product(z, scale15[None])
    rest = np.setdiff1d(np.arange(blocks), head)
    sums, units = _table_sums(z[:, rest], indices[:, rest], values_q[:, rest], rows.scale * unit, choose)
    slack = np.zeros(len(units))
    if len(head):
        of_head, head_units = _table_sums(
            z[:, head], indices[:, head], values_q[:, head], rows.head_scale * unit, choose
        )
        limit = 2**30 / (32385 * 4 * len(head) * -(-nonzeros // 4))
        assert (units >= head_units / limit).all(), "the limit is not part of this reference"
        ratio = np.divide(head_units, units, out=np.zeros_like(units), where=units > 0)
        sums, slack = (
            sums + of_head * ratio[:, None],
            units * (0.5 + 1e-6 * np.abs(of_head * ratio[:, None]).max(initial=0)),
        )
    y = sums * units[:, None] * values_scale.astype(np.float64)
    bound = slack[:, None] * values_scale.astype(np.float64)
    b = np.zeros(len(indices)) if bias is None else bias.astype(np.float64)
    return Expected(y + b, bound + 8 * EPS * (np.abs(y) + np.abs(b)))


def _table_sums(z: Array, indices: Array, values_q: Array, unit: Array, choose: bool) -> tuple[Array, Array]:
    """Sums of codes times z in 8 bits, and what a unit of them is worth, by token."""
    zeros = np.array(PRODUCT_ZEROS if choose else [128])
    most = np.maximum(z.max(axis=(1, 2), initial=0), 1).astype(np.float32)[:, None]
    least = np.maximum(-z.min(axis=(1, 2), initial=0), 1).astype(np.float32)[:, None]
    room = np.minimum((255 - zeros).astype(np.float32) / most, zeros.astype(np.float32) / least)
    zero, room = zeros[room.argmax(axis=1)], room.max(axis=1)
    factor = np.where(room >= 1, 32767, (room * np.float32(32768)).astype(np.int64))
    table = rounded_product(z, factor[:, None, None])
    shifted = table + zero[:, None, None]
    assert shifted.min(initial=0) >= 0 and shifted.max(initial=0) <= 255
    y = np.zeros((len(z), len(indices)))
    for i in range(z.shape[1]):
        for q in range(indices.shape[2]):
            y += values_q[:, i, q].astype(np.int64) * table[:, i, indices[:, i, q]]
    return y, unit.astype(np.float64) * np.where(room >= 1, 1.0, 32768 / factor)
