"""What the tests' encoders have in common: a random BERT of two layers, a folder's ``leanmatch.json``."""

from __future__ import annotations

import importlib

SPECIAL = ("pad", "unk", "cls", "sep", "mask")
PROVENANCE = {
    "format": "leanmatch-matcher",
    "format_version": 1,
    "leanmatch_version": "0.1.0",
    "created": "2026-01-01T00:00:00+00:00",
    "base": None,
    "data": {},
    "split": {},
    "options": {},
    "metrics": {},
    "parity": {"min_cosine": 1.0, "texts": 3},
    "weights_sha256": "00",
    "written_with": {},
    "layout_notes": [],
}
"""What a folder of leanmatch has to say of itself."""


def module(name):
    """A module class of sentence-transformers, which moved in 5.4."""
    for home in ("base.modules", "sentence_transformer.modules", "models"):
        try:
            return getattr(importlib.import_module(f"sentence_transformers.{home}"), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(name)


def fast_tokenizer(made, *, kind="PreTrainedTokenizerFast", special=SPECIAL, **options):
    """A tokenizer of transformers around one of ``tokenizers``."""
    import transformers

    names = {f"{name}_token": f"[{name.upper()}]" for name in special}
    return getattr(transformers, kind)(tokenizer_object=made, **names, **options)


def tiny_bert(folder, tokenizer, *, length, seed=0, pooling="mean", before_normalize=(), **config):
    """A SentenceTransformer, 32 wide, that reads at most ``length`` tokens; saved in ``folder`` on the way.

    Args:
        tokenizer: of :func:`fast_tokenizer`.
        before_normalize: calls that make further modules.
        config: of ``BertConfig``.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    BertModel(BertConfig(vocab_size=len(tokenizer), **{**sizes, **config})).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    modules = [module("Transformer")(str(folder), max_seq_length=length), module("Pooling")(32, pooling)]
    modules += [make() for make in before_normalize]
    return SentenceTransformer(modules=[*modules, module("Normalize")()], device="cpu")
