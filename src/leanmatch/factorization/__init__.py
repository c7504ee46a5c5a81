"""The algebra of factored weights: forms, costs, pursuit, solvers, baselines. Arrays in, arrays out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanmatch.lazy import find_name

if TYPE_CHECKING:
    from leanmatch.factorization.baselines.product_codes import ProductCodes as ProductCodes
    from leanmatch.factorization.calibration import Calibration as Calibration
    from leanmatch.factorization.cost import Cost as Cost
    from leanmatch.factorization.cost import dense_sparse_cost as dense_sparse_cost
    from leanmatch.factorization.factors import Dense as Dense
    from leanmatch.factorization.factors import DenseSparse as DenseSparse
    from leanmatch.factorization.factors import Factors as Factors
    from leanmatch.factorization.factors import IntMatrix as IntMatrix
    from leanmatch.factorization.factors import LowRank as LowRank
    from leanmatch.factorization.factors import QuantizedDenseSparse as QuantizedDenseSparse
    from leanmatch.factorization.methods import METHODS as METHODS
    from leanmatch.factorization.methods import find_method as find_method
    from leanmatch.factorization.methods import solve as solve
    from leanmatch.factorization.pursuit.native import Codes as Codes
    from leanmatch.factorization.pursuit.native import decode as decode
    from leanmatch.factorization.pursuit.native import decode_backward as decode_backward
    from leanmatch.factorization.pursuit.native import pursue as pursue
    from leanmatch.factorization.pursuit.native import refit as refit
    from leanmatch.factorization.solved import Report as Report
    from leanmatch.factorization.solved import Solved as Solved

_HOMES = {
    "Calibration": "calibration",
    "Codes": "leanmatch.factorization.pursuit.native",
    "Cost": "cost",
    "decode": "leanmatch.factorization.pursuit.native",
    "decode_backward": "leanmatch.factorization.pursuit.native",
    "Dense": "factors",
    "dense_sparse_cost": "cost",
    "DenseSparse": "factors",
    "Factors": "factors",
    "find_method": "methods",
    "IntMatrix": "factors",
    "LowRank": "factors",
    "METHODS": "methods",
    "ProductCodes": "leanmatch.factorization.baselines.product_codes",
    "pursue": "leanmatch.factorization.pursuit.native",
    "QuantizedDenseSparse": "factors",
    "refit": "leanmatch.factorization.pursuit.native",
    "Report": "solved",
    "solve": "methods",
    "Solved": "solved",
}
__all__ = [
    "METHODS",
    "Calibration",
    "Codes",
    "Cost",
    "Dense",
    "DenseSparse",
    "Factors",
    "IntMatrix",
    "LowRank",
    "ProductCodes",
    "QuantizedDenseSparse",
    "Report",
    "Solved",
    "decode",
    "decode_backward",
    "dense_sparse_cost",
    "find_method",
    "pursue",
    "refit",
    "solve",
]


def __getattr__(name: str) -> Any:
    return find_name(__name__, _HOMES, name)
