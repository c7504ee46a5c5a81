"""The HTTP server: recommendations, embeddings, items, metrics, a web page; and its client. No torch."""

from __future__ import annotations

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
