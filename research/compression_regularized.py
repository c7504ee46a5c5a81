"""One run that compresses and fine-tunes on one domain's pairs, with ITVReg or plain."""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from typing import Any

import torch
from compression_match import Match
from private_data import private_table

from leanmatch.compression.distillation import embedding_loss
from leanmatch.data import read_pairs
from leanmatch.training import ITVReg, PlainLoss

PAIRS = 4096
DISTILLATION = 1.0


class Regularized(Match):
    """Trained on AskUbuntu's duplicates: contrastive loss, ITVReg where asked for, and distance from the
    dense model.

    Quora and product titles are out of distribution.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        train = read_pairs(private_table(options.data, "question_pairs")).select_split("train").relevant()
        pairs = [
            (anchor, positive)
            for anchor, positive, domain in zip(
                train.anchors, train.positives, train.column("domain"), strict=True
            )
            if domain == "askubuntu"
        ]
        random.Random(0).shuffle(pairs)
        self.pairs = pairs[:PAIRS]
        super().__init__(options)

    def _training_texts(self) -> tuple[list[str], list[str]]:
        """The pairs end to end: text ``2 i`` is an anchor, ``2 i + 1`` its positive."""
        return [text for pair in self.pairs for text in pair], super()._training_texts()[1]

    def _targets(self, name: str, texts: list[str]) -> torch.Tensor:
        if name == "teacher":  # the base of the loss embeds and remembers
            return torch.empty(0)
        return super()._targets(name, texts)

    def _batches(self, seed: int) -> Any:
        draw = random.Random(seed)
        while True:
            yield draw.sample(range(len(self.pairs)), 32)

    def _objective(self, model: Any) -> Callable[[list[int]], torch.Tensor]:
        tokenize = model.preprocess if hasattr(model, "preprocess") else model.tokenize
        itv = ITVReg(model, self.teacher, weight=0.3)
        plain = PlainLoss(model)

        def loss(rows: list[int]) -> torch.Tensor:
            columns = [tokenize([self.pairs[row][side] for row in rows]) for side in (0, 1)]
            with torch.autocast("cpu", dtype=torch.bfloat16):
                chosen = itv if self.options.regularizer == "itv" else plain
                total = chosen([dict(column) for column in columns])
                student = model(dict(columns[0]))["sentence_embedding"]
            (target,) = itv.base.embed(columns[:1], student.device)
            return total.float() + DISTILLATION * embedding_loss(student, target)

        return loss
