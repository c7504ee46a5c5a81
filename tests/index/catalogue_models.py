"""A deterministic encoder that counts its work, and items for it."""

from __future__ import annotations

import hashlib

import numpy as np

from leanmatch.index import Item


class HashEncoder:
    """Texts to unit vectors drawn from their hash: no model, no order, equal texts equal vectors."""

    def __init__(self, dimension=8, name="hash-1"):
        self.dimension, self.name = dimension, name
        self.fingerprint = hashlib.sha256(f"{name} {dimension}".encode()).hexdigest()
        self.encoded = []

    def __call__(self, texts):
        self.encoded.extend(texts)
        rows = []
        for text in texts:
            seed = int.from_bytes(hashlib.sha256(f"{self.name}\0{text}".encode()).digest()[:8], "big")
            rows.append(np.random.default_rng(seed).normal(size=self.dimension))
        vectors = np.array(rows, dtype=np.float32).reshape(len(texts), self.dimension)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    encode = __call__


class WordEncoder(HashEncoder):
    """The normalized sum of vectors of words: texts that share words are near each other."""

    def __call__(self, texts):
        rows = [super(WordEncoder, self).__call__(text.split()).sum(axis=0) for text in texts]
        self.encoded.append(len(texts))
        rows = np.array(rows, dtype=np.float32).reshape(len(texts), self.dimension)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)

    encode = __call__


def items_of_shop(count, start=0):
    """Items with a category, a price that some lack, and a flag."""
    return [
        Item(
            f"i{n}",
            f"thing number {n}",
            {
                "category": ("Toys", "Tools", "Books")[n % 3],
                "price": None if n % 7 == 0 else n / 2,
                "stock": n % 2 == 0,
                "code": f"0{n}",
            },
        )
        for n in range(start, start + count)
    ]


def state_of(catalogue):
    """Everything that a reader can see of a catalogue, as plain values."""
    return {
        name: (catalogue.text(row), catalogue.metadata(row), catalogue.vectors([row]).tobytes())
        for row, name in enumerate(catalogue.ids)
    }
