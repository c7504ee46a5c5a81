"""Lexical matching: which terms a query and an item share, weighted by BM25. No torch."""

from __future__ import annotations

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
