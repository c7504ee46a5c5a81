"""The native runtime in float32 with the weights that the web runtime's 8-bit codes stand for."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from leanmatch import native
from leanmatch.factorization import Dense, LowRank, QuantizedDenseSparse
from leanmatch.formats.reader import model_folder
from leanmatch.runtime.build import make_table
from leanmatch.runtime.kernels.choice import Chooser
from leanmatch.runtime.kernels.paths import best_level, decoded, one_scale, prepared, quantize_rows, smoothing
from leanmatch.runtime.loading import load_with_ranges, open_model
from leanmatch.runtime.tokenization import pack


def runs_as_factors(factors):
    """Whether the web runtime multiplies by these codes without decoding them (csrc/linear/sparse.cpp)."""
    rows, blocks, nonzeros = factors.indices.shape
    _, atoms, width = factors.atoms_q.shape
    columns = blocks * width
    terms = rows * blocks * nonzeros + columns * atoms
    possible = width % 2 == 0 and width <= 512 and atoms <= 2048 and blocks * nonzeros <= 8192
    return possible and 2 * terms <= rows * columns


def rounded(factors, inputs):
    """A layer's weight as its 8-bit codes stand for it, by numpy."""
    factors = prepared(factors, "int8")
    if isinstance(factors, LowRank):
        left, right = (
            part if isinstance(part, np.ndarray) else one_scale(part).dense()
            for part in (factors.left, factors.right)
        )
        return left @ right
    if isinstance(factors, QuantizedDenseSparse) and runs_as_factors(factors):
        return np.ascontiguousarray(decoded(factors), np.float32)
    weight = decoded(factors) if isinstance(factors, QuantizedDenseSparse) else factors.dense()
    if type(factors).__name__ == "IntMatrix":
        return one_scale(factors).dense()
    column = np.float32(1)
    if inputs.ranges is not None and inputs.zero == 128:
        column = smoothing(weight, inputs.ranges)
    return np.ascontiguousarray(quantize_rows(weight * column).dense() / column, np.float32)


def reference_encoder(folder):
    """The native module's encoder with those weights."""
    _, ranges = load_with_ranges(folder, name="reference", precision="int8")
    level = best_level()
    chooser = Chooser("float32", level)
    with ExitStack() as opened:
        model = open_model(folder, opened)

        def layer(name, factors, bias, inputs):
            return chooser(name, Dense(rounded(factors, inputs)), bias, inputs)

        def table(factors):
            stock = isinstance(factors, Dense) and not model.compressed
            return make_table(quantize_rows(factors.dense()) if stock else factors)

        fields = model.transformer(layer, level, "int8", ranges, table) | model.ends(level)
    fields["rounds_attention"] = False
    return native.load().Encoder(fields)


class Reference:
    """It, with the parts of a native encoder that searches and explanations need."""

    def __init__(self, name, encoder):
        self.encodings, self.tokenizer = encoder.encodings, encoder.tokenizer
        self.prompts, self.roles_differ = encoder.prompts, encoder.roles_differ
        self._encoder = reference_encoder(model_folder(name))

    def encode_tokens(self, rows, *, threads=1, add_special_tokens=False):
        """Vectors of rows of ids."""
        assert not add_special_tokens
        ids, offsets = pack([list(row) for row in rows])
        return self._encoder.encode(ids, offsets, threads or 1)

    def encode(self, texts):
        """Vectors of unit length."""
        vectors = self.encode_tokens([encoding.ids for encoding in self.encodings(texts)])
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
