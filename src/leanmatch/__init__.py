"""leanmatch: text matchers that are robust out of distribution and lean enough for plain CPUs.

The public names are loaded when they are first used, so that ``import leanmatch`` stays instant.
"""

from __future__ import annotations

from leanmatch.lazy import attach

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = attach(__name__, __file__)
