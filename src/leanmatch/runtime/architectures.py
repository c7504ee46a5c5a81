"""What the native runtime reads of a transformer's ``config.json``: sizes, activation, positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from leanmatch.errors import ModelError
from leanmatch.models.architectures import ARCHITECTURES, Architecture

ACTIVATIONS: Mapping[str, str] = MappingProxyType(
    {
        "gelu": "gelu",
        "gelu_python": "gelu",
        "gelu_new": "gelu_tanh",
        "gelu_pytorch_tanh": "gelu_tanh",
        "gelu_fast": "gelu_tanh",
        "relu": "relu",
        "silu": "silu",
        "swish": "silu",
        "tanh": "tanh",
    }
)
"""Names in ``config.json`` to names in csrc/encoder/ops/ops.h."""


MOST_LAYERS = 1024
MOST_HEADS = 1024
"""Nor is a head wider."""
MOST_SIZE = 1 << 24
"""No width, inner size or padding id is larger."""
MOST_TOKENS = 1 << 15
"""Longest text of a model without a table of positions; longer ones are cut."""

_REMEDY = "the folder is damaged: save or copy it again"

NATIVE = tuple(ARCHITECTURES)
"""Model types that the runtime runs."""


class UnsupportedError(ModelError):
    """A model that the native runtime has no code for; sentence-transformers may run it."""


@dataclass(frozen=True)
class Sizes:
    """What the graph needs of ``config.json``.

    Attributes:
        width, inner: of a token between layers, and inside a feed-forward part.
        heads, head_width, key_heads: heads of queries, their width, and heads of keys and values.
        blocks, order: how many layers have weights of their own, and which runs when.
        activation: a name in csrc/encoder/ops/ops.h.
        eps: of the norms.
        pad_id: the padding id where positions count from it.
        gated: the feed-forward parts have gates.
        thetas: base of each block's rotary positions; None: it has none.
        windows: tokens from a query to the farthest key that it sees, a block; None: the whole text.
        farthest: distance from which relative biases are all the same.
    """

    width: int
    heads: int
    inner: int
    blocks: int
    order: tuple[int, ...]
    activation: str
    eps: float
    pad_id: int | None
    head_width: int
    key_heads: int
    gated: bool
    thetas: tuple[float | None, ...]
    windows: tuple[int | None, ...]
    farthest: int = 128

    @property
    def query_width(self) -> int:
        """All heads beside one another."""
        return self.heads * self.head_width

    @property
    def inputs(self) -> tuple[int, int, int, int]:
        """Inputs of a block's layers: queries, keys and values; out; up; down."""
        return self.width, self.query_width, self.width, self.inner


def read_sizes(config: Mapping[str, Any]) -> tuple[Architecture, Sizes]:
    """The architecture and sizes of a ``config.json``.

    Raises:
        UnsupportedError: another model type, or an option that the graph does not have.
        ModelError: sizes that are missing or no positive whole numbers.
    """
    model_type = config.get("model_type")
    architecture = ARCHITECTURES.get(str(model_type))
    if architecture is None:
        raise UnsupportedError(
            f"the native runtime does not run the model type {model_type!r}",
            remedy=f"it runs {', '.join(NATIVE)} and static embeddings",
        )
    for key, plain in (
        ("position_embedding_type", "absolute"),
        ("is_decoder", False),
        ("inner_group_num", 1),
    ):
        if config.get(key, plain) not in (plain, None):
            raise UnsupportedError(
                f"the native runtime does not run {model_type} with {key} = {config[key]!r}"
            )
    width, heads, inner, layers = (_positive(config, key) for key in architecture.keys[:4])
    if layers > MOST_LAYERS:
        raise ModelError(
            f"config.json: {architecture.keys[3]} is {layers:,}, more than {MOST_LAYERS:,}",
            remedy=_REMEDY,
        )
    activation, gated = _activation(config, architecture)
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise UnsupportedError(
            f"the native runtime has no activation {activation!r}", remedy=f"it has {', '.join(ACTIVATIONS)}"
        )
    groups = _positive(config, "num_hidden_groups") if model_type == "albert" else layers
    pad_id = None
    if architecture.counts_from_pad:
        pad_id = architecture.pad_id if architecture.pad_id is not None else config.get("pad_token_id", 1)
        if isinstance(pad_id, bool) or not isinstance(pad_id, int) or not 0 <= pad_id < MOST_SIZE:
            raise ModelError(f"config.json: pad_token_id is {pad_id!r:.40}", remedy=_REMEDY)
    eps = config.get(architecture.eps_key, architecture.eps)
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 <= eps < 1:
        raise ModelError(f"config.json: {architecture.eps_key} is {eps!r:.40}", remedy=_REMEDY)
    head_width, key_heads = _heads(config, architecture, width, heads)
    windows = _windows(config, architecture, layers)
    thetas = _thetas(config, architecture, windows)
    if thetas[0] is not None and head_width % 2:
        raise ModelError(
            f"config.json: heads are {head_width} wide, and rotary positions need an even width",
            remedy=_REMEDY,
        )
    return architecture, Sizes(
        width=width,
        heads=heads,
        inner=inner,
        blocks=groups,
        order=tuple(int(i / (layers / groups)) for i in range(layers)),
        activation=ACTIVATIONS[activation],
        eps=float(eps),
        pad_id=pad_id,
        head_width=head_width,
        key_heads=key_heads,
        gated=gated,
        thetas=thetas[:groups],
        windows=windows[:groups],
        farthest=_optional(config, "relative_attention_max_distance", 128),
    )


def _activation(config: Mapping[str, Any], architecture: Architecture) -> tuple[Any, bool]:
    """The activation's name, and whether feed-forward parts are gated; T5 has both in one word."""
    name = config.get(architecture.keys[4], architecture.activation)
    if architecture.gated_names is None or not isinstance(name, str):
        return name, architecture.gated
    if name == "gated-gelu":
        return "gelu_new", True
    return name.removeprefix("gated-"), name.startswith("gated-")


def _heads(config: Mapping[str, Any], architecture: Architecture, width: int, heads: int) -> tuple[int, int]:
    """A head's width, and how many heads keys and values have."""
    if architecture.head_key is not None and config.get(architecture.head_key) is not None:
        head_width = _positive(config, architecture.head_key)
    elif width % heads:
        raise ModelError(
            f"config.json: the width {width} is no multiple of the number of heads, {heads}", remedy=_REMEDY
        )
    else:
        head_width = width // heads
    key_heads = heads
    if architecture.key_heads_key is not None:
        key_heads = _optional(config, architecture.key_heads_key, heads)
    if max(heads, head_width) > MOST_HEADS:
        raise ModelError(
            f"config.json: {heads} heads, {head_width} wide; more than {MOST_HEADS:,}",
            remedy=_REMEDY,
        )
    return head_width, key_heads


def _windows(config: Mapping[str, Any], architecture: Architecture, layers: int) -> tuple[int | None, ...]:
    """How far each layer sees; ModernBERT's ``local_attention`` counts both sides."""
    if architecture.local_theta is None:
        return (None,) * layers
    kinds = config.get("layer_types")
    if kinds is None:
        every = _optional(config, "global_attn_every_n_layers", 3)
        kinds = ["sliding_attention" if layer % every else "full_attention" for layer in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise ModelError(f"config.json: layer_types is no list of {layers}", remedy=_REMEDY)
    unknown = [kind for kind in kinds if kind not in ("sliding_attention", "full_attention")]
    if unknown:
        raise UnsupportedError(f"the native runtime has no attention {unknown[0]!r:.40}")
    reach = _optional(config, "local_attention", 128) // 2
    return tuple(reach if kind == "sliding_attention" else None for kind in kinds)


def _thetas(
    config: Mapping[str, Any], architecture: Architecture, windows: tuple[int | None, ...]
) -> tuple[float | None, ...]:
    """Bases of rotary positions, in the words of transformers 5 or of those before."""
    if architecture.theta is None:
        return (None,) * len(windows)
    given = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling")
    if architecture.local_theta is None:
        theta = _theta(given, scaling, config.get("rope_theta"), architecture.theta)
        return (theta,) * len(windows)
    wide = _theta(given.get("full_attention"), scaling, config.get("global_rope_theta"), architecture.theta)
    near = _theta(
        given.get("sliding_attention"), scaling, config.get("local_rope_theta"), architecture.local_theta
    )
    return tuple(wide if window is None else near for window in windows)


def _theta(given: Any, scaling: Any, plain: Any, default: float) -> float:
    given = given or {}
    if scaling is not None or given.get("rope_type", "default") != "default":
        raise UnsupportedError(f"the native runtime has no rotary positions with {scaling or given!r:.120}")
    if given.get("partial_rotary_factor", 1) != 1:
        raise UnsupportedError("the native runtime has no rotary positions on a part of a head")
    theta = given.get("rope_theta", default if plain is None else plain)
    if isinstance(theta, bool) or not isinstance(theta, int | float) or not 1 < theta < 1e12:
        raise ModelError(f"config.json: rope_theta is {theta!r:.40}", remedy=_REMEDY)
    return float(theta)


def rotary_positions(theta: float, head_width: int, rows: int) -> np.ndarray[Any, Any]:
    """Cosines and sines by which position ``p`` turns a head's halves, ``(rows, head_width)``.

    Row ``p`` is ``cos(p f_j)`` for ``j = 0 .. head_width / 2 - 1``, then ``sin(p f_j)``, with
    ``f_j = theta^(-2 j / head_width)``, rounded as transformers rounds them.

    >>> rotary_positions(100.0, 4, 2).round(3)
    array([[1.   , 1.   , 0.   , 0.   ],
           [0.54 , 0.995, 0.841, 0.1  ]], dtype=float32)
    """
    exponents = np.arange(0, head_width, 2, dtype=np.float32) / np.float32(head_width)
    frequencies = np.float32(1) / np.float32(theta) ** exponents
    angles = np.arange(rows, dtype=np.float32)[:, None] * frequencies.astype(np.float32)
    return np.ascontiguousarray(np.concatenate([np.cos(angles), np.sin(angles)], axis=1))


def relative_bias(table: np.ndarray[Any, Any], span: int, *, most: int = 128) -> np.ndarray[Any, Any]:
    """The attention bias by distance of MPNet and T5, ``(heads, 2 span - 1)``.

    Column ``span - 1 + key - query``. ``table (buckets, heads)``: half of the buckets for keys to the left,
    half for keys to the right; of each half the first half are single distances, the rest grow
    logarithmically up to ``most`` (T5's scheme).

    >>> relative_bias(np.arange(8, dtype=np.float32)[:, None], 3, most=8)
    array([[2., 1., 0., 5., 6.]], dtype=float32)

    Raises:
        ModelError: fewer than four buckets.
    """
    if table.shape[0] < 4:
        raise ModelError(f"{table.shape[0]} relative attention biases, not 4 or more", remedy=_REMEDY)
    half = table.shape[0] // 2
    exact = half // 2
    distance = np.arange(span - 1, -span, -1)  # query - key, for key - query ascending
    far = np.abs(distance)
    ratio = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact)) / np.float32(
        np.log(most / exact)
    )
    large = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int64), half - 1)
    bucket = np.where(far < exact, far, large) + np.where(distance < 0, half, 0)
    return np.ascontiguousarray(table[bucket].T, dtype=np.float32)


def _optional(config: Mapping[str, Any], key: str, default: int) -> int:
    return default if config.get(key) is None else _positive(config, key)


def _positive(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_SIZE:
        raise ModelError(
            f"config.json: {key} is {value!r:.40}, not a whole number from 1 to {MOST_SIZE:,}",
            remedy=_REMEDY,
        )
    return value
