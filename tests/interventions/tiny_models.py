"""Tiny random encoders whose words have several pieces, and texts that use them."""

from __future__ import annotations

import numpy as np
import torch
from tiny_bert import SPECIAL, fast_tokenizer, module, tiny_bert

WHOLE = ["usb", "dock", "cable", "red", "how", "fast", "café", "the", "marker", "don"]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789é'.,-"


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
    fast = fast_tokenizer(tokenizer(mask), special=SPECIAL if mask else SPECIAL[:-1])
    return tiny_bert(folder, fast, length=length, initializer_range=0.3)


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
