"""The table of solvers: one interface, a matrix and options in, factors and a report out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError
from leanmatch.factorization.baselines.low_rank import LowRankOptions, fwsvd, svd
from leanmatch.factorization.baselines.pruning import PruneOptions, prune
from leanmatch.factorization.baselines.rounding import RoundOptions, round_to_nearest
from leanmatch.factorization.checks import check_array, check_finite, check_not_empty
from leanmatch.factorization.dense_sparse_solver import dense_sparse
from leanmatch.factorization.dictionary import DenseSparseOptions
from leanmatch.factorization.error_metric import ErrorMetric
from leanmatch.factorization.solved import PLAIN, Solved


@dataclass(frozen=True)
class Solver:
    """A way to approximate a matrix.

    Attributes:
        about: one line.
        solve: ``solve(weight, options, metric) -> Solved``.
        options: its dataclass of options.
        defaults: options that differ from those of the dataclass.
    """

    about: str
    solve: Callable[[NDArray[np.float32], Any, ErrorMetric], Solved]
    options: type[Any]
    defaults: dict[str, Any] = field(default_factory=dict)


SOLVERS = {
    "dense-sparse": Solver("pursuit and atom updates, W_i ~ S_i D_i", dense_sparse, DenseSparseOptions),
    "svd": Solver("global low rank", svd, LowRankOptions),
    "fwsvd": Solver("global low rank, rows weighted by Fisher information", fwsvd, LowRankOptions),
    "n:m": Solver("keep n of every m neighbours in each row", prune, PruneOptions),
    "2:4": Solver("keep 2 of every 4 neighbours in each row", prune, PruneOptions, {"keep": 2, "of": 4}),
    "int8": Solver("round to int8", round_to_nearest, RoundOptions, {"bits": 8}),
    "int4": Solver("round to int4, groups of 32", round_to_nearest, RoundOptions, {"bits": 4, "group": 32}),
    "int3": Solver("round to int3, the best scale a row", round_to_nearest, RoundOptions, {"bits": 3}),
    "int2": Solver("round to int2, the best scale a row", round_to_nearest, RoundOptions, {"bits": 2}),
}
"""The method's name to its solver. Valid names in messages come from here."""


def find_solver(name: str) -> Solver:
    """The solver of this name.

    Raises:
        UsageError: there is none.
    """
    if name not in SOLVERS:
        raise UsageError(f"unknown method {name!r}", remedy=f"one of {', '.join(SOLVERS)}")
    return SOLVERS[name]


def solve(
    weight: NDArray[np.float32],
    method: str = "dense-sparse",
    metric: ErrorMetric = PLAIN,
    **options: Any,
) -> Solved:
    """Approximate a matrix by one of :data:`SOLVERS`.

    Args:
        weight: ``(m, n)``, float32, finite.
        method: a name.
        metric: the error to minimize; what each solver makes of it is said there.
        options: fields of the method's options.

    Raises:
        UsageError: no such method or option, values out of range.
        DataError: a matrix or a metric that cannot be used.

    >>> weight = np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)
    >>> solve(weight, "2:4").factors.cost().macs
    48
    >>> solve(weight, "int4", group=6).factors.scale.shape
    (8, 2)
    """
    solver = find_solver(method)
    check_array("weight", weight, ("m", "n"), (np.float32,))
    check_not_empty("weight", weight, ("m", "n"))
    check_finite("weight", weight)
    valid = [option.name for option in fields(solver.options)]
    unknown = [name for name in options if name not in valid]
    if unknown:
        raise UsageError(
            f"the method {method} has no option {', '.join(unknown)}", remedy=f"one of {', '.join(valid)}"
        )
    return solver.solve(weight, solver.options(**(solver.defaults | options)), metric)
