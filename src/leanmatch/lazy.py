"""Public names that are loaded when they are first used, so that importing a package costs nothing."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from leanmatch.errors import MissingExtraError

TRAINING_LIBRARIES = frozenset({"accelerate", "datasets", "sentence_transformers", "torch", "transformers"})
"""What the extra ``train`` brings."""


def find_name(package: str, homes: Mapping[str, str], name: str, *, purpose: str | None = None) -> Any:
    """What a package's ``__getattr__`` answers.

    Args:
        package: ``__name__`` of the package.
        homes: public name to the module that defines it: one of the package, or a whole path with dots.
        name: what was asked for.
        purpose: what the names are for, where they need the libraries of the extra ``train``.

    Raises:
        AttributeError: there is no such name.
        MissingExtraError: a library of that extra is not installed.
    """
    if name not in homes:
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    home = homes[name] if "." in homes[name] else f"{package}.{homes[name]}"
    try:
        return getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        if purpose is not None and error.name in TRAINING_LIBRARIES:
            raise MissingExtraError(error.name, "train", purpose) from error
        raise
