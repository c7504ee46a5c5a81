"""Tiny encoders with random weights and made-up pairs, for tests in this process and in killed ones."""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path

import torch

from leanmatch.data import PairTable
from leanmatch.training import RegularizerOptions, ScheduleOptions, TrainOptions

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # killed processes import this file, too
from tiny_bert import fast_tokenizer, module, tiny_bert

WORDS = [
    a + b
    for a, b in itertools.product(["ba", "ce", "di", "fo", "gu", "ha", "ki"], ["la", "me", "ni", "po", "ru"])
]
PIECES = ["##" + w[2:] for w in WORDS[:5]]


def tiny_tokenizer():
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *PIECES]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return tokenizer


def transformer_model(folder, dropout: float = 0.0, seed: int = 0):
    chances = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    fast = fast_tokenizer(tiny_tokenizer())
    return tiny_bert(folder, fast, length=32, seed=seed, initializer_range=0.2, **chances)


def static_model(seed: int = 0):
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(seed)
    return SentenceTransformer(
        modules=[module("StaticEmbedding")(tiny_tokenizer(), embedding_dim=16)], device="cpu"
    )


def tokenized(model, texts):
    """Feature dict of texts; the method has another name since sentence-transformers 5.4."""
    return (model.preprocess if hasattr(model, "preprocess") else model.tokenize)(texts)


def pair_lists(count: int = 96):
    """Pairs that share three words, of unequal lengths."""
    draw = random.Random(0)
    anchors, positives = [], []
    for _ in range(count):
        shared = draw.sample(WORDS, 3)
        anchors.append(" ".join(shared + draw.sample(WORDS, draw.randint(0, 6))))
        positives.append(" ".join(draw.sample(WORDS, draw.randint(0, 4)) + shared))
    return anchors, positives


def pairs():
    """The first 64 pairs as a table."""
    anchors, positives = pair_lists()
    return PairTable.from_columns({"anchor": anchors[:64], "positive": positives[:64]})


def many_pairs():
    """Enough of them for a shifted slice, a ``topic``: training rows, and validation rows."""
    anchors, positives = pair_lists(460)
    topics = [f"topic {i % 5}" for i in range(460)]
    table = PairTable.from_columns({"anchor": anchors, "positive": positives, "topic": topics})
    return table.take(range(400)), table.take(range(400, 460))


def automatic_options(**changes):
    """The default recipe with few steps, a checkpoint after each."""
    schedule = {"max_steps": 3, "batch_size": 16, "lr": 1e-2, "device": "cpu", "checkpoint_minutes": 0.0}
    return TrainOptions(schedule=ScheduleOptions(**schedule), **changes)


def resumable_options():
    """Three epochs of four steps, a checkpoint after each step."""
    return TrainOptions(
        average=1.0,
        regularizer=RegularizerOptions(kind="itv", weight=1.0),
        schedule=ScheduleOptions(epochs=3, batch_size=16, lr=1e-3, device="cpu", checkpoint_minutes=0.0),
    )
