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
        package_modules = PackageModules(
            package, str(getattr(root, "__version__", "unknown")), [(package, root)]
        )
        _descend(root, package_modules)
    package_modules.modules.sort(key=lambda entry: (entry[0].count("."), entry[0]))
    return package_modules


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


def _descend(parent: ModuleType, package_modules: PackageModules) -> None:
    for info in sorted(pkgutil.iter_modules(getattr(parent, "__path__", ())), key=lambda module: module.name):
        if not is_public(info.name):
            continue
        name = f"{parent.__name__}.{info.name}"
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            package_modules.failed[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            continue
        package_modules.modules.append((name, module))
        if info.ispkg:
            _descend(module, package_modules)
