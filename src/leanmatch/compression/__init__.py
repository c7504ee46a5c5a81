"""Compression of models: specification, modules, conversion, straight-through factorization, distillation."""

from __future__ import annotations

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, purpose="compression")
