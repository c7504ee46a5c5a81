"""Tiny random encoders whose words have several pieces, and texts that use them."""

from __future__ import annotations

import importlib

import numpy as np
import torch

WHOLE = ["usb", "dock", "cable", "red", "how", "fast", "café", "the", "marker", "don"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789é'.,-"


def module(name):
    """A module class of sentence-transformers, which moved in 5.4."""
    for home in ("base.modules", "sentence_transformer.modules", "models"):
        try:
            return getattr(importlib.import_module(f"sentence_transformers.{home}"), name)
        except (ImportError, AttributeError):
            continue
    raise ImportError(name)


def tokenizer(mask=True):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(["[MASK]"] if mask else [])]
    letters = [form for letter in LETTERS for form in (letter, f"##{letter}")]
    vocabulary = {token: row for row, token in enumerate([*special, *letters, *WHOLE])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.add_special_tokens(special)
    return made


def bert(folder, mask=True, length=16):
    """A random two-layer BERT that reads at most ``length`` tokens."""
    from sentence_transformers import SentenceTransformer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    names = ("pad", "unk", "cls", "sep", *(["mask"] if mask else []))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(mask), **{f"{name}_token": f"[{name.upper()}]" for name in names}
    )
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(fast),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    BertModel(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    transformer = module("Transformer")(str(folder), max_seq_length=length)
    pooled = [transformer, module("Pooling")(32, "mean"), module("Normalize")()]
    return SentenceTransformer(modules=pooled, device="cpu")


def static(seed=0):
    """A random bag of 16-wide embeddings."""
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(seed)
    return SentenceTransformer(
        modules=[module("StaticEmbedding")(tokenizer(), embedding_dim=16)], device="cpu"
    )


def count_letters(texts):
    """A function of texts: how often each letter stands there."""
    return np.array([[text.count(c) for c in "abcdefghijklmnopqrstuvwxyz ["] for text in texts], np.float32)
