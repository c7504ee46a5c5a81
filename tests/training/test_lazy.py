"""What the package says where its libraries are missing or other than expected."""

from __future__ import annotations

import importlib

import pytest

import leanmatch.training
from leanmatch.errors import MissingExtraError
from leanmatch.training import stock


def test_without_torch_the_extra_is_named(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.delitem(vars(leanmatch.training), "ITVReg", raising=False)  # kept by an earlier test
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(MissingExtraError, match=r"leanmatch\[train\]"):
        _ = leanmatch.training.ITVReg


def test_any_other_missing_module_is_our_own_fault(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'leanmatch.nowhere'", name="leanmatch.nowhere")

    monkeypatch.delitem(vars(leanmatch.training), "ITVReg", raising=False)  # kept by an earlier test
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        _ = leanmatch.training.ITVReg


def test_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = leanmatch.training.nonsense


def test_a_name_that_sentence_transformers_moved_again_is_told():
    with pytest.raises(ImportError, match="no Nonsense in any of util, nowhere"):
        stock._find("Nonsense", "util", "nowhere")
