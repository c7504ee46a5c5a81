"""Tiny models with compressed layers of every form, for tests of the artifact and its exports."""

from __future__ import annotations

import copy

import torch

from leanmatch.compression import (
    CompressionSpec,
    DenseSparseSpec,
    LowRankSpec,
    PruningSpec,
    RoundingSpec,
    Rule,
    Stack,
    factorize,
    finalize,
)

SMALL = {"block": 8, "atoms": 12, "nonzeros": 3, "weighting": "none"}

SPEC = CompressionSpec(
    (
        Rule("*layer.0.attention.self.*", DenseSparseSpec(**SMALL)),
        Rule("*layer.0.attention.output.dense", DenseSparseSpec(**SMALL, value_bits=6)),
        Rule("*layer.0.intermediate.dense", DenseSparseSpec(**SMALL, value_bits=4)),
        Rule("*layer.0.output.dense", DenseSparseSpec(**SMALL, value_bits=None)),
        Rule("*layer.1.attention.self.query", LowRankSpec(rank=5)),
        Rule("*layer.1.attention.self.key", LowRankSpec(rank=5, value_bits=None)),
        Rule("*layer.1.attention.self.value", RoundingSpec(bits=4, group=16)),
        Rule("*layer.1.attention.output.dense", RoundingSpec(bits=8)),
        Rule("*layer.1.intermediate.dense", PruningSpec(block=4, nonzeros=2, weighting="none")),
        Rule("*layer.1.output.dense", PruningSpec(block=4, nonzeros=2, value_bits=None)),
        Rule("*word_embeddings", RoundingSpec(bits=4, group=8)),
        Rule("*position_embeddings", DenseSparseSpec(**SMALL)),
    ),
    (Stack("*layer.0.attention.self", ("query", "key", "value")),),
)
"""Every method, in integers and floats, with a stack."""


def compressed(model, spec=SPEC, *, grow=True):
    """A compressed copy; ``grow`` first makes small random weights large enough to matter."""
    made = copy.deepcopy(model)
    with torch.no_grad():
        for name, value in made.named_parameters():
            if grow and value.ndim == 2:
                value.mul_(8.0 if "embeddings" not in name else 3.0)
    factorize(made, spec, iterations=2)
    return finalize(made)
