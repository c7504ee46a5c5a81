"""Public names that are loaded when they are first used, so that importing a package costs nothing.

Each package lists its public names once, in the stub ``__init__.pyi``: editors and type checkers read it, and
``lazy_loader`` reads the same file to know where a name is defined.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lazy_loader

from leanmatch.errors import MissingExtraError

TRAINING_LIBRARIES = frozenset({"accelerate", "datasets", "sentence_transformers", "torch", "transformers"})
"""What the extra ``train`` brings."""


def attach(
    package: str, file: str, *, purpose: str | None = None
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """``__getattr__``, ``__dir__`` and ``__all__`` of a package whose names stand in its ``__init__.pyi``.

    Args:
        package: ``__name__`` of the package.
        file: ``__file__`` of the package.
        purpose: what the names are for, where they need the libraries of the extra ``train``.

    The returned ``__getattr__`` raises AttributeError for a name that the stub does not list, and
    MissingExtraError where a library of that extra is not installed.
    """
    load, list_names, names = lazy_loader.attach_stub(package, file)

    def load_name(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return load(name)
        except ModuleNotFoundError as error:
            if purpose is not None and error.name in TRAINING_LIBRARIES:
                raise MissingExtraError(error.name, "train", purpose) from error
            raise

    return load_name, list_names, names
