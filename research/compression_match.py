"""The matching task: distil on training texts, score retrieval on test rows."""

from __future__ import annotations

import argparse
import base64
import random
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compression_methods import Contestant
from compression_task import Task, descend, without_dropout
from private_data import private_table
from torch.nn import functional

from leanmatch.compression import STF, CompressionSpec, RoundingSpec, Rule
from leanmatch.compression.distillation import embedding_loss, similarity_loss
from leanmatch.data import PairTable, read_pairs
from leanmatch.formats import save_compressed
from leanmatch.formats.reader import load_matcher
from leanmatch.metrics import RetrievalProbe

FILES = {"askubuntu": "question_pairs", "quora": "question_pairs", "products": "product_titles"}
METRICS = ("MRR@10", "nDCG@10")
TEXTS = {"question_pairs": (8192, 0), "product_titles": (2048, 1)}  # how many, seed of the choice
UNSEEN = 512  # texts of each table for the loss on texts that were not trained on
POOL = 8


class Match(Task):
    """MiniLM, its texts, the teacher's embeddings of them and the test tables, made once for all methods."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.teacher = load_matcher(options.model).eval()
        self.probes = {
            (name, metric): RetrievalProbe(_test_rows(options, name), metric)
            for name in FILES
            for metric in METRICS
        }
        self.texts, self.unseen = self._training_texts()
        self.targets = self._targets("teacher", self.texts)
        self.unseen_targets = self._targets("teacher-unseen", self.unseen)

    def calibration_texts(self) -> list[str]:
        """The first of the training texts, which are in random order."""
        return self.texts[:1024]

    def spec(self, model: Any, contestant: Contestant) -> CompressionSpec:
        """With the pooler, which a matcher does not use, but whose bytes count."""
        spec = super().spec(model, contestant)
        pooler = Rule("*pooler.dense", RoundingSpec())
        return replace(spec, rules=(*spec.rules, pooler)) if contestant.embeddings else spec

    def loss(self, model: Any) -> dict[str, Any]:
        """Under "loss", of :meth:`unseen_loss`."""
        return {"loss": self.unseen_loss(model)}

    def saved(self, model: Any, spec: CompressionSpec, label: str) -> dict[str, Any]:
        """Bytes of the folder, where models are to be saved."""
        if not self.options.save:
            return {}
        folder = Path(self.options.save) / label
        origin = {
            "base": self.options.model,
            "data": {"texts": sorted(TEXTS)},
            "options": {"run": label},
        }
        save_compressed(model, folder, origin, spec=spec, overwrite=True)
        return {"folder_bytes": sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())}

    def scores(self, model: Any) -> dict[str, Any]:
        """Every metric of every test table: its mean, and the values of all queries for paired intervals."""
        model.eval()
        vectors: dict[str, np.ndarray[Any, Any]] = {}

        def encode(texts: Any) -> Any:
            missing = [text for text in texts if text not in vectors]
            found = model.encode(missing, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
            vectors.update(zip(missing, found.astype(np.float32), strict=True))
            return np.stack([vectors[text] for text in texts])

        values = {key: probe.per_query(encode) for key, probe in self.probes.items()}
        return {
            f"{table} {metric}": {"mean": float(v.mean()), "queries": pack(v)}
            for (table, metric), v in values.items()
        }

    @torch.no_grad()
    def unseen_loss(self, model: Any) -> dict[str, float]:
        """The distillation's two losses on texts of the training split that no run trains on."""
        model.eval()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model.encode(self.unseen, batch_size=64, convert_to_tensor=True, show_progress_bar=False)
        found, target = found.float(), self.unseen_targets
        return {
            "embedding": float(embedding_loss(found, target)),
            "similarity": float(similarity_loss(found, target)),
        }

    def fine_tune(self, model: Any, contestant: Contestant, steps: int, seed: int) -> list[Any]:
        """Towards the teacher's embeddings; embeddings stay as they are where they are not compressed."""
        without_dropout(model)
        stf = STF(model, contestant.schedule, total_steps=steps) if contestant.schedule else None
        frozen = () if contestant.embeddings else ("embeddings.",)
        parameters = [p for n, p in model.named_parameters() if not any(part in n for part in frozen)]
        objective, batches = self._objective(model), self._batches(seed)
        return descend(model, parameters, contestant.lr, steps, lambda _: objective(next(batches)), stf)

    def _objective(self, model: Any) -> Callable[[list[int]], torch.Tensor]:
        """The loss of a batch, rows of the training texts: distance from the teacher's embeddings."""
        tokenize = model.preprocess if hasattr(model, "preprocess") else model.tokenize

        def loss(rows: list[int]) -> torch.Tensor:
            features = tokenize([self.texts[row] for row in rows])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                student = model(dict(features))["sentence_embedding"].float()
            target = self.targets[rows]
            return embedding_loss(student, target) + 10 * similarity_loss(student, target)

        return loss

    def _batches(self, seed: int) -> Any:
        draw = random.Random(seed)
        size = self.options.batch
        while True:
            pool = sorted(
                draw.sample(range(len(self.texts)), size * POOL), key=lambda row: len(self.texts[row])
            )
            parts = [pool[start : start + size] for start in range(0, len(pool), size)]
            draw.shuffle(parts)
            yield from parts

    def _training_texts(self) -> tuple[list[str], list[str]]:
        chosen, unseen = [], []
        for file, (count, seed) in TEXTS.items():
            train = read_pairs(private_table(self.options.data, file)).select_split("train")
            texts = sorted({*train.anchors, *train.positives})
            random.Random(seed).shuffle(texts)
            chosen += texts[:count] + texts[count + UNSEEN : UNSEEN + round(count * self.options.texts)]
            unseen += texts[count : count + UNSEEN]  # the same ones however many are trained on
        random.Random(1).shuffle(chosen)
        return chosen, unseen

    def _targets(self, name: str, texts: list[str]) -> torch.Tensor:
        digest = zlib.crc32("\n".join(texts).encode())
        file = Path(self.options.work) / f"{name}-{digest:08x}.npy"
        if not file.exists():
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found = self.teacher.encode(
                    texts, batch_size=64, convert_to_tensor=True, show_progress_bar=True
                )
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, functional.normalize(found.float(), dim=1).numpy())
        return torch.from_numpy(np.load(file))


def _test_rows(options: argparse.Namespace, name: str) -> PairTable:
    """Test rows of one domain with label 1, so that all distinct texts of them are candidates."""
    table = read_pairs(private_table(options.data, FILES[name])).select_split("test").relevant()
    rows = np.arange(len(table))
    if name != "products":
        domains = np.array(table.column("domain"))
        rows = np.flatnonzero(domains == name)
    return table.take(rows[: options.rows])


def pack(values: Any) -> str:
    """Values in 0..1 as compressed text."""
    raw = np.asarray(values, np.float32).tobytes()
    return base64.b85encode(zlib.compress(raw, 9)).decode()


def unpack(text: str) -> np.ndarray[Any, Any]:
    """What :func:`pack` packed."""
    return np.frombuffer(zlib.decompress(base64.b85decode(text)), np.float32)
