"""N:M pruning: of every ``of`` neighbouring columns, ``keep`` stay in each row. ``D_i = I``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leanmatch.factorization.arrays import Float, Index
from leanmatch.factorization.checks import check_count, check_divides, index_dtype
from leanmatch.factorization.dense_sparse import DenseSparse
from leanmatch.factorization.error_metric import ErrorMetric
from leanmatch.factorization.solved import PLAIN, Solved, solved


@dataclass(frozen=True)
class PruneOptions:
    """Options of :func:`prune`.

    Attributes:
        keep: values that stay in each group, ``k``.
        of: columns of a group, ``b = r``; must divide ``n``.

    Raises:
        UsageError: out of range.
    """

    keep: int = 2
    of: int = 4

    def __post_init__(self) -> None:
        check_count("of", self.of, 1, 1 << 16)
        check_count("keep", self.keep, 1, self.of)


def prune(weight: Float, options: PruneOptions | None = None, metric: ErrorMetric = PLAIN) -> Solved:
    """Row-balanced N:M pruning by magnitude: exactly the best choice without a metric.

    With second moments the score of a weight is ``W^2 H_jj`` (Wanda), with a Fisher matrix ``W^2 F``; values
    stay what they are.

    Raises:
        UsageError: groups that do not divide ``n``.

    Source: Mishra et al., "Accelerating sparse deep neural networks" (2021); Sun et al., "Wanda" (2023).
    """
    options = options or PruneOptions()
    m, n = weight.shape
    check_divides(options.of, n)
    metric.check_fits((m, n))
    blocks = weight.reshape(m, n // options.of, options.of)
    scores = np.square(blocks.astype(np.float64))
    if metric.fisher is not None:
        scores *= metric.fisher.reshape(blocks.shape)
    elif metric.moments is not None:
        scores *= np.diagonal(metric.moments).reshape(1, *blocks.shape[1:])
    support = np.sort(np.argsort(-scores, axis=2, kind="stable")[..., : options.keep], axis=2)
    values = np.take_along_axis(blocks, support, axis=2)
    indices: Index = np.ascontiguousarray(support, index_dtype(options.of))
    factors = DenseSparse.with_identity(indices, np.ascontiguousarray(values, np.float32), options.of)
    return solved("n:m", weight, factors, metric)
