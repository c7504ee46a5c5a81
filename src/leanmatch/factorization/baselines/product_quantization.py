"""Product quantization: every row of a block becomes one of ``r`` codewords, found by k-means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.factorization.arrays import Float
from leanmatch.factorization.baselines.product_codes import ProductCodes
from leanmatch.factorization.calibration import Calibration, block_metric
from leanmatch.factorization.checks import index_dtype
from leanmatch.factorization.solved import PLAIN, Solved, check_count, check_divides, solved


@dataclass(frozen=True)
class ProductOptions:
    """Options of :func:`product_quantize`.

    Attributes:
        width: ``b``, columns per block; must divide ``n``.
        codewords: ``r`` of each block.
        iterations: of k-means, at most.
        seed: of the first codewords.

    Raises:
        UsageError: out of range.
    """

    width: int = 4
    codewords: int = 256
    iterations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        check_count("width", self.width, 1)
        check_count("codewords", self.codewords, 1, 1 << 16)
        check_count("iterations", self.iterations, 0)


def product_quantize(
    weight: Float, options: ProductOptions | None = None, calibration: Calibration = PLAIN
) -> Solved:
    """k-means of the rows of every block, in the metric of the calibration.

    Codewords begin with rows drawn at random; one that loses all its rows becomes the row with the largest
    error.

    Raises:
        UsageError: a width that does not divide ``n``.

    Source: Jegou, Douze, Schmid, "Product quantization for nearest neighbor search" (2011).
    """
    options = options or ProductOptions()
    m, n = weight.shape
    width = options.width
    check_divides(width, n)
    calibration.check_fits((m, n))
    metric = block_metric(calibration, m, n, width)
    target = metric.forward(weight, width)
    blocks = n // width
    codewords = np.zeros((blocks, options.codewords, width), np.float32)
    indices = np.zeros((m, blocks), index_dtype(options.codewords))
    histories = []
    for i in range(blocks):
        rows = np.ones(m) if metric.rows is None else metric.rows[:, i]
        part = np.ascontiguousarray(target[:, i * width : (i + 1) * width])
        codewords[i], indices[:, i], history = _k_means(part, rows, options)
        histories.append(history)
    scale = max(float(np.square(target).sum(dtype=np.float64)), 1e-300)
    longest = max(map(len, histories))
    padded = np.array([[*history, *([history[-1]] * (longest - len(history)))] for history in histories])
    factors = ProductCodes(metric.atoms_back(codewords).astype(np.float32), indices)
    errors = tuple(float(error) for error in padded.sum(axis=0) / scale)
    return solved("product", weight, factors, calibration, errors)


def _k_means(
    part: Float, rows: NDArray[np.float64], options: ProductOptions
) -> tuple[Float, NDArray[np.int64], list[float]]:
    """Lloyd's algorithm: codewords, the nearest of each row, squared errors round by round."""
    m, width = part.shape
    rng = np.random.default_rng(options.seed)
    words = np.zeros((options.codewords, width), np.float32)
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
