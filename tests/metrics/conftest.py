"""An encoder that takes no time to load and a small table with every column that evaluation looks at."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from leanmatch.data import PairTable


def encode_words(texts):
    """Bags of words, each word a fixed random direction; normalized."""
    vectors = np.zeros((len(texts), 64), np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            vectors[row] += np.random.default_rng(zlib.crc32(word.encode())).standard_normal(64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def encode_letters(texts):
    """A worse encoder: only the first letter counts."""
    return encode_words([text[0] for text in texts])


def make_columns(n=80, seed=0):
    """Pairs of both labels from two sites in two years; positives share most of their words."""
    rng = np.random.default_rng(seed)
    columns = {name: [] for name in ("anchor", "positive", "label", "site", "split", "timestamp")}
    for i in range(n):
        words = [f"w{w}" for w in rng.integers(0, 60, 5)] + [f"item{i}"]
        other = [*words[: 2 + i % 3], f"x{rng.integers(0, 50)}"]
        if i % 7 == 3:
            other = [f"y{w}" for w in rng.integers(0, 60, 4)]
        columns["anchor"].append(" ".join(words))
        columns["positive"].append(" ".join(other))
        columns["label"].append(0 if i % 7 == 3 else 1)
        columns["site"].append("toys" if i % 2 else "books")
        columns["split"].append(("test", "test", "train")[i % 3])
        columns["timestamp"].append(f"202{i % 5}-01-01")
    return columns


@pytest.fixture
def table():
    return PairTable.from_columns(make_columns(), "made-up")


@pytest.fixture
def words():
    return encode_words


@pytest.fixture
def letters():
    return encode_letters
