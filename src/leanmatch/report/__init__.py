"""Diagnosis of a matcher as data and as a page: what its scores hang on, and how training moved that."""

from __future__ import annotations

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
