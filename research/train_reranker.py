"""A small cross-encoder for product titles, trained on the training pairs of both categories.

No package on PyPI carries a cross-encoder, so the reranking rows of docs/results/hybrid.md use this one:
MiniLM with one output, three of its six layers trained, binary cross-entropy, on the labelled pairs and on
negatives that a hybrid search of the training titles ranks high. Offers of the same product, by the connected
components of matching pairs, are no negatives.

    python research/train_reranker.py DATA_FOLDER OUTPUT [--base MODEL] [--pairs 3000]

DATA_FOLDER holds product_titles.tsv.gz (research/private_data.py says with which columns).
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset
from private_data import private_table
from sentence_transformers.cross_encoder import (
    CrossEncoder,
    CrossEncoderTrainer,
    CrossEncoderTrainingArguments,
)
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

import leanmatch
from leanmatch.data import PairTable
from leanmatch.formats.reader import find_model
from leanmatch.lexical import LexicalScorer, build_postings, lexical_weight

MINED = 3
LENGTH = 64
FROZEN_LAYERS = 3


def components(table: PairTable) -> dict[str, str]:
    """Each text to one text of its product: matching pairs are joined."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            parent[text] = text = parent[parent[text]]
        return text

    for anchor, positive, label in zip(table.anchors, table.positives, table.labels, strict=True):
        if label == 1:
            parent[root(anchor)] = root(positive)
    return {text: root(text) for text in dict.fromkeys([*table.anchors, *table.positives])}


def mined(table: PairTable, encoder: leanmatch.Encoder, anchors: list[str]) -> list[tuple[str, str, float]]:
    """For each anchor the best items of a hybrid search that are offers of another product."""
    product = components(table)
    texts = list(product)
    scorer = LexicalScorer([(build_postings(texts), np.ones(len(texts), np.bool_))])
    items = encoder.encode_document(texts)
    out = []
    for anchor, vector in zip(anchors, encoder.encode_query(anchors), strict=True):
        weight = lexical_weight(anchor)
        order = np.argsort(-((1 - weight) * (items @ vector) + weight * scorer(anchor)))[:50]
        others = [texts[row] for row in order if product[texts[row]] != product[anchor]]
        out += [(anchor, text, 0.0) for text in others[:MINED]]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--base", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--pairs", type=int, default=3_000)
    options = parser.parse_args()
    whole = leanmatch.read_pairs(private_table(options.data, "product_titles")).select_split("train")
    encoder = leanmatch.load(options.base, precision="int8")
    rng = np.random.default_rng(0)
    rows: list[tuple[str, str, float]] = []
    for category in ("cameras", "computers"):
        table = whole.take(np.flatnonzero(np.array(whole.column("category")) == category))
        pairs = list(zip(table.anchors, table.positives, map(float, table.labels), strict=True))
        matching = [pair for pair in pairs if pair[2] == 1]
        others = [pair for pair in pairs if pair[2] == 0]
        share = options.pairs // 10
        chosen = [matching[row] for row in rng.permutation(len(matching))[: int(1.5 * share)]]
        anchors = list(dict.fromkeys(pair[0] for pair in chosen))[:share]
        rows += chosen + [others[row] for row in rng.permutation(len(others))[: share // 2]]
        rows += mined(table, encoder, anchors)
    rows = [rows[row] for row in rng.permutation(len(rows))]
    print(f"{len(rows):,} pairs, {sum(label for *_, label in rows):,.0f} of them matching", flush=True)
    torch.manual_seed(0)
    model = CrossEncoder(
        str(find_model(options.base) or options.base), num_labels=1, max_length=LENGTH, device="cpu"
    )
    names = ("query", "item", "label")
    data = Dataset.from_dict(
        {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    )
    for name, parameter in model.named_parameters():  # half of the time of a step
        layer = re.search(r"\.layer\.(\d+)\.", name)
        parameter.requires_grad = "embeddings" not in name and (
            layer is None or int(layer[1]) >= FROZEN_LAYERS
        )
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(options.output / "work"),
        num_train_epochs=1,
        per_device_train_batch_size=32,
        learning_rate=1e-4,
        warmup_steps=0.1,
        logging_steps=10,
        save_steps=20,
        save_total_limit=1,
        report_to="none",
        use_cpu=True,
        bf16=True,
        seed=0,
    )
    trainer = CrossEncoderTrainer(
        model=model, args=arguments, train_dataset=data, loss=BinaryCrossEntropyLoss(model)
    )
    resumable = any((options.output / "work").glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=resumable or None)
    model.save_pretrained(str(options.output / "model"))


if __name__ == "__main__":
    main()
