"""Importing all public modules of an installed package, quietly, and none that would act when imported."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import pkgutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType

from leanmatch.errors import MissingExtraError

SKIPPED_NAMES = frozenset(
    (
        "conftest",
        "setup",
        "distutils",
        "benchmarks",
        "examples",
        "demo",
        "gui",
        "externals",
        "estimator_checks",
    )
)
"""Modules of these names are never imported, nor those beginning with ``_`` or ``test``."""


@dataclass
class PackageModules:
    """The modules of one package, ``(dotted name, module)``, shallow first, and those that failed."""

    package: str
    version: str
    modules: list[tuple[str, ModuleType]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


def public_modules(package: str) -> PackageModules:
    """Import a package and its public submodules.

    A submodule that fails, for want of an optional library for instance, is noted and passed over.

    Raises:
        MissingExtraError: the package is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, "demo", "the See Also graph")
    with quiet():
        root = importlib.import_module(package)
        found = PackageModules(package, str(getattr(root, "__version__", "unknown")), [(package, root)])
        _descend(root, found)
    found.modules.sort(key=lambda one: (one[0].count("."), one[0]))
    return found


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Neither warnings nor prints reach the user while foreign modules are imported and looked at."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def is_public(name: str) -> bool:
    """May a module of this (last) name be imported?"""
    return not name.startswith(("_", "test")) and name not in SKIPPED_NAMES


def _descend(parent: ModuleType, found: PackageModules) -> None:
    for info in sorted(pkgutil.iter_modules(getattr(parent, "__path__", ())), key=lambda one: one.name):
        if not is_public(info.name):
            continue
        name = f"{parent.__name__}.{info.name}"
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            found.failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        found.modules.append((name, module))
        if info.ispkg:
            _descend(module, found)
