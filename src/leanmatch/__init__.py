"""leanmatch: text matchers that are robust out of distribution and lean enough for plain CPUs.

The public names are loaded when they are first used, so that ``import leanmatch`` stays instant.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "DataError": "leanmatch.errors",
    "FormatError": "leanmatch.errors",
    "LeanmatchError": "leanmatch.errors",
    "MissingExtraError": "leanmatch.errors",
    "ModelError": "leanmatch.errors",
    "UsageError": "leanmatch.errors",
}
"""Public name to the module that defines it."""

__all__ = ["__version__", *_EXPORTS]  # noqa: PLE0604  (the keys are strings)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXPORTS})
