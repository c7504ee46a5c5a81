"""The layers of each architecture that are compressed by default: its linear layers and embeddings.

Poolers and heads stay as they are, because they run once a text and hold few parameters. A rule of your own
can add them.
"""

from __future__ import annotations

from typing import Any

from leanmatch.compression.layer_specs import DenseSparseSpec, LayerSpec
from leanmatch.compression.spec import CompressionSpec, Rule, Stack
from leanmatch.errors import ModelError
from leanmatch.models.architectures import ARCHITECTURES


def model_type(model: Any) -> str:
    """The ``model_type`` of the Hugging Face encoder in a model or a SentenceTransformer.

    Raises:
        ModelError: there is none, or it has no default patterns.
    """
    for module in model.modules():
        kind = getattr(getattr(module, "config", None), "model_type", None)
        if kind in ARCHITECTURES:
            return str(kind)
        if kind is not None:
            raise ModelError(
                f"no default patterns for the architecture {kind!r}",
                remedy=f"give a CompressionSpec of your own; known: {', '.join(sorted(ARCHITECTURES))}",
            )
    raise ModelError(
        f"{type(model).__name__} holds no Hugging Face encoder",
        remedy="give a CompressionSpec with rules for its modules",
    )


def default_spec(
    model: Any,
    layer: LayerSpec | None = None,
    *,
    embeddings: LayerSpec | None = None,
    positions: LayerSpec | None = None,
    stack: bool = True,
) -> CompressionSpec:
    """Rules for a model of a known architecture.

    Args:
        model: a Hugging Face model or a SentenceTransformer.
        layer: how the encoder's linear layers are compressed; ``DenseSparseSpec()`` if left out.
        embeddings: how word embeddings are compressed; None leaves them.
        positions: how position embeddings are compressed; None leaves them.
        stack: Q, K and V share their atoms, and so do a gate and what it multiplies (dense-sparse layers
            only).

    Raises:
        ModelError: an architecture without default patterns.
    """
    layer = layer or DenseSparseSpec()
    architecture = ARCHITECTURES[model_type(model)]
    rules = [Rule(pattern, layer) for pattern in architecture.linear_layers]
    rules += [Rule(f"*{architecture.words}", embeddings)] if embeddings else []
    if positions and architecture.positions is not None:
        rules.append(Rule(f"*{architecture.positions}", positions))
    stacks = architecture.stacks if stack and isinstance(layer, DenseSparseSpec) else ()
    return CompressionSpec(tuple(rules), tuple(Stack(*group) for group in stacks))
