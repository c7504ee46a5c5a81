"""Forms that only the tables of ``research/one_shot.py`` compare with; no model is compressed with them.

Each function takes a float32 matrix ``(m, n)`` and gives factors with ``shape``, ``dense()``, ``cost()``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from leanmatch.factorization import DenseSparse
from leanmatch.factorization.arrays import Float, Index
from leanmatch.factorization.checks import check_divides, index_dtype
from leanmatch.factorization.cost import FLOAT_BITS, Cost, index_bits


def block_low_rank(weight: Float, *, block: int, rank: int) -> DenseSparse:
    """``W_i ~ S_i D_i`` of rank ``r`` in each block of columns: dense-sparse factors with ``k = r``, by SVD.

    Every row uses all atoms of a block, so the indices carry no information; DenseSparse counts them.
    """
    left, singular, right = np.linalg.svd(_blocks(weight, block), full_matrices=False)
    values = left[:, :, :rank] * singular[:, None, :rank]
    support = np.broadcast_to(np.arange(rank), values.shape)
    return _dense_sparse(right[:, :rank], support, values, rank)


def orthonormal(weight: Float, *, block: int, nonzeros: int, iterations: int = 30) -> DenseSparse:
    """``W_i ~ S_i Q_i`` with orthonormal ``Q_i (b, b)``: hard threshold and Procrustes in turn.

    Codes are the ``k`` largest of ``W_i Q_i^T``, exactly the best ones; ``Q_i = U V^T`` of the singular value
    decomposition of ``S_i^T W_i``, exactly the best one. So the error never rises. ``Q_i`` begins with the
    right singular vectors of ``W_i``.

    Source: Lesage, Gribonval, Bimbot, Benaroya, "Learning unions of orthonormal bases" (2005).
    """
    target = _blocks(weight, block)
    atoms = np.linalg.eigh(target.transpose(0, 2, 1) @ target)[1].transpose(0, 2, 1)
    for step in range(iterations + 1):
        codes = target @ atoms.transpose(0, 2, 1)
        support = np.argsort(-np.abs(codes), axis=2, kind="stable")[..., :nonzeros]
        values = np.take_along_axis(codes, support, axis=2)
        if step < iterations:
            kept = np.zeros_like(codes)
            np.put_along_axis(kept, support, values, axis=2)
            left, _, right = np.linalg.svd(kept.transpose(0, 2, 1) @ target)
            atoms = left @ right
    return _dense_sparse(atoms, support, values, block)


def _blocks(weight: Float, block: int) -> Float:
    """``W_i`` as ``(B, m, b)``."""
    check_divides(block, weight.shape[1])
    return weight.reshape(len(weight), -1, block).transpose(1, 0, 2)


def _dense_sparse(atoms: Float, support: Any, values: Float, count: int) -> DenseSparse:
    return DenseSparse(
        np.ascontiguousarray(atoms, np.float32),
        np.ascontiguousarray(support.transpose(1, 0, 2), index_dtype(count)),
        np.ascontiguousarray(values.transpose(1, 0, 2), np.float32),
    )


@dataclass(frozen=True, eq=False)
class ProductCodes:
    """``W[row, block i] = codewords[i, indices[row, i]]``: dense-sparse factors whose one value a row is 1.

    Attributes:
        codewords: float32 ``(B, r, b)``.
        indices: uint8 or uint16 ``(m, B)``.
    """

    codewords: Float
    indices: Index

    @property
    def shape(self) -> tuple[int, int]:
        """``(m, n)``."""
        return self.indices.shape[0], self.codewords.shape[0] * self.codewords.shape[2]

    def dense(self) -> Float:
        """The codewords in place, float32 ``(m, n)``."""
        chosen = self.codewords[np.arange(self.codewords.shape[0]), self.indices.astype(np.int64)]
        return chosen.reshape(self.shape)

    def cost(self, float_bits: int = FLOAT_BITS) -> Cost:
        """:func:`product_cost`."""
        _, r, b = self.codewords.shape
        return product_cost(*self.shape, b, r, float_bits=float_bits)


def product_cost(m: int, n: int, b: int, r: int, *, float_bits: int = FLOAT_BITS) -> Cost:
    """Cost of product quantization with ``r`` codewords per block.

    ``macs = n r + m n/b`` (one addition a block), ``bits = n r float_bits + m (n/b) ceil(log2 r)``.
    """
    codes = m * (n // b)
    return Cost(macs=n * r + codes, bits=n * r * float_bits + codes * index_bits(r))


def product_quantization(weight: Float, *, block: int, codewords: int, iterations: int = 20) -> ProductCodes:
    """Every row of a block becomes one of ``r`` codewords, found by k-means (Lloyd's algorithm).

    Codewords begin with rows drawn at random; one that loses all its rows becomes the row with the largest
    error.

    Source: Jegou, Douze, Schmid, "Product quantization for nearest neighbor search" (2011).
    """
    target = _blocks(weight, block)
    words = np.zeros((len(target), codewords, block), np.float32)
    indices = np.zeros((len(weight), len(target)), index_dtype(codewords))
    for i, part in enumerate(target):
        first = np.random.default_rng(0).permutation(len(part))[:codewords]
        words[i, : len(first)] = part[first]
        before = np.inf
        for step in range(iterations + 1):
            distance = np.square(words[i]).sum(axis=1) - 2 * part @ words[i].T
            nearest = distance.argmin(axis=1)
            errors = np.square(part - words[i, nearest]).sum(axis=1)
            error = float(errors.sum(dtype=np.float64))
            if step == iterations or error >= before * (1 - 1e-5):
                break
            before, words[i] = error, _means(part, nearest, errors, words[i])
        indices[:, i] = nearest
    return ProductCodes(words, indices)


def _means(part: Float, nearest: Any, errors: Float, words: Float) -> Float:
    counts = np.bincount(nearest, minlength=len(words))
    sums = np.stack([np.bincount(nearest, column, len(words)) for column in part.T], axis=1)
    updated = np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], words)
    empty = np.flatnonzero(counts == 0)[: len(part)]
    updated[empty] = part[np.argsort(-errors, kind="stable")[: len(empty)]]
    return updated.astype(np.float32)


RIVALS: dict[str, Callable[..., Any]] = {
    "block-low-rank": block_low_rank,
    "orthonormal": orthonormal,
    "product": product_quantization,
}
"""Beside :data:`leanmatch.factorization.SOLVERS`."""
