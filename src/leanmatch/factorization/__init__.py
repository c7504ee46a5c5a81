"""The algebra of factored weights: forms, costs, pursuit, solvers, baselines. Arrays in, arrays out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leanmatch.factorization.cost import Cost as Cost
    from leanmatch.factorization.factors import Dense as Dense
    from leanmatch.factorization.factors import DenseSparse as DenseSparse
    from leanmatch.factorization.factors import Factors as Factors
    from leanmatch.factorization.factors import IntMatrix as IntMatrix
    from leanmatch.factorization.factors import LowRank as LowRank
    from leanmatch.factorization.factors import QuantizedDenseSparse as QuantizedDenseSparse

_HOMES = {
    "Cost": "cost",
    "Dense": "factors",
    "DenseSparse": "factors",
    "Factors": "factors",
    "IntMatrix": "factors",
    "LowRank": "factors",
    "QuantizedDenseSparse": "factors",
}
__all__ = [
    "Cost",
    "Dense",
    "DenseSparse",
    "Factors",
    "IntMatrix",
    "LowRank",
    "QuantizedDenseSparse",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
