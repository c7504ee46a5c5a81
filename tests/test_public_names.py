"""Every public name of the package exists, is documented, and says what it takes."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import types

import pytest

import leanmatch
import leanmatch.training
from leanmatch.errors import MissingExtraError

SHORTEST = 10
"""Characters of a docstring that says something."""

EVERY_PACKAGE = sorted(
    name
    for _, name, is_package in pkgutil.walk_packages(leanmatch.__path__, "leanmatch.")
    if is_package and not name.startswith("leanmatch.cli")
)
PACKAGES = [name for name in EVERY_PACKAGE if hasattr(importlib.import_module(name), "__all__")]
"""Packages with public names of their own; the others only hold the modules of one subject."""


def public_names(package: str) -> list[str]:
    return [name for name in importlib.import_module(package).__all__ if not name.startswith("__")]


def undocumented(name: str, value: object) -> list[str]:
    """The name itself, or members of a class, without a docstring of their own."""
    if not callable(value) or isinstance(value, types.GenericAlias) or not hasattr(value, "__name__"):
        return []  # constants and type aliases are documented where they are defined
    found = [name] if len(own_doc(value)) < SHORTEST else []
    if inspect.isclass(value):
        fields = getattr(value, "__dataclass_fields__", {})  # their defaults may be functions
        for member, one in vars(value).items():
            is_plain = inspect.isfunction(one) or isinstance(one, property | classmethod | staticmethod)
            if member.startswith("_") or member in fields or not is_plain:
                continue
            if len(inherited_doc(value, member)) < SHORTEST:
                found.append(f"{name}.{member}")
    return found


def own_doc(value: object) -> str:
    text = value.__doc__ or ""
    generated = inspect.isclass(value) and text.startswith(f"{value.__name__}(")  # by dataclass
    return "" if generated else text


def inherited_doc(value: type, member: str) -> str:
    """The docstring of a method, or of what it overrides."""
    return inspect.getdoc(getattr(value, member)) or ""


def test_the_check_bites() -> None:
    class Silent:
        def method(self) -> None: ...

    assert undocumented("Silent", Silent) == ["Silent", "Silent.method"]
    assert undocumented("f", lambda: None) == ["f"]


def test_the_walk_finds_the_packages() -> None:
    assert {"leanmatch.data", "leanmatch.training.losses", "leanmatch.formats.artifact"} <= set(PACKAGES)
    assert "leanmatch.index.storage" in EVERY_PACKAGE
    layers = {name for name in EVERY_PACKAGE if name.count(".") == 1}
    assert layers <= set(PACKAGES), "a layer must say which of its names are public"


@pytest.mark.parametrize("package", ["leanmatch", *PACKAGES])
def test_every_public_name_is_documented(package: str) -> None:
    module = importlib.import_module(package)
    names = public_names(package)
    assert [silent for name in names for silent in undocumented(name, getattr(module, name))] == []


@pytest.mark.parametrize("package", EVERY_PACKAGE)
def test_every_package_says_what_it_is(package: str) -> None:
    assert len(importlib.import_module(package).__doc__ or "") >= SHORTEST


@pytest.mark.parametrize("package", PACKAGES)
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        _ = importlib.import_module(package).nonsense


@pytest.mark.parametrize(
    ("missing", "error", "message"),
    [
        ("torch", MissingExtraError, r"leanmatch\[train\]"),
        ("leanmatch.nowhere", ModuleNotFoundError, "nowhere"),  # our own fault, not the user's
    ],
)
def test_a_missing_library_of_training_names_the_extra(monkeypatch, missing, error, message) -> None:
    def fail(_: str) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.delitem(vars(leanmatch.training), "ITVReg", raising=False)  # kept by an earlier test
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(error, match=message):
        _ = leanmatch.training.ITVReg


def test_a_name_that_sentence_transformers_moved_again_is_told() -> None:
    stock = pytest.importorskip("leanmatch.training.stock", reason="the train extra is not installed")
    with pytest.raises(ImportError, match="no Nonsense in any of util, nowhere"):
        stock._find("Nonsense", "util", "nowhere")
