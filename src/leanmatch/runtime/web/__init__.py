"""Models for the runtime in a web page: :func:`export_web_model`, and the files that it writes."""

from __future__ import annotations

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
