"""The transformer encoders that leanmatch knows: what their modules and their sizes are called.

The native runtime reads weights by these names, and compression finds the layers by them. Those that run
natively are post-norm encoders of one shape (csrc/encoder/encoder.h); they differ in names, in how positions
are counted, and in whether layers share weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class BlockNames:
    """Module names inside one layer."""

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    out: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    down: str = "output.dense"
    output_norm: str = "output.LayerNorm"

    @property
    def linear(self) -> tuple[str, ...]:
        """The linear layers."""
        return self.query, self.key, self.value, self.out, self.up, self.down


@dataclass(frozen=True)
class Architecture:
    """One family of encoders.

    Attributes:
        block: prefix of layer ``i``'s modules; ``{i}`` is filled in.
        names: module names below that prefix.
        types: the token type table, None where there is none.
        projection: linear layer between embeddings and layers, None where there is none.
        counts_from_pad: positions start at the padding id plus one and pass over padding ids (RoBERTa).
        pad_id: the padding id where the family fixes it, None to read it from ``config.json``.
        relative_bias: table of T5-style relative attention biases, None where there is none.
        keys: names of the five sizes in ``config.json``: width, heads, inner, layers, activation.
        eps: LayerNorm's epsilon where the configuration has none.
        streams: the modules whose inputs are the residual stream that the attention's and the feed-forward
            part's outputs are added to; None where they are ``query`` and ``up`` (post-norm).
        words, positions, embedding_norm: the embeddings' modules; no positions where they are no table.
        runs_natively: the native runtime has code for it; any can be compressed.
    """

    block: str = "encoder.layer.{i}."
    names: BlockNames = field(default_factory=BlockNames)
    types: str | None = "embeddings.token_type_embeddings"
    projection: str | None = None
    counts_from_pad: bool = False
    pad_id: int | None = None
    relative_bias: str | None = None
    keys: tuple[str, str, str, str, str] = (
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "num_hidden_layers",
        "hidden_act",
    )
    eps: float = 1e-12
    streams: tuple[str, str] | None = None

    words: str = "embeddings.word_embeddings"
    positions: str | None = "embeddings.position_embeddings"
    embedding_norm: str = "embeddings.LayerNorm"
    runs_natively: bool = True

    @property
    def linear_layers(self) -> tuple[str, ...]:
        """Globs of the encoder's linear layers; ``*`` in front stands for whatever holds the encoder."""
        block = "*" + self.block.format(i="*")
        return tuple(block + name for name in self.names.linear)

    @property
    def attention(self) -> tuple[str, tuple[str, ...]]:
        """Glob of the module that holds Q, K and V, and their names in it."""
        parent, _, query = self.names.query.rpartition(".")
        names = (query, self.names.key.rpartition(".")[2], self.names.value.rpartition(".")[2])
        return "*" + self.block.format(i="*") + parent, names


_ROBERTA = Architecture(counts_from_pad=True)

ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "bert": Architecture(),
        "electra": Architecture(projection="embeddings_project"),
        "roberta": _ROBERTA,
        "xlm-roberta": _ROBERTA,
        "camembert": _ROBERTA,
        "mpnet": Architecture(
            counts_from_pad=True,
            pad_id=1,
            types=None,
            relative_bias="encoder.relative_attention_bias",
            names=BlockNames(
                query="attention.attn.q",
                key="attention.attn.k",
                value="attention.attn.v",
                out="attention.attn.o",
                attention_norm="attention.LayerNorm",
            ),
        ),
        "distilbert": Architecture(
            block="transformer.layer.{i}.",
            types=None,
            names=BlockNames(
                query="attention.q_lin",
                key="attention.k_lin",
                value="attention.v_lin",
                out="attention.out_lin",
                attention_norm="sa_layer_norm",
                up="ffn.lin1",
                down="ffn.lin2",
                output_norm="output_layer_norm",
            ),
            keys=("dim", "n_heads", "hidden_dim", "n_layers", "activation"),
        ),
        "albert": Architecture(
            block="encoder.albert_layer_groups.{i}.albert_layers.0.",
            projection="encoder.embedding_hidden_mapping_in",
            names=BlockNames(
                query="attention.query",
                key="attention.key",
                value="attention.value",
                out="attention.dense",
                attention_norm="attention.LayerNorm",
                up="ffn",
                down="ffn_output",
                output_norm="full_layer_layer_norm",
            ),
        ),
        "t5": Architecture(
            block="encoder.block.{i}.",
            words="shared",
            positions=None,
            runs_natively=False,
            streams=("layer.0.layer_norm", "layer.1.layer_norm"),
            keys=("d_model", "num_heads", "d_ff", "num_layers", "dense_act_fn"),
            names=BlockNames(
                query="layer.0.SelfAttention.q",
                key="layer.0.SelfAttention.k",
                value="layer.0.SelfAttention.v",
                out="layer.0.SelfAttention.o",
                up="layer.1.DenseReluDense.wi*",
                down="layer.1.DenseReluDense.wo",
            ),
        ),
    }
)
"""``model_type`` of ``config.json`` to how it is built."""
