"""Pair tables and item tables: reading, writing, checking, splitting.

Names are imported when they are first used, so that ``import leanmatch.data`` costs nothing.
"""

from __future__ import annotations

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
