"""Product quantization: every row of a block becomes one of ``r`` codewords, found by k-means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.factorization.arrays import Float
from leanmatch.factorization.baselines.product_codes import ProductCodes
from leanmatch.factorization.checks import check_count, check_divides, index_dtype
from leanmatch.factorization.error_metric import ErrorMetric
from leanmatch.factorization.solved import PLAIN, Solved, solved


@dataclass(frozen=True)
class ProductOptions:
    """Options of :func:`product_quantize`.

    Attributes:
        block: ``b``, columns per block; must divide ``n``.
        codewords: ``r`` of each block.
        iterations: of k-means, at most.
        seed: of the first codewords.

    Raises:
        UsageError: out of range.
    """

    block: int = 4
    codewords: int = 256
    iterations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("block", self.block, 1)
        check_count("codewords", self.codewords, 1, 1 << 16)
        check_count("iterations", self.iterations, 0)


def product_quantize(
    weight: Float, options: ProductOptions | None = None, metric: ErrorMetric = PLAIN
) -> Solved:
    """k-means of the rows of every block, in the error metric.

    Codewords begin with rows drawn at random; one that loses all its rows becomes the row with the largest
    error.

    Raises:
        UsageError: a block that does not divide ``n``.

    Source: Jegou, Douze, Schmid, "Product quantization for nearest neighbor search" (2011).
    """
    options = options or ProductOptions()
    m, n = weight.shape
    block = options.block
    check_divides(block, n)
    metric.check_fits((m, n))
    per_block = metric.by_block(m, n, block)
    target = per_block.forward(weight, block)
    blocks = n // block
    codewords = np.zeros((blocks, options.codewords, block), np.float32)
    indices = np.zeros((m, blocks), index_dtype(options.codewords))
    histories = []
    for i in range(blocks):
        rows = np.ones(m) if per_block.rows is None else per_block.rows[:, i]
        part = np.ascontiguousarray(target[:, i * block : (i + 1) * block])
        codewords[i], indices[:, i], history = _k_means(part, rows, options)
        histories.append(history)
    scale = max(float(np.square(target).sum(dtype=np.float64)), 1e-300)
    longest = max(map(len, histories))
    padded = np.array([[*history, *([history[-1]] * (longest - len(history)))] for history in histories])
    factors = ProductCodes(per_block.atoms_back(codewords).astype(np.float32), indices)
    errors = tuple(float(error) for error in padded.sum(axis=0) / scale)
    return solved("product", weight, factors, metric, errors)


def _k_means(
    part: Float, rows: NDArray[np.float64], options: ProductOptions
) -> tuple[Float, NDArray[np.int64], list[float]]:
    """Lloyd's algorithm: codewords, the nearest of each row, squared errors round by round."""
    m, block = part.shape
    rng = np.random.default_rng(options.seed)
    words = np.zeros((options.codewords, block), np.float32)
    first = rng.permutation(m)[: options.codewords]
    words[: len(first)] = part[first]
    history: list[float] = []
    nearest = np.zeros(m, np.int64)
    for _ in range(options.iterations + 1):
        distance = np.square(words).sum(axis=1) - 2 * part @ words.T
        nearest = distance.argmin(axis=1)
        errors = np.square(part - words[nearest]).sum(axis=1)
        history.append(float((errors * rows).sum(dtype=np.float64)))
        if len(history) > 1 and history[-1] >= history[-2] * (1 - 1e-5):
            break
        if len(history) <= options.iterations:
            words = _means(part, rows, nearest, errors, words)
    return words, nearest, history


def _means(
    part: Float, rows: NDArray[np.float64], nearest: NDArray[np.int64], errors: Float, words: Float
) -> Float:
    weights = np.bincount(nearest, rows, len(words))
    sums = np.stack([np.bincount(nearest, rows * column, len(words)) for column in part.T], axis=1)
    updated = np.where(weights[:, None] > 0, sums / np.maximum(weights, 1e-300)[:, None], words)
    empty = np.flatnonzero(np.bincount(nearest, minlength=len(words)) == 0)[: len(part)]
    updated[empty] = part[np.argsort(-errors, kind="stable")[: len(empty)]]
    return updated.astype(np.float32)
