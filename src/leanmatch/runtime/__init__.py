"""The torch-free encoder on the native kernels. ``leanmatch.load`` is the way in."""

from __future__ import annotations

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
