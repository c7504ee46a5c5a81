"""Every recipe on many shifts, with a static encoder: one result file a recipe, resumable.

    python research/shift_grid.py --data FOLDER --model FOLDER --seeds 0
    python research/collect.py build/shift/runs docs/results/ood/shifts.parquet

A recipe is the mean of the weights of one or two training runs; it is scored at every share of its average
with the base, on validation pairs, on the shifted slice (by the runs that were not trained on it) and on the
tests. What is stored is the rank (1 to 10, 0 beyond) of the first relevant text of every query, so that
``research/shift_table.py`` can play every rule of choice without training again. Settings and what they need:
``research/shift_settings.py``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from collect import pack_ranks, ranks_of
from ood_grid import TokenizedOnce
from shift_settings import SOURCES
from static_loop import Bags, train_rows

from leanmatch.data import PairTable, split_pairs
from leanmatch.files import write_json
from leanmatch.formats.reader import load_matcher
from leanmatch.metrics import RetrievalProbe
from leanmatch.trainer.checkpoints import load_weights, save_weights
from leanmatch.training import RegularizerOptions, ScheduleOptions
from leanmatch.training.selection.averaging import average_weights, mean_weights, snapshot
from leanmatch.training.selection.evaluator import encode_function
from leanmatch.training.selection.shift import set_aside

REGIMES = {"strong": (600, 2e-2), "weak": (150, 1e-2)}
"""Steps of 64 pairs, and the peak rate."""
SHARES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4)
MOST_ROWS = 800
"""Pairs of a test, a validation slice, or halves of target texts: ranking costs more than training."""


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        regularizer: its loss.
        target: whether to regularize on the texts of the tests.
        part: the fraction of the regime's steps.
        after: the run whose weights it starts from; without one, the base.
    """

    regularizer: RegularizerOptions
    target: bool = False
    part: float = 1.0
    after: str | None = None


PLAIN = RegularizerOptions(kind="none", weight=0.0)
RUNS = {
    "plain": Run(PLAIN),
    "early": Run(PLAIN),
    "out": Run(RegularizerOptions(kind="out", weight=0.3)),
    "itv": Run(RegularizerOptions(kind="itv", weight=0.3, per_text=0.25)),
    "itv-target": Run(RegularizerOptions(kind="itv", weight=0.3, per_text=0.25), target=True),
    "half": Run(PLAIN, part=0.5),
    "second": Run(PLAIN, part=0.5, after="half/rest"),
}
# recipe -> the runs that are averaged; after the slash: rows trained on, "rest" without the shifted slice
RECIPES = {
    "half-rest": ("half/rest",),
    "default": ("second/all", "itv/all"),
    "halves": ("second/all",),
    "default-target": ("second/all", "itv-target/all"),
    "plain-rest": ("plain/rest",),
    "plain": ("plain/all",),
    "out": ("out/all",),
    "early": ("early/all",),
    "whole": ("plain/rest", "itv/all"),
}
"""``whole`` was the default until 2026-11-30: its first run never sees the shifted slice."""
EMBEDDING = "0.embedding.weight"
ONE_SHARE = ("out", "early")
"""Rivals that are not averaged with the base."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--sources", default=",".join(SOURCES))
    parser.add_argument("--regimes", default="strong")
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--out", type=Path, default=Path("build/shift/runs"))
    parser.add_argument("--work", type=Path, default=Path("build/shift"))
    arguments = parser.parse_args()
    target = "default-target" in arguments.recipes.split(",")  # only then are halves of target texts ranked
    for seed in map(int, arguments.seeds.split(",")):
        for source in arguments.sources.split(","):
            setup = None
            for regime in arguments.regimes.split(","):
                for recipe in arguments.recipes.split(","):
                    file = arguments.out / f"{source}-{regime}-{seed}-{recipe}.json"
                    if not file.exists():
                        setup = setup or Setup(arguments, source, seed, target)
                        write_json(file, setup.score(recipe, regime))
                        print(file.name, flush=True)


class Setup:
    """Data, base model and probes of one source and seed."""

    def __init__(self, arguments: argparse.Namespace, name: str, seed: int, target: bool) -> None:
        self.name, self.seed = name, seed
        self.work: Path = arguments.work
        source = SOURCES[name]
        split = split_pairs(source.table(arguments.data), source.split_options(seed))
        self.model = load_matcher(arguments.model, device="cpu")
        aside = set_aside(
            split.train,
            encode_function(self.model),
            group_columns=[source.column],
            by_time=source.period,
            seed=seed,
        )
        if aside.shifted is None:
            raise SystemExit(aside.how)
        self.how, self.valid = aside.how, few(split.valid)
        self.rows = {"rest": aside.train, "all": split.train}
        tables = {"valid": self.valid, "shifted": few(aside.shifted), "in": few(split.test_in)}
        self.targets: list[str] = []
        for setting, out in source.held_out(split.test_out).items():
            texts = sorted({*out.anchors, *out.positives})
            self.targets += texts
            tables[f"out {setting}"] = few(out)
            if target:
                tables[f"target {setting}"] = halves(texts, seed)
        self.probes = {name: RetrievalProbe(table, "MRR@10") for name, table in tables.items()}
        texts = {text for table in tables.values() for text in (*table.anchors, *table.positives)}
        self.encode = TokenizedOnce(self.model, texts)
        self.start = snapshot(self.model.state_dict())
        texts |= {text for t in self.rows.values() for text in (*t.anchors, *t.positives)} | {*self.targets}
        tokens = self.model[0].tokenizer.encode_batch(sorted(texts), add_special_tokens=False)
        self.used = torch.tensor(sorted({number for each in tokens for number in each.ids}))
        self.bags = Bags.of(self.model[0].tokenizer, sorted(texts), self.used)
        self.base_rows = self._rows_of(self.start)
        self.base_ranks = self._ranks(self.probes)

    def score(self, recipe: str, regime: str) -> dict[str, Any]:
        """Train what is missing, and rank at every share."""
        runs = [self.train(*part.split("/"), regime) for part in RECIPES[recipe]]
        trained = mean_weights([weights for weights, _ in runs])
        unseen = all(part.endswith("/rest") for part in RECIPES[recipe])
        probes = {name: probe for name, probe in self.probes.items() if unseen or name != "shifted"}
        ranks = {"0": {name: self.base_ranks[name] for name in probes}}
        for share in (1.0,) if recipe in ONE_SHARE else SHARES:
            self.model.load_state_dict(average_weights(self.start, trained, share))
            ranks[f"{share:g}"] = self._ranks(probes)
        return {
            "encoder": "static",
            "setting": self.name,
            "regime": regime,
            "seed": self.seed,
            "method": recipe,
            "rows": {name: len(table) for name, table in self.rows.items()},
            "shifted_slice": self.how,
            "seconds": [report["seconds"] for _, report in runs],
            "ranks": {a: {s: pack_ranks(r.tobytes()) for s, r in by.items()} for a, by in ranks.items()},
        }

    def train(self, name: str, rows: str, regime: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The weights that a run ends with, kept in the work folder, and what is to be said of it."""
        kept = self.work / "rows" / f"{self.name}-{regime}-{self.seed}-{name}-{rows}.safetensors"
        told = kept.with_suffix(".json")
        if not told.exists():
            run, (steps, lr) = RUNS[name], REGIMES[regime]
            start = self.base_rows
            if run.after is not None:
                start = self._rows_of(self.train(*run.after.split("/"), regime)[0])
            schedule = ScheduleOptions(max_steps=round(run.part * steps), lr=lr, seed=self.seed)
            begun = time.process_time()
            last, best = train_rows(
                start,
                self.base_rows,
                self.bags,
                self.rows[rows],
                run.regularizer,
                schedule,
                target=sorted(set(self.targets)) if run.target else (),
                score=self._valid_score if name == "early" else None,
            )
            kept.parent.mkdir(parents=True, exist_ok=True)
            save_weights(kept, {"rows": best if name == "early" else last})
            write_json(told, {"seconds": round(time.process_time() - begun, 2)})
        return self._whole(load_weights(kept)["rows"]), json.loads(told.read_text())

    def _whole(self, rows: torch.Tensor) -> dict[str, Any]:
        """The model's weights with the trained rows in their places."""
        weight = self.start[EMBEDDING].clone()
        weight[self.used] = rows
        return {**self.start, EMBEDDING: weight}

    def _rows_of(self, weights: Mapping[str, Any]) -> torch.Tensor:
        rows: torch.Tensor = weights[EMBEDDING][self.used]
        return rows

    def _valid_score(self, rows: torch.Tensor) -> float:
        self.model.load_state_dict(self._whole(rows))
        return float(self.probes["valid"].per_query(self.encode()).mean())

    def _ranks(self, probes: Mapping[str, RetrievalProbe]) -> dict[str, np.ndarray]:
        encode: Callable[..., Any] = self.encode()
        reciprocal = {name: probe.per_query(encode) for name, probe in probes.items()}
        return {name: ranks_of(values) for name, values in reciprocal.items()}


def halves(texts: list[str], seed: int) -> PairTable:
    """The first half of each text's words, paired with the second half."""
    words = [text.split() for text in texts]
    chosen = [number for number, each in enumerate(words) if len(each) >= 4]
    chosen = np.random.default_rng(seed).permutation(chosen)[:MOST_ROWS].tolist()
    cut = [(words[i][: -(-len(words[i]) // 2)], words[i][-(-len(words[i]) // 2) :]) for i in chosen]
    return PairTable.from_columns(
        {"anchor": [" ".join(a) for a, _ in cut], "positive": [" ".join(b) for _, b in cut]}
    )


def few(table: PairTable) -> PairTable:
    """All rows with a fixed random sample of anchors, so that an anchor keeps all of its positives."""
    anchors = np.array(table.anchors)
    if len(set(anchors)) <= MOST_ROWS:
        return table
    kept = np.random.default_rng(0).choice(sorted(set(anchors)), MOST_ROWS, replace=False)
    return table.take(np.flatnonzero(np.isin(anchors, kept)))


if __name__ == "__main__":
    main()
