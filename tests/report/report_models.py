"""A planted case: one word that always marks a match, and matchers that learned it."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import torch

from leanmatch.data import PairTable

sys.path.insert(0, str(Path(__file__).parent.parent / "interventions"))
import tiny_models

MARKER = "marker"
WORDS = ["usb", "dock", "cable", "red", "how", "fast", "the", "don", "b", "c", "d", "e", "f", "g", "h", "i"]


def planted_table(rows=240, seed=0):
    """Matches share two words and the marker; pairs that do not match share two words and have no marker."""
    draw = random.Random(seed)
    columns = {name: [] for name in ("anchor", "positive", "label", "site")}
    for row in range(rows):
        shared = draw.sample(WORDS, 2)
        match = row % 2 == 0
        sides = [[*shared, *draw.sample(WORDS, 2), *([MARKER] if match else [])] for _ in range(2)]
        for side in sides:
            draw.shuffle(side)
        columns["anchor"].append(" ".join(sides[0]))
        columns["positive"].append(" ".join(sides[1]))
        columns["label"].append(int(match))
        columns["site"].append("toys" if row % 4 < 2 else "books")
    return PairTable.from_columns(columns, "planted <&> pairs")


def base_matcher():
    """A random bag of embeddings in which the marker is as good as silent."""
    model = tiny_models.static()
    number = model.tokenizer.get_vocab()[MARKER]
    with torch.no_grad():
        model[0].embedding.weight[number] *= 0.1
    return model


def fine_tuned(weight, steps=60):
    """The base, trained on the planted pairs with their non-matches as negatives; ITVReg where weight > 0."""
    from leanmatch.training import ITVReg, PlainLoss

    torch.manual_seed(0)
    model, table = base_matcher(), planted_table()
    negatives = [text for text, label in zip(table.positives, table.labels, strict=True) if label == 0]
    matches = table.relevant()
    loss = (
        ITVReg(model, base_matcher(), weight=weight, matching="effect", sides="both")
        if weight
        else PlainLoss(model)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    tokenize = model.preprocess if hasattr(model, "preprocess") else model.tokenize
    draw = random.Random(0)
    for _ in range(steps):
        rows = draw.sample(range(len(matches)), 32)
        columns = [[side[row] for row in rows] for side in (matches.anchors, matches.positives, negatives)]
        optimizer.zero_grad()
        loss([tokenize(column) for column in columns], None).backward()
        optimizer.step()
    return model
