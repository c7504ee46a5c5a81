"""Public names and the modules that define them; see :mod:`leanmatch.lazy`."""

from .cost import Cost as Cost
from .cost import dense_sparse_cost as dense_sparse_cost
from .error_metric import ErrorMetric as ErrorMetric
from .factors import Dense as Dense
from .factors import DenseSparse as DenseSparse
from .factors import Factors as Factors
from .factors import IntMatrix as IntMatrix
from .factors import LowRank as LowRank
from .factors import MixedIntMatrix as MixedIntMatrix
from .factors import QuantizedDenseSparse as QuantizedDenseSparse
from .pursuit.native import Codes as Codes
from .pursuit.native import decode as decode
from .pursuit.native import decode_backward as decode_backward
from .pursuit.native import pursue as pursue
from .pursuit.native import refit as refit
from .solved import Report as Report
from .solved import Solved as Solved
from .solvers import SOLVERS as SOLVERS
from .solvers import find_solver as find_solver
from .solvers import solve as solve
