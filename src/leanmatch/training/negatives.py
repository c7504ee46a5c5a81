"""Negatives for the contrastive loss: given in the data, or mined with the base model."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from leanmatch.errors import MissingExtraError
from leanmatch.models import Prompts

if TYPE_CHECKING:
    from leanmatch.data import PairTable

MIN_COVERAGE = 0.5
"""Given negatives are used where at least this share of the positives' anchors has one."""


def given_negatives(table: PairTable) -> dict[str, list[str]]:
    """Negatives of each anchor: negative columns of its rows, and texts of its rows with label 0."""
    negatives_of: dict[str, dict[str, None]] = defaultdict(dict)  # a dict keeps order and drops repeats
    for anchor, positive, label, negatives in zip(
        table.anchors, table.positives, table.labels.tolist(), table.negatives, strict=True
    ):
        if label == 0:
            negatives_of[anchor].setdefault(positive)
        for negative in negatives:
            negatives_of[anchor].setdefault(negative)
    return {anchor: list(texts) for anchor, texts in negatives_of.items()}


def mined_negatives(model: Any, anchors: list[str], positives: list[str], count: int) -> dict[str, list[str]]:
    """Semi-hard negatives: the base model's nearest texts that score below the positive by a margin.

    A text within 5% of the positive's score is taken for a false negative and left out (the *TopK-PercPos*
    rule of NV-Retriever, arXiv 2407.15831), through sentence-transformers' ``mine_hard_negatives``.
    """
    try:
        from datasets import Dataset
        from sentence_transformers.util import mine_hard_negatives
    except ImportError as error:
        raise MissingExtraError("sentence-transformers", "train", "mining hard negatives") from error
    matches: dict[str, set[str]] = defaultdict(set)
    for anchor, positive in zip(anchors, positives, strict=True):
        matches[anchor].add(positive)
    others = len(set(positives)) - max(len(texts) for texts in matches.values())
    if others < 1:  # some anchor matches every text
        return {}
    prompts = Prompts.from_model(model)
    mined = mine_hard_negatives(
        Dataset.from_dict({"anchor": anchors, "positive": positives}),
        model,
        num_negatives=min(count, others),
        relative_margin=0.05,
        range_max=min(100, others),  # it fails on more than there are
        sampling_strategy="top",
        output_format="n-tuple",
        batch_size=64,
        verbose=False,
        query_prompt=prompts.query,
        corpus_prompt=prompts.document,
    )
    columns = [name for name in mined.column_names if name.startswith("negative")]
    return {row["anchor"]: [row[name] for name in columns] for row in mined}


def coverage(anchors: list[str], positives: list[str], own_negatives: dict[str, list[str]]) -> float:
    """The share of pairs that have a negative of their own: neither the anchor nor a match of it."""
    if not own_negatives:
        return 0.0
    taken = _taken(anchors, positives)
    covered = {
        anchor: any(text not in texts for text in own_negatives.get(anchor, ()))
        for anchor, texts in taken.items()
    }
    return sum(covered[anchor] for anchor in anchors) / max(1, len(anchors))


def fill_negatives(
    anchors: list[str], positives: list[str], own_negatives: dict[str, list[str]], count: int, seed: int
) -> list[list[str]]:
    """``count`` columns of negatives, one entry a pair; where too few were found, random positives fill in.

    A random text of the corpus is what an in-batch negative is, so filling adds no new kind of negative.
    """
    draw = random.Random(seed)
    taken_of = _taken(anchors, positives)
    columns: list[list[str]] = [[] for _ in range(count)]
    for anchor in anchors:
        taken = taken_of[anchor]
        candidates = [text for text in own_negatives.get(anchor, []) if text not in taken]
        chosen = candidates if len(candidates) <= count else draw.sample(candidates, count)
        for _ in range(100):
            if len(chosen) >= count:
                break
            text = draw.choice(positives)
            if text not in taken:
                chosen = [*chosen, text]
        for column, text in zip(columns, (chosen + [draw.choice(positives)] * count)[:count], strict=True):
            column.append(text)
    return columns


def _taken(anchors: list[str], positives: list[str]) -> dict[str, set[str]]:
    """What cannot be a negative of an anchor: its matches and itself."""
    taken: dict[str, set[str]] = defaultdict(set)
    for anchor, positive in zip(anchors, positives, strict=True):
        taken[anchor] |= {anchor, positive}
    return taken
