"""Out-of-distribution grid: every method on every setting, one result file a run, resumable.

    python research/ood_grid.py --data FOLDER --encoder static --model FOLDER --seeds 0,1,2
    python research/collect.py build/ood/runs docs/results/ood/runs.parquet

Each run trains one method on the training rows of one domain and then scores ``average * trained +
(1 - average) * base`` for several averages on four slices: validation, shifted validation, test in and test
out of distribution. What is stored is the rank (1 to 10, 0 beyond) of the first relevant text of every query,
so that ``research/ood_table.py`` can compute MRR@10, every way of choosing an average, and paired intervals
without training again. All methods of a setting and seed see the same training rows. Needs private tables
(``research/private_data.py``).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from collect import pack_ranks, ranks_of
from private_data import private_table

from leanmatch.data import SplitOptions, read_pairs, split_pairs
from leanmatch.files import write_json
from leanmatch.formats.reader import load_matcher
from leanmatch.metrics import RetrievalProbe
from leanmatch.trainer.checkpoints import load_weights, save_weights
from leanmatch.trainer.work_folder import WorkFolder
from leanmatch.training import PairTableEvaluator, RegularizerOptions, ScheduleOptions, TrainOptions
from leanmatch.training.adapters import add_lora, merge_lora
from leanmatch.training.base_scores import FrozenBase
from leanmatch.training.dataset import training_dataset
from leanmatch.training.engine import train_stage
from leanmatch.training.runs import build_loss
from leanmatch.training.selection.averaging import average_weights, mean_weights, snapshot
from leanmatch.training.selection.evaluator import encode_function
from leanmatch.training.selection.shift import set_aside
from leanmatch.types import EncodeFunction

SETTINGS = {
    "askubuntu>quora": ("question_pairs", "domain=quora"),
    "quora>askubuntu": ("question_pairs", "domain=askubuntu"),
    "computers>cameras": ("product_titles", "category=cameras"),
    "cameras>computers": ("product_titles", "category=computers"),
}
# encoder -> regime -> (steps, batch, learning rate, tokens)
REGIMES = {
    "static": {"strong": (600, 64, 2e-2, None), "weak": (150, 64, 1e-2, None)},
    "minilm": {"strong": (100, 32, 2e-4, 48), "weak": (100, 32, 2e-5, 48)},
}
AVERAGES = {
    "static": (0.2, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.4),
    "minilm": (0.4, 0.5, 0.6, 0.8, 1.0, 1.2),
}
AVERAGED = ("plain", "itv", "soup", "itv-score", "soup-score")
"""On MiniLM, where ranking costs more than training, only these are averaged with the base."""
# slice -> rows at most; None is all of them
ROWS = {
    "static": {"valid": 2500, "shifted": None, "in": None, "out": None},
    "minilm": {"valid": 500, "shifted": 300, "in": 800, "out": 800},
}


@dataclass(frozen=True)
class Method:
    """A row of the table: what differs from plain fine-tuning."""

    regularizer: RegularizerOptions
    early_stopping: int = 0
    lora_rank: int = 0
    ablation: bool = False


def _itv(weight: float, **changes: Any) -> RegularizerOptions:
    return RegularizerOptions(kind="itv", weight=weight, **{"per_text": 1, **changes})


SOUPS = {"soup": ("plain", "itv"), "soup-score": ("plain", "itv-score")}
"""Methods that are the mean of two runs' weights, as ``average="auto"`` tries it."""
KEPT = {part for parts in SOUPS.values() for part in parts}
METHODS = {
    "plain": Method(RegularizerOptions(kind="none", weight=0.0)),
    "itv": Method(_itv(0.3)),
    "out": Method(RegularizerOptions(kind="out", weight=0.3)),
    "mask": Method(RegularizerOptions(kind="mask", weight=0.0)),
    "early": Method(RegularizerOptions(kind="none", weight=0.0), early_stopping=2),
    "lora": Method(RegularizerOptions(kind="none", weight=0.0), lora_rank=8),
    "soup": Method(RegularizerOptions(kind="itv", weight="auto")),
    "itv-score": Method(_itv(0.3, matching="score")),
    "soup-score": Method(RegularizerOptions(kind="itv", weight="auto", matching="score")),
    "itv-one-sided": Method(_itv(0.3, matching="one-sided"), ablation=True),
    "itv-diagonal": Method(_itv(0.3, pairs="diagonal"), ablation=True),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--encoder", choices=sorted(REGIMES), required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--regimes", default="strong,weak")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--precision", default="auto", help="bf16 trains MiniLM faster where the CPU has it")
    parser.add_argument("--averages", help="rank with these, and add them to result files that are there")
    parser.add_argument("--out", type=Path, default=Path("build/ood/runs"))
    parser.add_argument("--work", type=Path, default=Path("build/ood"))
    arguments = parser.parse_args()
    for seed in map(int, arguments.seeds.split(",")):
        for setting in arguments.settings.split(","):
            setup = None
            for regime in arguments.regimes.split(","):
                for name in arguments.methods.split(","):
                    method = METHODS[name]
                    if (method.lora_rank and arguments.encoder == "static") or (
                        method.ablation and regime == "weak"
                    ):
                        continue
                    file = (
                        arguments.out
                        / f"{arguments.encoder}-{setting.replace('>', '-')}-{regime}-{seed}-{name}.json"
                    )
                    if file.exists() and not arguments.averages:
                        continue
                    setup = setup or Setup(arguments, setting, seed)
                    result = setup.run(regime, name, method)
                    if file.exists():
                        there = json.loads(file.read_text(encoding="utf-8"))
                        result |= {key: there[key] | result[key] for key in ("mrr10", "ranks")}
                    write_json(file, result)
                    print(file.name, flush=True)


class Setup:
    """Data, base model and probes of one setting and seed."""

    def __init__(self, arguments: argparse.Namespace, setting: str, seed: int) -> None:
        self.arguments, self.setting, self.seed = arguments, setting, seed
        file, hold_out = SETTINGS[setting]
        table = read_pairs(private_table(arguments.data, file))
        self.split = split_pairs(table, SplitOptions(hold_out=(hold_out,), seed=seed))
        self.model = load_matcher(arguments.model, device="cpu")
        aside = set_aside(self.split.train, encode_function(self.model), seed=seed)
        self.train, self.aside = aside.train, aside.how
        if aside.shifted is None:
            raise SystemExit(aside.how)
        tables = {
            "valid": self.split.valid,
            "shifted": aside.shifted,
            "in": self.split.test_in,
            "out": self.split.test_out,
        }
        tables = {name: _few(part, ROWS[arguments.encoder][name]) for name, part in tables.items()}
        self.valid = tables["valid"]
        self.probes = {name: RetrievalProbe(part, "MRR@10") for name, part in tables.items()}
        self.base = FrozenBase(self.model)
        self.encode: Callable[[], EncodeFunction] = lambda: encode_function(self.model)
        if arguments.encoder == "static":
            self.encode = TokenizedOnce(self.model, {t for part in tables.values() for t in _texts(part)})
        self.start = snapshot(self.model.state_dict())
        self.base_ranks = self._ranks()

    def run(self, regime: str, name: str, method: Method) -> dict[str, Any]:
        """Train one method and rank with every average."""
        if name in SOUPS:
            runs = [self.train_one(regime, part, METHODS[part]) for part in SOUPS[name]]
            trained = mean_weights([state for state, _ in runs])
            report: dict[str, Any] = {"of": SOUPS[name], "seconds": sum(r["seconds"] for _, r in runs)}
        else:
            trained, report = self.train_one(regime, name, method)
        limit, tokens = self.model.max_seq_length, REGIMES[self.arguments.encoder][regime][3]
        if tokens is not None:
            self.model.max_seq_length = tokens
        self.model.eval()
        ranks = {"0": self.base_ranks}
        encoder = self.arguments.encoder
        averages = AVERAGES[encoder] if encoder == "static" or name in AVERAGED else (1.0,)
        if self.arguments.averages:
            averages = tuple(map(float, self.arguments.averages.split(",")))
        for average in averages:
            self.model.load_state_dict(average_weights(self.start, trained, average))
            ranks[f"{average:g}"] = self._ranks()
        if tokens is not None:
            self.model.max_seq_length = limit
        return {
            "encoder": self.arguments.encoder,
            "setting": self.setting,
            "regime": regime,
            "seed": self.seed,
            "method": name,
            "training_rows": int((np.asarray(self.train.labels) == 1).sum()),
            "shifted_slice": self.aside,
            **report,
            "mrr10": {a: {s: _mrr(r) for s, r in by.items()} for a, by in ranks.items()},
            "ranks": {a: {s: pack_ranks(r.tobytes()) for s, r in by.items()} for a, by in ranks.items()},
        }

    def train_one(self, regime: str, name: str, method: Method) -> tuple[dict[str, Any], dict[str, Any]]:
        """The weights of one training run, kept in the work folder, and what is to be reported of it."""
        steps, batch, lr, tokens = REGIMES[self.arguments.encoder][regime]
        options = TrainOptions(
            regularizer=method.regularizer,
            average=1.0,
            negatives="none",
            lora_rank=method.lora_rank,
            schedule=ScheduleOptions(
                max_steps=steps,
                batch_size=batch,
                lr=lr,
                seed=self.seed,
                device="cpu",
                precision=self.arguments.precision,
                early_stopping=method.early_stopping,
            ),
        )
        place = f"{self.arguments.encoder}-{self.setting.replace('>', '-')}-{regime}-{self.seed}-{name}"
        kept = self.arguments.work / "weights" / f"{place}.safetensors"
        told = kept.with_suffix(".json")
        if told.exists():
            return load_weights(kept), json.loads(told.read_text())
        torch.manual_seed(self.seed)
        self.model.load_state_dict(self.start)
        limit = self.model.max_seq_length
        if tokens is not None:
            self.model.max_seq_length = tokens
        if method.lora_rank:
            add_lora(self.model, method.lora_rank)
        loss = build_loss(self.model, self.base, options, float(method.regularizer.weight))
        folder = WorkFolder(
            self.arguments.work / place,
            {"options": options.to_json(), "data": self.train.fingerprint()},
        )
        dataset, _ = training_dataset(self.train, options, None)
        start = time.perf_counter()
        history = train_stage(
            self.model,
            loss,
            dataset,
            options.schedule,
            folder.stage("run"),
            lr=lr,
            evaluator=PairTableEvaluator(self.valid) if method.early_stopping else None,
            description=name,
        )
        seconds = time.perf_counter() - start
        merge_lora(self.model)
        trained = snapshot(self.model.state_dict())
        if tokens is not None:
            self.model.max_seq_length = limit
        report = {
            "options": options.to_json(),
            "components": {k: round(float(v), 5) for k, v in loss.components.items()},
            "history": history,
            "seconds": round(seconds, 1),
        }
        if name in KEPT:
            kept.parent.mkdir(parents=True, exist_ok=True)
            save_weights(kept, trained)
            write_json(told, report)
        folder.remove()
        return trained, report

    def _ranks(self) -> dict[str, np.ndarray]:
        encode = self.encode()
        reciprocal = {name: probe.per_query(encode) for name, probe in self.probes.items()}
        return {name: ranks_of(values) for name, values in reciprocal.items()}


class TokenizedOnce:
    """Embeddings of a static encoder (mean of token rows, normalized) without tokenizing for every model."""

    def __init__(self, model: Any, texts: set[str]) -> None:
        from scipy.sparse import csr_matrix

        self.place = {text: row for row, text in enumerate(sorted(texts))}
        self.weight = model[0].embedding.weight
        tokens = [e.ids for e in model[0].tokenizer.encode_batch(list(self.place), add_special_tokens=False)]
        counts = np.array([len(ids) for ids in tokens])
        share = np.repeat(1 / np.maximum(counts, 1), counts).astype(np.float32)
        ends = np.concatenate([[0], counts.cumsum()])
        self.mean = csr_matrix(
            (share, np.concatenate(tokens).astype(np.int64), ends), shape=(len(tokens), len(self.weight))
        )
        some = list(self.place)[:200]
        np.testing.assert_allclose(self()(some), encode_function(model)(some), atol=1e-5)

    def __call__(self) -> EncodeFunction:
        vectors = self.mean @ self.weight.detach().numpy()
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return lambda texts: vectors[[self.place[text] for text in texts]]


def _texts(table: Any) -> set[str]:
    return {*table.anchors, *table.positives}


def _few(table: Any, rows: int | None) -> Any:
    """A fixed random sample where there are more rows than wanted."""
    if rows is None or len(table) <= rows:
        return table
    return table.take(np.sort(np.random.default_rng(0).choice(len(table), rows, replace=False)))


def _mrr(ranks: np.ndarray) -> float:
    return round(float(np.where(ranks > 0, 1 / np.maximum(ranks, 1), 0).mean()), 5)


if __name__ == "__main__":
    main()
