"""Compressed models on disk: one page says how, docs/reference/format.md. Reading them needs no torch."""

from __future__ import annotations

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
