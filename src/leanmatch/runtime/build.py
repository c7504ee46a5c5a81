"""Weights and configuration to the native encoder graph (csrc/encoder/encoder.h)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from leanmatch import native
from leanmatch.errors import ModelError
from leanmatch.factorization import (
    Dense,
    DenseSparse,
    Factors,
    IntMatrix,
    LowRank,
    MixedIntMatrix,
    QuantizedDenseSparse,
)
from leanmatch.models.architectures import Architecture
from leanmatch.runtime.architectures import MOST_TOKENS, Sizes, relative_bias, rotary_positions
from leanmatch.runtime.kernels.paths import UNKNOWN, Inputs
from leanmatch.runtime.weights import Floats, Weights, expect_vector

Layer: TypeAlias = list[tuple[int, Any, "Floats | None"]]
"""What a linear layer runs: (fewest tokens, packed layer, factors of its inputs), ascending."""

PackLayer: TypeAlias = Callable[[str, Factors, "Floats | None", Inputs], Layer]
"""Name, weight, bias and what is known of the inputs of a linear layer to what runs it."""

PackTable: TypeAlias = Callable[[Factors], Any]
"""An embedding matrix to the table that decodes its rows."""

ZEROS = {"gelu": 16, "gelu_tanh": 16, "silu": 24, "relu": 1}
"""Zero points of inputs that come from an activation: its least value is about that many of 255 steps below
zero where the largest is about 2.5."""


@dataclass(frozen=True)
class Knowledge:
    """What is known of a model when its graph is built.

    Attributes:
        max_tokens: length of the longest text, in tokens; it sizes relative attention biases and rotary
            positions.
        apart: keep dense q, k and v as three layers, and gates apart from what they multiply. In 8 bits each
            then balances its own columns against its inputs, which halves the error (1 - cosine of 9e-4
            against 5.6e-4 on MiniLM).
        ranges: least and largest value of each input of a layer ``(2, n)``, as measured before; empty: not
            measured.
    """

    max_tokens: int | None = None
    apart: bool = False
    ranges: Mapping[str, Floats] = field(default_factory=dict)


def make_table(factors: Factors) -> Any:
    """An embedding table that decodes a row when it is read, from any form of the matrix."""
    module = native.load()
    if isinstance(factors, Dense):
        return module.float_table(np.ascontiguousarray(factors.weight))
    if isinstance(factors, MixedIntMatrix):
        return make_table(factors.as_int8())
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


def build_transformer(
    weights: Weights,
    architecture: Architecture,
    sizes: Sizes,
    pack: PackLayer,
    level: str,
    known: Knowledge | None = None,
    table: PackTable = make_table,
) -> dict[str, Any]:
    """The fields of ``_native.Encoder`` for a transformer; pooling and heads are still empty.

    Args:
        weights: the model's weights.
        architecture: names.
        sizes: sizes.
        pack: packs one linear layer.
        level: instruction-set level of the kernels beside the linear layers.
        known: what is known of the model beside its weights.
        table: packs the word embeddings.

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
    longest = MOST_TOKENS if known.max_tokens is None else min(max(known.max_tokens, 1), MOST_TOKENS)
    if positions is not None:
        longest = min(longest, positions.shape[0])
    bias = None
    if architecture.relative_bias is not None:
        biases = weights.matrix(architecture.relative_bias).dense()
        if biases.shape[1] != sizes.heads:
            raise ModelError(
                f"{architecture.relative_bias} is for {biases.shape[1]} heads, not {sizes.heads}",
                remedy="the folder is damaged: save or copy it again",
            )
        bias = relative_bias(biases, longest, most=sizes.farthest)
    thetas = _distinct(sizes)
    norm, end = architecture.embedding_norm, architecture.final_norm
    return {
        "level": level,
        "words": table(words),
        "positions": positions,
        "token_type": _token_type(weights, architecture, embedded) if positions is None else None,
        "pad_id": sizes.pad_id,
        "embedding_norm": None if norm is None else _norm(weights, architecture, sizes, norm, embedded),
        "projection": projection,
        "blocks": blocks,
        "order": list(sizes.order),
        "width": sizes.width,
        "heads": sizes.heads,
        "key_heads": sizes.key_heads,
        "head_width": sizes.head_width,
        "scale": 1 / math.sqrt(sizes.head_width) if architecture.scaled else 1.0,
        "inner": sizes.inner,
        "activation": sizes.activation,
        "gated": sizes.gated,
        "pre_norm": architecture.pre_norm,
        "final_norm": None if end is None else _norm(weights, architecture, sizes, end),
        "relative_bias": bias,
        "rotary": [rotary_positions(theta, sizes.head_width, longest) for theta in thetas],
    }


def _distinct(sizes: Sizes) -> list[float]:
    """The different bases of rotary positions."""
    return list(dict.fromkeys(theta for theta in sizes.thetas if theta is not None))


def split_ranges(measured: Floats, architecture: Architecture, sizes: Sizes) -> dict[str, Floats]:
    """``Encoder.input_ranges`` by layer name; of layers that share an input, under the first one's."""
    names, ranges = architecture.names, {}
    modules = names.attention_inputs[0], names.out, names.feed_forward_inputs[0], names.down
    for index in range(measured.shape[1]):
        parts = np.split(measured[:, index], np.cumsum(sizes.inputs[:3]), axis=1)
        for name, part in zip(modules, parts, strict=True):
            ranges[architecture.block.format(i=index) + name] = part
    return ranges


def range_shapes(architecture: Architecture, sizes: Sizes) -> dict[str, tuple[int, int]]:
    """The shapes of the arrays that :func:`split_ranges` returns."""
    nothing = np.zeros((2, sizes.blocks, sum(sizes.inputs)), np.float32)
    return {name: (2, part.shape[1]) for name, part in split_ranges(nothing, architecture, sizes).items()}


def build_static(words: Factors, level: str, table: PackTable = make_table) -> dict[str, Any]:
    """The fields of ``_native.Encoder`` for a static embedding: a table and the mean."""
    return {"level": level, "words": table(words), "width": words.shape[1], "blocks": [], "order": []}


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
    attention_inputs = [prefix + name for name in names.attention_inputs]
    feed_forward_inputs = [prefix + name for name in names.feed_forward_inputs]
    out, down = prefix + names.out, prefix + names.down
    attention_norm = feed_forward_norm = None
    if index > 0 or not architecture.bare_start:
        attention_norm = _norm(weights, architecture, sizes, prefix + names.attention_norm)
    feed_forward_norm = _norm(weights, architecture, sizes, prefix + names.feed_forward_norm)
    before: str | None = architecture.embedding_norm
    if architecture.pre_norm and attention_norm is not None:
        before = prefix + names.attention_norm
    elif index > 0 and sizes.order == tuple(range(sizes.blocks)):
        before = architecture.block.format(i=index - 1) + names.feed_forward_norm

    def seen(name: str, guess: Inputs) -> Inputs:
        ends = knowledge.ranges.get(name)
        if ends is None:
            return guess
        return replace(guess, ranges=np.abs(ends).max(axis=0), middle=ends.mean(axis=0), measured=True)

    guess = Inputs(None if before is None else _range(weights, before, sizes))
    activated = UNKNOWN if sizes.gated else Inputs(zero=ZEROS.get(sizes.activation, 128))
    heads = [sizes.query_width, *[sizes.key_heads * sizes.head_width] * 2]
    halves = [sizes.inner] * (2 if sizes.gated else 1)
    read = feed_forward_norm if architecture.pre_norm else attention_norm
    assert read is not None, "post-norm families have both norms in each layer"
    layers = {
        "qkv": _beside(
            weights, attention_inputs, heads, pack, seen(attention_inputs[0], guess), knowledge.apart
        ),
        "out": _linear(weights, out, pack, seen(out, UNKNOWN)),
        "up": _beside(
            weights,
            feed_forward_inputs,
            halves,
            pack,
            seen(feed_forward_inputs[0], Inputs(_norm_range(*read[:2]))),
            knowledge.apart,
            turned_over=architecture.activated_last,
        ),
        "down": _linear(weights, down, pack, seen(down, activated)),
    }
    theta = sizes.thetas[index]
    return layers | {
        "attention_norm": attention_norm,
        "feed_forward_norm": feed_forward_norm,
        "rotary": None if theta is None else _distinct(sizes).index(theta),
        "window": sizes.windows[index],
    }


def _range(weights: Weights, module: str, sizes: Sizes) -> Floats | None:
    """The range of a norm's outputs; None where they are projected or layers share weights."""
    gamma, beta = weights.vector(f"{module}.weight"), weights.vector(f"{module}.bias")
    shared = len(set(sizes.order)) < len(sizes.order)
    if shared or gamma is None or gamma.shape != (sizes.width,):
        return None
    return _norm_range(gamma, beta)


def _norm_range(gamma: Floats, beta: Floats | None) -> Floats:
    """Approximate largest magnitude of each output of a norm: ``|beta| + 4 |gamma|``."""
    reach: Floats = 4 * np.abs(gamma)
    return reach if beta is None else np.abs(beta) + reach


def _beside(
    weights: Weights,
    modules: list[str],
    lengths: list[int],
    pack: PackLayer,
    inputs: Inputs,
    apart: bool,
    *,
    turned_over: bool = False,
) -> list[Layer]:
    """Layers that read the same input as one layer where their forms allow it, else as they are.

    Args:
        weights: the model's weights.
        modules: one module for each of ``lengths``, or one for all.
        lengths: outputs of each part.
        pack: packs one linear layer.
        inputs: what is known of the input.
        apart: parts that are dense stay, or become, layers of their own.
        turned_over: the last part comes first in a module that holds all.
    """
    parts = [weights.matrix(module) for module in modules]
    biases = [_bias(weights, module, part.shape[0]) for module, part in zip(modules, parts, strict=True)]
    name = modules[0]
    if len(modules) == 1 and len(lengths) > 1:
        if parts[0].shape[0] != sum(lengths):
            raise ModelError(
                f"{name}: weights should have {sum(lengths)} outputs (found {parts[0].shape[0]})",
                remedy="the folder is damaged: save or copy it again",
            )
        if turned_over or (apart and isinstance(parts[0], Dense)):
            parts, biases = _split(parts[0], biases[0], lengths[::-1] if turned_over else lengths)
            modules = [f"{name}[{number}]" for number in range(len(parts))]
            if turned_over:
                parts, biases = parts[::-1], biases[::-1]
    stacked = None if apart and isinstance(parts[0], Dense) else stack(parts)
    if stacked is None:
        return [pack(*layer, inputs) for layer in zip(modules, parts, biases, strict=True)]
    bias = _joined(biases, [part.shape[0] for part in parts])
    return [
        pack("+".join([name, *(other.rpartition(".")[2] for other in modules[1:])]), stacked, bias, inputs)
    ]


def _split(
    factors: Factors, bias: Floats | None, lengths: list[int]
) -> tuple[list[Factors], list[Floats | None]]:
    """The rows of a weight and its bias in parts, dense."""
    cuts = np.cumsum(lengths)[:-1]
    parts: list[Factors] = [Dense(np.ascontiguousarray(part)) for part in np.split(factors.dense(), cuts)]
    return parts, [None] * len(parts) if bias is None else list(np.split(bias, cuts))


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


def _norm(
    weights: Weights, architecture: Architecture, sizes: Sizes, module: str, width: int | None = None
) -> tuple[Floats, Floats | None, float]:
    """Weight, bias and epsilon of a norm; ModernBERT's LayerNorms have no bias, and zeros stand for it."""
    width = sizes.width if width is None else width
    gamma = expect_vector(weights, f"{module}.weight", width)
    if architecture.root_mean_square:
        return gamma, None, sizes.eps
    if architecture.bare_start and not weights.has(f"{module}.bias"):
        return gamma, np.zeros(width, np.float32), sizes.eps
    return gamma, expect_vector(weights, f"{module}.bias", width), sizes.eps


def _token_type(weights: Weights, architecture: Architecture, width: int) -> Floats | None:
    """The embedding of token type 0, which every token of a text has; None where there is none."""
    if architecture.types is None or not weights.has(architecture.types):
        return None
    types = weights.matrix(architecture.types).dense()
    if types.shape[1] != width:
        raise ModelError(
            f"{architecture.types} has {types.shape[1]} columns, the words have {width}",
            remedy="the folder is damaged: save or copy it again",
        )
    return np.ascontiguousarray(types[0], dtype=np.float32)


def _positions(weights: Weights, architecture: Architecture, width: int) -> Floats | None:
    """Position embeddings with those of token type 0 added: a text is always type 0. None without a table."""
    if architecture.positions is None:
        return None
    positions = weights.matrix(architecture.positions).dense()
    if positions.shape[1] != width:
        raise ModelError(f"{architecture.positions} has {positions.shape[1]} columns, the words have {width}")
    token_type = _token_type(weights, architecture, width)
    if token_type is not None:
        positions = positions + token_type
    return np.ascontiguousarray(positions, dtype=np.float32)
