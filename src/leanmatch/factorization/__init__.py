"""The algebra of factored weights: forms, costs, pursuit, solvers, baselines. Arrays in, arrays out."""

from __future__ import annotations

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
