"""What the native runtime reads of a transformer's ``config.json``: sizes, activation, attention biases."""

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
MOST_SIZE = 1 << 24
"""No width, inner size or padding id is larger."""


NATIVE = tuple(name for name, architecture in ARCHITECTURES.items() if architecture.runs_natively)
"""Model types that the runtime runs."""


class UnsupportedError(ModelError):
    """A model that the native runtime has no code for; sentence-transformers may run it."""


@dataclass(frozen=True)
class Sizes:
    """What the graph needs of ``config.json``."""

    width: int
    heads: int
    inner: int
    blocks: int
    order: tuple[int, ...]
    activation: str
    eps: float
    pad_id: int | None


def read_sizes(config: Mapping[str, Any]) -> tuple[Architecture, Sizes]:
    """The architecture and sizes of a ``config.json``.

    Raises:
        UnsupportedError: another model type, or an option that the graph does not have.
        ModelError: sizes that are missing or no positive whole numbers.
    """
    model_type = config.get("model_type")
    architecture = ARCHITECTURES.get(str(model_type))
    if architecture is None or not architecture.runs_natively:
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
            remedy="the folder is damaged: save or copy it again",
        )
    activation = config.get(architecture.keys[4], "gelu_new" if model_type == "albert" else "gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise UnsupportedError(
            f"the native runtime has no activation {activation!r}", remedy=f"it has {', '.join(ACTIVATIONS)}"
        )
    groups = _positive(config, "num_hidden_groups") if model_type == "albert" else layers
    pad_id = None
    if architecture.counts_from_pad:
        pad_id = architecture.pad_id if architecture.pad_id is not None else config.get("pad_token_id", 1)
        if isinstance(pad_id, bool) or not isinstance(pad_id, int) or not 0 <= pad_id < MOST_SIZE:
            raise ModelError(f"config.json: pad_token_id is {pad_id!r:.40}", remedy="the folder is damaged")
    eps = config.get("layer_norm_eps", architecture.eps)
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 <= eps < 1:
        raise ModelError(f"config.json: layer_norm_eps is {eps!r:.40}", remedy="the folder is damaged")
    return architecture, Sizes(
        width=width,
        heads=heads,
        inner=inner,
        blocks=groups,
        order=tuple(int(i / (layers / groups)) for i in range(layers)),
        activation=ACTIVATIONS[activation],
        eps=float(eps),
        pad_id=pad_id,
    )


def relative_bias(table: np.ndarray[Any, Any], span: int, *, most: int = 128) -> np.ndarray[Any, Any]:
    """MPNet's attention bias by distance, ``(heads, 2 span - 1)``, column ``span - 1 + key - query``.

    ``table (buckets, heads)``: half of the buckets for keys to the left, half for keys to the right; of each
    half the first half are single distances, the rest grow logarithmically up to ``most`` (T5's scheme).

    >>> relative_bias(np.arange(8, dtype=np.float32)[:, None], 3, most=8)
    array([[2., 1., 0., 5., 6.]], dtype=float32)
    """
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


def _positive(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_SIZE:
        raise ModelError(
            f"config.json: {key} is {value!r:.40}, not a whole number from 1 to {MOST_SIZE:,}",
            remedy="the folder is damaged: save or copy it again",
        )
    return value
