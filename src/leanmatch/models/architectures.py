"""The transformer encoders that leanmatch knows: what their modules and their sizes are called.

The native runtime reads weights by these names, and compression finds the layers by them. The runtime has one
graph for all (csrc/encoder/encoder.h). Families differ in names, in where norms stand, in how positions are
given (a table, rotations, biases by distance), in gates, and in whether layers share weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType


@dataclass(frozen=True)
class BlockNames:
    """Module names inside one layer.

    Attributes:
        query, key, value: the inputs of attention, where they are three layers.
        qkv: one layer with the outputs of the three; None where there are three.
        out: the output of attention.
        up: the input of the feed-forward part. Where it is gated and ``gate`` is None, it has both halves.
        gate: the layer whose activated outputs multiply ``up``'s; None where there is none of its own.
        down: the output of the feed-forward part.
        attention_norm, feed_forward_norm: after these parts, or before them in a pre-norm family.
    """

    query: str = "attention.self.query"
    key: str = "attention.self.key"
    value: str = "attention.self.value"
    qkv: str | None = None
    out: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: str = "intermediate.dense"
    gate: str | None = None
    down: str = "output.dense"
    feed_forward_norm: str = "output.LayerNorm"

    @property
    def attention_inputs(self) -> tuple[str, ...]:
        """The layers that read what attention reads."""
        return (self.query, self.key, self.value) if self.qkv is None else (self.qkv,)

    @property
    def feed_forward_inputs(self) -> tuple[str, ...]:
        """The layers that read what the feed-forward part reads, the activated one first."""
        return (self.up,) if self.gate is None else (self.gate, self.up)

    @property
    def linear(self) -> tuple[str, ...]:
        """The linear layers."""
        return *self.attention_inputs, self.out, *self.feed_forward_inputs, self.down


@dataclass(frozen=True)
class Architecture:
    """One family of encoders.

    Attributes:
        block: prefix of layer ``i``'s modules; ``{i}`` is filled in.
        names: module names below that prefix.
        gated_names: names of the members whose configuration asks for gates, where only some have them (T5).
        stored: names in checkpoints, where transformers gives modules others when it loads them.
        gated: the feed-forward part multiplies activated outputs by others.
        activated_last: of a layer with both halves, the second is activated.
        pre_norm: norms stand before attention and feed-forward parts, not after the sums.
        bare_start: the first layer has no norm before attention.
        final_norm: the norm behind the last layer, None where there is none.
        root_mean_square: norms do not subtract the mean and have no bias.
        types: the token type table, None where there is none.
        projection: linear layer between embeddings and layers, None where there is none.
        counts_from_pad: positions start at the padding id plus one and pass over padding ids (RoBERTa).
        pad_id: the padding id where the family fixes it, None to read it from ``config.json``.
        relative_bias: table of T5-style relative attention biases, None where there is none.
        theta: base of rotary positions where ``config.json`` has none; None: no rotary positions.
        local_theta: the same of layers whose attention is limited to a window; None: all see the whole text.
        scaled: scores of attention are divided by the square root of a head's width.
        keys: names of the five sizes in ``config.json``: width, heads, inner, layers, activation.
        head_key, key_heads_key: a head's width, and the number of heads of keys and values; None where they
            follow from the five.
        activation: where the configuration has none.
        eps_key, eps: the norms' epsilon, and its value where the configuration has none.
        words, positions, embedding_norm: the embeddings' modules; no positions where they are no table, no
            norm where there is none.
        tied_words: another name of the same table, under which a checkpoint may have it alone.
    """

    block: str = "encoder.layer.{i}."
    names: BlockNames = field(default_factory=BlockNames)
    gated_names: BlockNames | None = None
    stored: Architecture | None = None
    gated: bool = False
    activated_last: bool = False
    pre_norm: bool = False
    bare_start: bool = False
    final_norm: str | None = None
    root_mean_square: bool = False
    types: str | None = "embeddings.token_type_embeddings"
    projection: str | None = None
    counts_from_pad: bool = False
    pad_id: int | None = None
    relative_bias: str | None = None
    theta: float | None = None
    local_theta: float | None = None
    scaled: bool = True
    keys: tuple[str, str, str, str, str] = (
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "num_hidden_layers",
        "hidden_act",
    )
    head_key: str | None = None
    key_heads_key: str | None = None
    activation: str = "gelu"
    eps_key: str = "layer_norm_eps"
    eps: float = 1e-12

    words: str = "embeddings.word_embeddings"
    tied_words: str | None = None
    positions: str | None = "embeddings.position_embeddings"
    embedding_norm: str | None = "embeddings.LayerNorm"

    @property
    def linear_layers(self) -> tuple[str, ...]:
        """Globs of the encoder's linear layers; ``*`` in front stands for whatever holds the encoder."""
        block = "*" + self.block.format(i="*")
        names = [*self.names.linear, *(self.gated_names.linear if self.gated_names else ())]
        return tuple(block + name for name in dict.fromkeys(names))

    @property
    def stacks(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Layers that read the same input and may share atoms: glob of the module that holds them, names."""
        block = "*" + self.block.format(i="*")
        variants = [self.names, *([self.gated_names] if self.gated_names else [])]
        groups = [
            group for names in variants for group in (names.attention_inputs, names.feed_forward_inputs)
        ]
        return tuple(
            (block + group[0].rpartition(".")[0], tuple(name.rpartition(".")[2] for name in group))
            for group in dict.fromkeys(groups)
            if len(group) > 1
        )

    @property
    def streams(self) -> tuple[str, str]:
        """The modules whose inputs attention's and the feed-forward part's outputs are added to."""
        names = self.names
        if self.pre_norm:
            return names.attention_norm, names.feed_forward_norm
        return names.attention_inputs[0], names.feed_forward_inputs[0]

    def as_found(self, has: Callable[[str], bool], *, gated: bool) -> Architecture:
        """The names that a model's weights have: as modules are called, or as checkpoints have them.

        Args:
            has: is there such a module?
            gated: whether the feed-forward parts have gates.
        """
        found = self
        if self.stored is not None and has(self.stored.block.format(i=0) + self.stored.names.out):
            found = self.stored
        if gated and found.gated_names is not None:
            found = replace(found, names=found.gated_names)
        if found.tied_words is not None and not has(found.words):
            found = replace(found, words=found.tied_words)
        return found


_ROBERTA = Architecture(counts_from_pad=True)

_LLAMA = BlockNames(
    query="self_attn.q_proj",
    key="self_attn.k_proj",
    value="self_attn.v_proj",
    out="self_attn.o_proj",
    attention_norm="post_attention_layernorm",
    gate="mlp.gate_proj",
    up="mlp.up_proj",
    down="mlp.down_proj",
    feed_forward_norm="post_mlp_layernorm",
)

_GTE = Architecture(
    block="layers.{i}.", names=_LLAMA, gated=True, positions=None, theta=160_000.0, head_key="head_dim"
)
_NOMIC = replace(_GTE, theta=1000.0, activation="silu")
_JINA = replace(
    _GTE,
    names=replace(_LLAMA, gate=None, up="mlp.fc1", down="mlp.fc2"),
    gated=False,
    theta=20_000.0,
    eps=1e-5,
)
_FLASH = BlockNames(
    qkv="attn.Wqkv",
    out="attn.out_proj",
    attention_norm="norm1",
    gate="mlp.fc12",
    up="mlp.fc11",
    down="mlp.fc2",
    feed_forward_norm="norm2",
)
"""Nomic's and Jina's checkpoints have the names of flash-attn's BERT."""

_T5_NAMES = BlockNames(
    query="layer.0.SelfAttention.q",
    key="layer.0.SelfAttention.k",
    value="layer.0.SelfAttention.v",
    out="layer.0.SelfAttention.o",
    attention_norm="layer.0.layer_norm",
    up="layer.1.DenseReluDense.wi",
    down="layer.1.DenseReluDense.wo",
    feed_forward_norm="layer.1.layer_norm",
)

_T5 = Architecture(
    block="encoder.block.{i}.",
    names=_T5_NAMES,
    gated_names=replace(_T5_NAMES, gate="layer.1.DenseReluDense.wi_0", up="layer.1.DenseReluDense.wi_1"),
    pre_norm=True,
    final_norm="encoder.final_layer_norm",
    root_mean_square=True,
    types=None,
    relative_bias="encoder.block.0.layer.0.SelfAttention.relative_attention_bias",
    scaled=False,
    keys=("d_model", "num_heads", "d_ff", "num_layers", "feed_forward_proj"),
    head_key="d_kv",
    activation="relu",
    eps_key="layer_norm_epsilon",
    eps=1e-6,
    words="shared",
    tied_words="encoder.embed_tokens",
    positions=None,
    embedding_norm=None,
)

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
                feed_forward_norm="output_layer_norm",
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
                feed_forward_norm="full_layer_layer_norm",
            ),
            activation="gelu_new",
        ),
        "modernbert": Architecture(
            block="layers.{i}.",
            names=BlockNames(
                qkv="attn.Wqkv",
                out="attn.Wo",
                attention_norm="attn_norm",
                up="mlp.Wi",
                down="mlp.Wo",
                feed_forward_norm="mlp_norm",
            ),
            gated=True,
            pre_norm=True,
            bare_start=True,
            final_norm="final_norm",
            types=None,
            theta=160_000.0,
            local_theta=10_000.0,
            keys=(
                "hidden_size",
                "num_attention_heads",
                "intermediate_size",
                "num_hidden_layers",
                "hidden_activation",
            ),
            eps_key="norm_eps",
            eps=1e-5,
            words="embeddings.tok_embeddings",
            positions=None,
            embedding_norm="embeddings.norm",
        ),
        "gte": replace(
            _GTE,
            stored=replace(
                _GTE,
                block="encoder.layer.{i}.",
                names=BlockNames(
                    qkv="attention.qkv_proj",
                    out="attention.o_proj",
                    attention_norm="attn_ln",
                    up="mlp.up_gate_proj",
                    down="mlp.down_proj",
                    feed_forward_norm="mlp_ln",
                ),
                activated_last=True,
            ),
        ),
        "nomic_bert": replace(
            _NOMIC,
            stored=replace(_NOMIC, block="encoder.layers.{i}.", names=_FLASH, embedding_norm="emb_ln"),
        ),
        "jina_embeddings_v3": replace(
            _JINA,
            stored=replace(
                _JINA,
                block="encoder.layers.{i}.",
                names=replace(_FLASH, qkv="mixer.Wqkv", out="mixer.out_proj", gate=None, up="mlp.fc1"),
                embedding_norm="emb_ln",
            ),
        ),
        "eurobert": Architecture(
            block="layers.{i}.",
            names=replace(
                _LLAMA, attention_norm="input_layernorm", feed_forward_norm="post_attention_layernorm"
            ),
            gated=True,
            pre_norm=True,
            final_norm="norm",
            root_mean_square=True,
            types=None,
            theta=10_000.0,
            head_key="head_dim",
            key_heads_key="num_key_value_heads",
            activation="silu",
            eps_key="rms_norm_eps",
            eps=1e-5,
            words="embed_tokens",
            positions=None,
            embedding_norm=None,
        ),
        "t5": _T5,
        "mt5": replace(_T5, activation="gated-gelu"),
    }
)
"""``model_type`` of ``config.json`` to how it is built."""
