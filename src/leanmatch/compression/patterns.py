"""The layers of each architecture that are compressed by default: its linear layers and embeddings.

Poolers and heads stay as they are, because they run once a text and hold few parameters. A rule of your own
can add them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from leanmatch.compression.layer_specs import DenseSparseSpec, LayerSpec
from leanmatch.compression.spec import CompressionSpec, Rule, Stack
from leanmatch.errors import ModelError


@dataclass(frozen=True)
class Architecture:
    """Globs over module names, ``*`` in front standing for whatever holds the encoder.

    Attributes:
        linear: the encoder's linear layers.
        words: the word embeddings.
        positions: other embeddings that are indexed by place, of the model's width.
        parent: what holds Q, K and V.
        stacked: Q, K and V in it.
    """

    linear: tuple[str, ...]
    words: str
    positions: tuple[str, ...]
    parent: str
    stacked: tuple[str, str, str]


_BERT = Architecture(
    ("*encoder.layer.*.attention.*", "*encoder.layer.*.intermediate.dense", "*encoder.layer.*.output.dense"),
    "*embeddings.word_embeddings",
    ("*embeddings.position_embeddings",),
    "*encoder.layer.*.attention.self",
    ("query", "key", "value"),
)
ARCHITECTURES: dict[str, Architecture] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "distilbert": Architecture(
        ("*transformer.layer.*.attention.*_lin", "*transformer.layer.*.ffn.lin?"),
        "*embeddings.word_embeddings",
        ("*embeddings.position_embeddings",),
        "*transformer.layer.*.attention",
        ("q_lin", "k_lin", "v_lin"),
    ),
    "albert": Architecture(
        (
            "*encoder.albert_layer_groups.*.attention.*",
            "*encoder.albert_layer_groups.*.ffn",
            "*encoder.albert_layer_groups.*.ffn_output",
        ),
        "*embeddings.word_embeddings",
        ("*embeddings.position_embeddings",),
        "*encoder.albert_layer_groups.*.attention",
        ("query", "key", "value"),
    ),
    "mpnet": Architecture(
        (
            "*encoder.layer.*.attention.*",
            "*encoder.layer.*.intermediate.dense",
            "*encoder.layer.*.output.dense",
        ),
        "*embeddings.word_embeddings",
        ("*embeddings.position_embeddings",),
        "*encoder.layer.*.attention.attn",
        ("q", "k", "v"),
    ),
    "t5": Architecture(
        ("*encoder.block.*.SelfAttention.[qkvo]", "*encoder.block.*.DenseReluDense.w*"),
        "*shared",
        (),
        "*encoder.block.*.SelfAttention",
        ("q", "k", "v"),
    ),
}
"""Model type, as a Hugging Face configuration names it, to its patterns."""


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
        stack: Q, K and V share their atoms (dense-sparse layers only).

    Raises:
        ModelError: an architecture without default patterns.
    """
    layer = layer or DenseSparseSpec()
    architecture = ARCHITECTURES[model_type(model)]
    rules = [Rule(pattern, layer) for pattern in architecture.linear]
    rules += [Rule(architecture.words, embeddings)] if embeddings else []
    rules += [Rule(pattern, positions) for pattern in architecture.positions] if positions else []
    stacks = (
        (Stack(architecture.parent, architecture.stacked),)
        if stack and isinstance(layer, DenseSparseSpec)
        else ()
    )
    return CompressionSpec(tuple(rules), stacks)
