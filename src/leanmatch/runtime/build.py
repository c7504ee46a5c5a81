"""Weights and configuration to the native encoder graph (csrc/encoder/encoder.h)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from leanmatch import native
from leanmatch.errors import ModelError
from leanmatch.factorization import Dense, DenseSparse, Factors, IntMatrix, LowRank, QuantizedDenseSparse
from leanmatch.models.architectures import Architecture
from leanmatch.runtime.architectures import Sizes, relative_bias
from leanmatch.runtime.kernels.paths import UNKNOWN, Inputs
from leanmatch.runtime.weights import Floats, Weights, expect_vector

Layer: TypeAlias = list[tuple[int, Any, "Floats | None"]]
"""What a linear layer runs: (fewest tokens, packed layer, factors of its inputs), ascending."""

PackLayer: TypeAlias = Callable[[str, Factors, "Floats | None", Inputs], Layer]
"""Name, weight, bias and what is known of the inputs of a linear layer to what runs it."""

ZEROS = {"gelu": 16, "gelu_tanh": 16, "silu": 24, "relu": 1}
"""Zero points of inputs that come from an activation: its least value is about that many of 255 steps below
zero where the largest is about 2.5."""


@dataclass(frozen=True)
class Knowledge:
    """What is known of a model when its graph is built.

    Attributes:
        max_tokens: length of the longest text, in tokens; it sizes relative attention biases.
        apart: keep dense q, k and v as three layers. In 8 bits each then balances its own columns against its
            inputs, which halves the error (1 - cosine of 9e-4 against 5.6e-4 on MiniLM).
        ranges: least and largest value of each input of a layer ``(2, n)``, as measured before; empty: not
            measured.
    """

    max_tokens: int | None = None
    apart: bool = False
    ranges: Mapping[str, Floats] = field(default_factory=dict)


def build_transformer(
    weights: Weights,
    architecture: Architecture,
    sizes: Sizes,
    pack: PackLayer,
    level: str,
    known: Knowledge | None = None,
) -> dict[str, Any]:
    """The fields of ``_native.Encoder`` for a transformer; pooling and heads are still empty.

    Args:
        weights: the model's weights.
        architecture: names.
        sizes: sizes.
        pack: packs one linear layer.
        level: instruction-set level of the kernels beside the linear layers.
        known: what is known of the model beside its weights.

    Raises:
        ModelError: weights that are missing or do not fit.
    """
    known = known or Knowledge()
    words = weights.matrix(architecture.words)
    embedded = words.shape[1]
    projection = None
    if architecture.projection is not None and weights.has(architecture.projection):
        projection = _linear(weights, architecture.projection, pack)
    blocks = [_block(weights, architecture, sizes, index, pack, known) for index in range(sizes.blocks)]
    positions = _positions(weights, architecture, embedded)
    bias = None
    if architecture.relative_bias is not None:
        span = max(positions.shape[0] if known.max_tokens is None else known.max_tokens, 1)
        bias = relative_bias(weights.matrix(architecture.relative_bias).dense(), span)
    return {
        "level": level,
        "words": make_table(words),
        "positions": positions,
        "pad_id": sizes.pad_id,
        "embedding_norm": _norm(weights, architecture.embedding_norm, embedded, sizes.eps),
        "projection": projection,
        "blocks": blocks,
        "order": list(sizes.order),
        "width": sizes.width,
        "heads": sizes.heads,
        "inner": sizes.inner,
        "activation": sizes.activation,
        "relative_bias": bias,
    }


def split_ranges(measured: Floats, architecture: Architecture, sizes: Sizes) -> dict[str, Floats]:
    """``Encoder.input_ranges`` by layer name; q, k and v share an input, which has the query's name."""
    names, ranges = architecture.names, {}
    for index in range(measured.shape[1]):
        parts = np.split(measured[:, index], np.arange(1, 4) * sizes.width, axis=1)
        for name, part in zip((names.query, names.out, names.up, names.down), parts, strict=True):
            ranges[architecture.block.format(i=index) + name] = part
    return ranges


def range_shapes(architecture: Architecture, sizes: Sizes) -> dict[str, tuple[int, int]]:
    """The shapes of the arrays that :func:`split_ranges` returns."""
    columns = 3 * sizes.width + sizes.inner
    nothing = np.zeros((2, sizes.blocks, columns), np.float32)
    return {name: (2, part.shape[1]) for name, part in split_ranges(nothing, architecture, sizes).items()}


def build_static(words: Factors, level: str) -> dict[str, Any]:
    """The fields of ``_native.Encoder`` for a static embedding: a table and the mean."""
    return {"level": level, "words": make_table(words), "width": words.shape[1], "blocks": [], "order": []}


def make_table(factors: Factors) -> Any:
    """An embedding table that decodes a row when it is read, from any form of the matrix."""
    module = native.load()
    if isinstance(factors, Dense):
        return module.float_table(np.ascontiguousarray(factors.weight))
    if isinstance(factors, IntMatrix):
        return module.int8_table(np.ascontiguousarray(factors.q), np.ascontiguousarray(factors.scale))
    if isinstance(factors, LowRank):
        left = factors.left if isinstance(factors.left, IntMatrix) else Dense(factors.left)
        right = factors.right.dense() if isinstance(factors.right, IntMatrix) else factors.right
        return module.low_rank_table(make_table(left), np.ascontiguousarray(right))
    if isinstance(factors, QuantizedDenseSparse):
        atoms = factors.dequantize().atoms
        return module.sparse_table(
            np.ascontiguousarray(atoms, dtype=np.float32),
            np.ascontiguousarray(factors.indices, dtype=np.uint16),
            codes=np.ascontiguousarray(factors.values_q),
            code_scale=np.ascontiguousarray(factors.values_scale),
        )
    assert isinstance(factors, DenseSparse)
    return module.sparse_table(
        np.ascontiguousarray(factors.atoms, dtype=np.float32),
        np.ascontiguousarray(factors.indices, dtype=np.uint16),
        values=np.ascontiguousarray(factors.values),
    )


def _block(
    weights: Weights,
    architecture: Architecture,
    sizes: Sizes,
    index: int,
    pack: PackLayer,
    knowledge: Knowledge,
) -> dict[str, Any]:
    prefix = architecture.block.format(i=index)
    names = architecture.names
    before = architecture.embedding_norm
    if index > 0 and sizes.order == tuple(range(sizes.blocks)):
        before = architecture.block.format(i=index - 1) + names.output_norm
    attention_norm = _norm(weights, prefix + names.attention_norm, sizes.width, sizes.eps)
    inputs = [prefix + module for module in (names.query, names.key, names.value)]
    out, up, down = (prefix + module for module in (names.out, names.up, names.down))

    def seen(name: str, guess: Inputs) -> Inputs:
        ends = knowledge.ranges.get(name)
        if ends is None:
            return guess
        return replace(guess, ranges=np.abs(ends).max(axis=0), middle=ends.mean(axis=0), measured=True)

    guess = Inputs(_range(weights, before, sizes))
    return {
        "qkv": _attention_inputs(weights, inputs, pack, seen(inputs[0], guess), knowledge.apart),
        "out": _linear(weights, out, pack, seen(out, UNKNOWN)),
        "up": _linear(weights, up, pack, seen(up, Inputs(_norm_range(*attention_norm[:2])))),
        "down": _linear(weights, down, pack, seen(down, Inputs(zero=ZEROS.get(sizes.activation, 128)))),
        "attention_norm": attention_norm,
        "output_norm": _norm(weights, prefix + names.output_norm, sizes.width, sizes.eps),
    }


def _range(weights: Weights, module: str, sizes: Sizes) -> Floats | None:
    """The range of a LayerNorm's outputs; None where they are projected or layers share weights."""
    gamma, beta = weights.vector(f"{module}.weight"), weights.vector(f"{module}.bias")
    shared = len(set(sizes.order)) < len(sizes.order)
    if shared or gamma is None or beta is None or gamma.shape != (sizes.width,):
        return None
    return _norm_range(gamma, beta)


def _norm_range(gamma: Floats, beta: Floats) -> Floats:
    """Approximate largest magnitude of each output of a LayerNorm: ``|beta| + 4 |gamma|``."""
    reach: Floats = np.abs(beta) + 4 * np.abs(gamma)
    return reach


def _attention_inputs(
    weights: Weights, modules: list[str], pack: PackLayer, inputs: Inputs, apart: bool
) -> list[Layer]:
    """q, k and v as one layer where their forms allow it, else as three."""
    parts = [weights.matrix(module) for module in modules]
    biases = [_bias(weights, module, part.shape[0]) for module, part in zip(modules, parts, strict=True)]
    stacked = None if apart and isinstance(parts[0], Dense) else stack(parts)
    if stacked is None:
        return [pack(*layer, inputs) for layer in zip(modules, parts, biases, strict=True)]
    bias = _joined(biases, [part.shape[0] for part in parts])
    return [pack(f"{modules[0]}+key+value", stacked, bias, inputs)]


def stack(parts: list[Factors]) -> Factors | None:
    """Stack matrices that read the same input into one; None where that would change a number.

    >>> stack([Dense(np.ones((2, 3), np.float32)), Dense(np.zeros((1, 3), np.float32))]).shape
    (3, 3)
    """
    if all(isinstance(part, Dense) for part in parts):
        return Dense(np.concatenate([part.weight for part in parts if isinstance(part, Dense)]))
    whole = [part for part in parts if isinstance(part, IntMatrix)]
    if len(whole) == len(parts) and len({(part.bits, part.group) for part in whole}) == 1:
        q = np.concatenate([part.q for part in whole])
        return IntMatrix(q, np.concatenate([part.scale for part in whole]), whole[0].bits)
    return _stack_sparse(parts)


def _stack_sparse(parts: list[Factors]) -> Factors | None:
    """Dense-sparse factors that share their atoms, as one."""
    coded = [part for part in parts if isinstance(part, QuantizedDenseSparse)]
    if len(coded) == len(parts):
        first = coded[0]
        same = all(_equal(first.atoms_q, part.atoms_q) for part in coded)
        same = same and all(_equal(first.atoms_scale, part.atoms_scale) for part in coded)
        same = same and len({(part.indices.shape[2], part.value_bits) for part in coded}) == 1
        if not same:
            return None
        return replace(
            first,
            indices=np.concatenate([part.indices for part in coded]),
            values_q=np.concatenate([part.values_q for part in coded]),
            values_scale=np.concatenate([part.values_scale for part in coded]),
        )
    plain = [part for part in parts if isinstance(part, DenseSparse)]
    if len(plain) < len(parts) or len({part.indices.shape[2] for part in plain}) > 1:
        return None
    if not all(_equal(plain[0].atoms, part.atoms) for part in plain):
        return None
    return replace(
        plain[0],
        indices=np.concatenate([part.indices for part in plain]),
        values=np.concatenate([part.values for part in plain]),
    )


def _equal(first: NDArray[Any], second: NDArray[Any]) -> bool:
    return first is second or (first.shape == second.shape and bool((first == second).all()))


def _linear(weights: Weights, module: str, pack: PackLayer, inputs: Inputs = UNKNOWN) -> Layer:
    factors = weights.matrix(module)
    return pack(module, factors, _bias(weights, module, factors.shape[0]), inputs)


def _bias(weights: Weights, module: str, length: int) -> Floats | None:
    return expect_vector(weights, f"{module}.bias", length) if weights.has(f"{module}.bias") else None


def _joined(biases: list[Floats | None], lengths: list[int]) -> Floats | None:
    if all(bias is None for bias in biases):
        return None
    filled = [
        np.zeros(length, np.float32) if bias is None else bias
        for bias, length in zip(biases, lengths, strict=True)
    ]
    return np.concatenate(filled)


def _norm(weights: Weights, module: str, width: int, eps: float) -> tuple[Floats, Floats, float]:
    return (
        expect_vector(weights, f"{module}.weight", width),
        expect_vector(weights, f"{module}.bias", width),
        eps,
    )


def _positions(weights: Weights, architecture: Architecture, width: int) -> Floats:
    """Position embeddings with those of token type 0 added: a text is always type 0."""
    assert architecture.positions is not None, "every native architecture has a table of positions"
    positions = weights.matrix(architecture.positions).dense()
    if positions.shape[1] != width:
        raise ModelError(f"{architecture.positions} has {positions.shape[1]} columns, the words have {width}")
    if architecture.types is not None and weights.has(architecture.types):
        positions = positions + weights.matrix(architecture.types).dense()[0]
    return np.ascontiguousarray(positions, dtype=np.float32)
