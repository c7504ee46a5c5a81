"""The public functions, classes and methods of a package: each object once, with all paths to it."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from leanmatch.data.see_also.modules import PackageModules, quiet

_METHODS = (
    types.FunctionType,
    types.MethodDescriptorType,
    types.BuiltinFunctionType,
    types.ClassMethodDescriptorType,
    classmethod,
    staticmethod,
)


@dataclass
class DocumentedObject:
    """One object.

    Attributes:
        kind: ``function``, ``class`` or ``method``.
        doc: its own docstring, cleaned of indentation.
        defined_in: the module whose source it stands in, as far as it says.
        paths: ``(module, qualified name)`` of every way to it, the best one first.
    """

    kind: str
    doc: str
    defined_in: str
    paths: list[tuple[str, str]] = field(default_factory=list)

    @property
    def id(self) -> str:
        return ".".join(self.paths[0])

    @property
    def name(self) -> str:
        return self.paths[0][1]


def documented_objects(package: PackageModules) -> list[DocumentedObject]:
    """Collect a package's documented objects, in the order of their identifiers.

    The best path to an object is the one through the fewest modules; then the one under its own name
    (``concatenate``, not ``concat``); then the class that defines a method before those that inherit it; then
    the alphabet. A module's ``__all__`` decides what counts; what it has
    beyond that is only one more way to an object that counts elsewhere.
    """
    objects_by_id: dict[int, DocumentedObject] = {}
    ranked: dict[int, list[tuple[bool, int, bool, bool, str, str]]] = {}
    alive: list[Any] = []  # an id() is only good as long as its object lives
    with quiet():
        listed: set[int] = set()
        for module_name, module in package.modules:
            offered = getattr(module, "__all__", None)
            for name, kind, value, inherited in _members(module, package.package):
                doc = value.__doc__
                if not isinstance(doc, str) or not doc.strip():
                    continue
                key = id(value)
                alive.append(value)
                objects_by_id.setdefault(
                    key, DocumentedObject(kind, inspect.cleandoc(doc), _module(value) or module_name)
                )
                hidden = offered is not None and name.partition(".")[0] not in offered
                if not hidden:
                    listed.add(key)
                renamed = name.rpartition(".")[2] != getattr(value, "__name__", None)
                rank = (hidden, module_name.count("."), renamed, inherited, module_name, name)
                ranked.setdefault(key, []).append(rank)
    for key, item in objects_by_id.items():
        item.paths = list(dict.fromkeys(rank[-2:] for rank in sorted(ranked[key])))
    return sorted((item for key, item in objects_by_id.items() if key in listed), key=lambda item: item.id)


def _members(module: ModuleType, package: str) -> Iterator[tuple[str, str, Any, bool]]:
    """``(qualified name, kind, object, inherited)`` of what a module offers."""
    names = {str(name) for name in (*dir(module), *(getattr(module, "__all__", None) or ()))}
    for name in sorted(name for name in names if not name.startswith("_")):
        value = _attribute(module, name)
        if not _belongs(value, package):
            continue
        if inspect.isclass(value):
            yield name, "class", value, False
            yield from _class_members(name, value, package, nested=True)
        elif inspect.isroutine(value) or type(value).__name__ == "ufunc":
            yield name, "function", value, False


def _class_members(
    path: str, cls: type, package: str, *, nested: bool
) -> Iterator[tuple[str, str, Any, bool]]:
    for name in dir(cls):
        if name.startswith("_"):
            continue
        owner = next((base for base in cls.__mro__ if name in vars(base)), None)
        if owner is None or not _belongs(owner, package):
            continue
        raw = vars(owner)[name]
        if isinstance(raw, _METHODS) or type(raw).__name__ == "cython_function_or_method":
            yield f"{path}.{name}", "method", getattr(raw, "__func__", raw), owner is not cls
        elif nested and inspect.isclass(value := _attribute(cls, name)) and _belongs(value, package):
            # accessors (Series.str) and nested classes
            yield from _class_members(f"{path}.{name}", value, package, nested=False)


def _attribute(owner: object, name: str) -> Any:
    try:
        return getattr(owner, name, None)
    except Exception:  # an attribute that raises is not there for our purpose
        return None


def _belongs(value: object, package: str) -> bool:
    """Was it defined in the package? (ufuncs do not always say; then being offered there decides.)"""
    module = _module(value)
    if module is None:
        return type(value).__name__ == "ufunc"
    parts = module.split(".")
    return parts[0] == package and "externals" not in parts


def _module(value: object) -> str | None:
    module = getattr(value, "__module__", None)
    return module if isinstance(module, str) else None
