"""Eight bits against float32 on the real MiniLM and real sentences: cosine at least 0.999 for every text.

Levels that multiply by vpmaddubsw have activations of 7 bits (csrc/linear/kernels/x86/avx2.cpp) and four
times the error.
"""

from __future__ import annotations

import argparse
import builtins
import collections
import os
import re
import subprocess
import unittest
from pathlib import Path

import numpy as np
import pytest
from dense_sparse_layers import MODEL, let_the_runtime_find_them

from leanmatch.runtime import NativeEncoder, load, loading


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    """What Python says of its own functions: English sentences that every installation has."""
    homes = (
        builtins,
        collections,
        str,
        dict,
        list,
        int,
        bytes,
        set,
        re,
        os,
        subprocess,
        argparse,
        Path,
        unittest.TestCase,
    )
    docs = [getattr(one, "__doc__", None) for home in homes for one in vars(home).values()]
    split = [re.split(r"(?<=[.?!])\s", doc)[:2] for doc in docs if isinstance(doc, str)]
    texts = [" ".join(sentence.split()) for sentences in split for sentence in sentences]
    found = sorted({text for text in texts if re.fullmatch(r"[A-Z][A-Za-z ,'();-]{15,250}\.", text)})
    assert len(found) > 100
    return found[:: max(1, len(found) // 150)]


@pytest.fixture
def dense_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    let_the_runtime_find_them(monkeypatch)


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No measurements of other loads."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def worst_cosine(sentences: list[str], weights: str) -> float:
    exact = load(MODEL, precision="float32", runtime="native").encode(sentences)
    found = load(MODEL, precision=weights, runtime="native").encode(sentences)
    assert np.abs(found - exact).max() > 1e-4, "nothing was rounded"
    return float((exact * found).sum(axis=1).min())


def bar(encoder: NativeEncoder, path: str) -> float:
    """What the worst text may have where layers run on an integer path; skips where none does."""
    levels = {choice.level for choice in encoder.choices if choice.path == path}
    if not levels:
        pytest.skip(f"no layer runs on {path} at this level: float32 is faster, or there is no such kernel")
    return 0.996 if levels & {"avx2", "avx512"} else 0.999


def test_dense_in_8_bits(sentences: list[str]) -> None:
    least = bar(load(MODEL, precision="int8", runtime="native"), "dense_i8")
    assert worst_cosine(sentences, "int8") > least


def test_dense_sparse_in_8_bits(sentences: list[str], dense_sparse: None) -> None:
    least = bar(load(MODEL, runtime="native"), "dense_sparse_i8")
    assert worst_cosine(sentences, "stored") > least


def test_ranges_are_kept_and_used_again(sentences: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(MODEL, precision="int8", runtime="native")

    def not_again(*_: object) -> None:
        raise AssertionError("the inputs were measured again")

    monkeypatch.setattr(loading, "_probe", not_again)
    again = load(MODEL, precision="int8", runtime="native")
    np.testing.assert_array_equal(first.encode(sentences[:9]), again.encode(sentences[:9]))
