"""Item catalogues: exact and approximate search, filters, recommendations, and their files. No torch."""

from __future__ import annotations

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
