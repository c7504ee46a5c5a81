"""Compressed models for other programs: stock folders with dense weights, ONNX. Each is compared at save."""

from __future__ import annotations

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
