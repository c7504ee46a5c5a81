"""A catalogue as a folder of static files that search in the visitor's browser. No torch."""

from __future__ import annotations

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
