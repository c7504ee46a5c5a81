"""Training: losses (contrastive, ITVReg and its rivals), :func:`fit`, and the choice of a recipe.

Importing this package is cheap: torch and sentence-transformers come with the first name that needs them.
"""

from __future__ import annotations

from leanmatch.lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__, purpose="training")
