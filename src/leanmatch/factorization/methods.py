"""The table of methods: one interface, a matrix and options in, factors and a report out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError
from leanmatch.factorization.baselines.low_rank import (
    BlockLowRankOptions,
    LowRankOptions,
    block_low_rank,
    fwsvd,
    svd,
)
from leanmatch.factorization.baselines.product_quantization import ProductOptions, product_quantize
from leanmatch.factorization.baselines.pruning import PruneOptions, prune
from leanmatch.factorization.baselines.rounding import RoundOptions, round_to_nearest
from leanmatch.factorization.calibration import Calibration
from leanmatch.factorization.checks import check_array, check_finite, check_not_empty
from leanmatch.factorization.dictionary import DenseSparseOptions, dense_sparse
from leanmatch.factorization.orthonormal import OrthonormalOptions, orthonormal
from leanmatch.factorization.solved import PLAIN, Solved


@dataclass(frozen=True)
class Method:
    """A way to approximate a matrix.

    Attributes:
        about: one line.
        solve: ``solve(weight, options, calibration) -> Solved``.
        options: its dataclass of options.
        defaults: options that differ from those of the dataclass.
    """

    about: str
    solve: Callable[[NDArray[np.float32], Any, Calibration], Solved]
    options: type[Any]
    defaults: dict[str, Any] = field(default_factory=dict)


METHODS = {
    "dense-sparse": Method("pursuit and atom updates, W_i ~ S_i D_i", dense_sparse, DenseSparseOptions),
    "orthonormal": Method("W_i ~ S_i Q_i, square orthonormal Q_i", orthonormal, OrthonormalOptions),
    "svd": Method("global low rank", svd, LowRankOptions),
    "fwsvd": Method("global low rank, rows weighted by Fisher information", fwsvd, LowRankOptions),
    "block-low-rank": Method("low rank of every block of columns", block_low_rank, BlockLowRankOptions),
    "n:m": Method("keep n of every m neighbours in each row", prune, PruneOptions),
    "2:4": Method("keep 2 of every 4 neighbours in each row", prune, PruneOptions, {"keep": 2, "of": 4}),
    "product": Method("k-means product quantization", product_quantize, ProductOptions),
    "int8": Method("round to int8", round_to_nearest, RoundOptions, {"bits": 8}),
    "int4": Method("round to int4, groups of 32", round_to_nearest, RoundOptions, {"bits": 4, "group": 32}),
}
"""Name to method. Valid names in messages come from here."""


def find_method(name: str) -> Method:
    """The method of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}", remedy=f"one of {', '.join(METHODS)}")
    return METHODS[name]


def solve(
    weight: NDArray[np.float32],
    method: str = "dense-sparse",
    calibration: Calibration = PLAIN,
    **options: Any,
) -> Solved:
    """Approximate a matrix by one of :data:`METHODS`.

    Args:
        weight: ``(m, n)``, float32, finite.
        method: a name.
        calibration: weights of the error; what each method does with them is said there.
        options: fields of the method's options.

    Raises:
        UsageError: no such method or option, values out of range.
        DataError: a matrix or weights that cannot be used.

    >>> weight = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    >>> solve(weight, "2:4").factors.cost().macs
    48
    >>> solve(weight, "int4", group=6).factors.scale.shape
    (8, 2)
    """
    found = find_method(method)
    check_array("weight", weight, ("m", "n"), (np.float32,))
    check_not_empty("weight", weight, ("m", "n"))
    check_finite("weight", weight)
    known = [option.name for option in fields(found.options)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise UsageError(
            f"the method {method} has no option {', '.join(unknown)}", remedy=f"one of {', '.join(known)}"
        )
    return found.solve(weight, found.options(**(found.defaults | options)), calibration)
