"""The matching task: distil on training texts, score retrieval on test rows."""

from __future__ import annotations

import argparse
import base64
import copy
import random
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compression_methods import Contestant
from torch.nn import functional

from leanmatch.compression import STF, LayerSpec, Rule, default_spec, factorize, finalize, model_cost
from leanmatch.compression.distillation import embedding_loss, similarity_loss
from leanmatch.data import PairTable, read_pairs
from leanmatch.formats import load_matcher, save_compressed
from leanmatch.metrics import RetrievalProbe

FILES = {"askubuntu": "question_pairs", "quora": "question_pairs", "products": "product_titles"}
METRICS = ("MRR@10", "nDCG@10")
TEXTS = {"question_pairs": (8192, 0), "product_titles": (2048, 1)}  # how many, seed of the choice
UNSEEN = 512  # texts of each table for the loss on texts that were not trained on
POOL, WARMUP = 8, 20


class Match:
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
        self._dense: dict[str, Any] | None = None

    def run(self, name: str, contestant: Contestant, steps: int, seed: int) -> dict[str, Any]:
        """Convert, score, train, finalize and score again."""
        torch.manual_seed(seed)
        model = copy.deepcopy(self.teacher)
        start = time.process_time()
        spec = default_spec(
            model, contestant.layer, embeddings=contestant.embeddings, positions=contestant.positions
        )
        if contestant.embeddings:  # the pooler is not used by a matcher, but its bytes count
            spec = replace(spec, rules=(*spec.rules, Rule("*pooler.dense", LayerSpec(method="int"))))
        conversion = factorize(
            model, spec, calibration_texts=self.texts[:1024], surplus=contestant.surplus, seed=seed
        )
        converted = time.process_time() - start
        result: dict[str, Any] = {"conversion_seconds": converted, "mean_error": conversion.mean_error}
        result["one_shot_loss"] = self.unseen_loss(model)
        if self.options.one_shot and not contestant.surplus:
            result["one_shot"] = self.scores(model)
        history: list[Any] = []
        if contestant.trained and steps:
            start = time.process_time()
            history = self._train(model, contestant, steps, seed)
            result["training_seconds"] = time.process_time() - start
        finalize(model)
        cost = model_cost(model)
        folder = (
            self.options.save
            and Path(self.options.save) / f"{name}-{contestant.layer.nonzeros}-{steps}-{seed}"
        )
        if folder:
            origin = {
                "base": self.options.model,
                "data": {"texts": sorted(TEXTS)},
                "options": {"steps": steps},
            }
            save_compressed(model, folder, origin, spec=spec, overwrite=True)
            result["folder_bytes"] = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        result |= {
            "mac_ratio": cost.mac_ratio,
            "byte_ratio": cost.byte_ratio,
            "model_bytes": cost.bytes,
            "history": history,
            "loss": self.unseen_loss(model),
            "final": self.scores(model),
            "dense": self.dense,
        }
        return result

    @property
    def dense(self) -> dict[str, Any]:
        """The teacher's scores."""
        if self._dense is None:
            self._dense = self.scores(self.teacher)
        return self._dense

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

    def _train(self, model: Any, contestant: Contestant, steps: int, seed: int) -> list[Any]:
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        stf = STF(model, contestant.schedule, total_steps=steps) if contestant.schedule else None
        frozen = () if contestant.embeddings else ("embeddings.",)
        parameters = [p for n, p in model.named_parameters() if not any(part in n for part in frozen)]
        optimizer = torch.optim.AdamW(parameters, lr=contestant.lr, weight_decay=0.0)
        objective = self._objective(model)
        history, running = [], 0.0
        for step, rows in zip(range(1, steps + 1), self._batches(seed), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = contestant.lr * min(1.0, step / WARMUP) * (1 - (step - 1) / steps)
            loss = objective(rows)
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
            train = read_pairs(self.options.data / f"{file}.tsv.gz").select_split("train")
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
    table = read_pairs(options.data / f"{FILES[name]}.tsv.gz").select_split("test").relevant()
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
