"""Trains compressed layers on any task for a given time, with checkpoints that survive an interruption.

The number of steps is fixed once, from the time that a few take, and stored in the folder, so that a resumed
run makes as many steps as an unbroken one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from leanmatch import native
from leanmatch.compression.checkpoints import load_state, save_state
from leanmatch.compression.matrices import FactoredMatrix
from leanmatch.compression.planner.tasks import Task
from leanmatch.errors import ModelError, UsageError
from leanmatch.files import write_json

CHECKPOINT = "checkpoint.pt"
STEPS = "steps.json"
TIMED_STEPS = 5
STRETCH = 16
"""Batches among which texts are sorted by length."""
MOST_STEPS = 200_000


@dataclass(frozen=True)
class TrainingOptions:
    """How compressed layers are trained.

    Attributes:
        minutes: time for the steps; 0 trains nothing.
        steps: number of steps in place of ``minutes``.
        batch_size: texts a step.
        lr: peak learning rate of factors (AdamW, linear warm-up and decay).
        lr_other: of all other parameters: tables, norms, biases.
        warmup: share of the steps in which the rates rise.
        clip: largest norm of the gradient.
        seed: of the order of texts.
        checkpoint_seconds: time between checkpoints.
        precision: ``auto`` is bfloat16 where the device has instructions for it, else ``fp32``.
    """

    minutes: float = 10.0
    steps: int | None = None
    batch_size: int = 64
    lr: float = 5e-4
    lr_other: float = 1e-4
    warmup: float = 0.05
    clip: float = 1.0
    seed: int = 0
    checkpoint_seconds: float = 60.0
    precision: str = "auto"

    def __post_init__(self) -> None:
        if not 0 <= self.minutes < float("inf"):
            raise UsageError(f"minutes must be from 0 and finite (found {self.minutes})")
        if self.steps is not None and self.steps < 0:
            raise UsageError(f"steps must be from 0 (found {self.steps})")
        if self.batch_size < 2:
            raise UsageError(f"batch_size must be at least 2 (found {self.batch_size})")
        for name in ("lr", "lr_other", "clip"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"{name} must be above 0 and finite (found {getattr(self, name)})")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise UsageError(f"unknown precision {self.precision!r}", remedy="one of auto, fp32, bf16")


def train_factors(
    model: Any,
    teacher: Any,
    task: Task,
    options: TrainingOptions,
    folder: Path,
    *,
    stf: Callable[[Any, int], Any] | None = None,
    description: str = "training",
) -> dict[str, Any]:
    """Train a factored model in place, continuing from the checkpoint in ``folder``.

    Args:
        model: after :func:`leanmatch.compression.factorize`.
        teacher: the dense model.
        task: gives texts and loss.
        options: see :class:`TrainingOptions`.
        folder: for checkpoints.
        stf: makes the :class:`leanmatch.compression.STF` from model and number of steps; None keeps supports.
        description: shown beside the bar.

    Returns:
        ``steps``, ``loss`` (mean of the last tenth) and ``resumed_at``.

    Raises:
        ModelError: the loss is not finite.
    """
    model.eval()  # gradients without dropout: the aim is the dense model's own outputs
    teacher.eval()
    folder.mkdir(parents=True, exist_ok=True)
    context = _precision(model, options)
    batches = Batches([len(text) for text in task.texts], options.batch_size, options.seed)
    steps = _fixed_steps(model, teacher, task, options, folder, context, batches)
    learner = stf(model, steps) if stf is not None and steps else None
    optimizer = _optimizer(model, options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min((done + 1) / max(1.0, options.warmup * steps), 1 - done / max(1, steps))
    )
    start, losses = _resume(folder / CHECKPOINT, model, optimizer, scheduler, task)
    last = time.monotonic()
    with tqdm(total=steps, initial=start, desc=description, unit=" steps") as bar:
        for step in range(start, steps):
            with context():
                loss = task.loss(model, teacher, batches(step))
            if not bool(torch.isfinite(loss)):
                raise ModelError(
                    f"training diverged: the loss of step {step + 1} is {float(loss)}",
                    remedy="use a lower learning rate or another seed",
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip)
            optimizer.step()
            scheduler.step()
            if learner is not None:
                learner.step(optimizer)
            losses = [*losses[-99:], float(loss.detach())]
            bar.update()
            bar.set_postfix(loss=f"{np.mean(losses[-20:]):.4f}", refresh=False)
            if time.monotonic() - last >= options.checkpoint_seconds and step + 1 < steps:
                _save(folder / CHECKPOINT, model, optimizer, scheduler, step + 1, losses, task)
                last = time.monotonic()
    tail = losses[-max(1, min(len(losses), steps // 10)) :]
    mean = round(float(np.mean(tail)), 6) if tail else None
    return {"steps": steps, "loss": mean, "resumed_at": start or None}


def _fixed_steps(
    model: Any,
    teacher: Any,
    task: Task,
    options: TrainingOptions,
    folder: Path,
    context: Callable[[], Any],
    batches: Batches,
) -> int:
    if options.steps is not None:
        return options.steps
    if options.minutes == 0:
        return 0
    file = folder / STEPS
    if file.exists():
        return int(json.loads(file.read_text())["steps"])
    times = []
    sample = batches.sample(TIMED_STEPS)
    for rows in (sample[-1], *sample):  # the first one warms up
        begun = time.monotonic()
        with context():
            loss = task.loss(model, teacher, rows)
        loss.backward()  # type: ignore[no-untyped-call]
        model.zero_grad(set_to_none=True)
        times.append(time.monotonic() - begun)
    each = sum(times[1:]) / TIMED_STEPS * 1.1  # the optimizer's own work
    steps = max(1, min(MOST_STEPS, int(60 * options.minutes / each)))
    write_json(file, {"steps": steps, "seconds_a_step": each})
    return steps


class Batches:
    """Row numbers of each step's texts: a new random order each pass, texts of like length together.

    A pass is cut into stretches of :data:`STRETCH` batches; within one, texts are sorted by length and the
    batches shuffled, so that little of a batch is padding. What a step gets is a function of the step alone.

    Args:
        lengths: of the texts.
        size: of a batch.
        seed: of the orders.
    """

    def __init__(self, lengths: Sequence[int], size: int, seed: int) -> None:
        self._lengths = np.asarray(lengths)
        self._size, self._seed = min(size, len(lengths)), seed
        self._pass, self._batches = -1, np.empty((0, 0), np.int64)

    def __call__(self, step: int) -> NDArray[np.int64]:
        """Int64 ``(size,)``."""
        each = max(1, len(self._lengths) // self._size)
        if step // each != self._pass:
            self._pass = step // each
            self._batches = self._shuffled(np.random.default_rng([self._seed, self._pass]), each)
        rows: NDArray[np.int64] = self._batches[step % each]
        return rows

    def sample(self, count: int) -> list[NDArray[np.int64]]:
        """Batches of the first pass from short texts to long ones."""
        self(0)
        batches = sorted(self._batches, key=lambda rows: int(self._lengths[rows].max()))
        return [batches[(2 * number + 1) * len(batches) // (2 * count)] for number in range(count)]

    def _shuffled(self, rng: np.random.Generator, each: int) -> NDArray[np.int64]:
        order = rng.permutation(len(self._lengths))[: each * self._size]
        batches = []
        for begin in range(0, len(order), STRETCH * self._size):
            part = order[begin : begin + STRETCH * self._size]
            part = part[np.argsort(self._lengths[part], kind="stable")].reshape(-1, self._size)
            batches.append(rng.permutation(part))
        return np.concatenate(batches)


def _optimizer(model: Any, options: TrainingOptions) -> Any:
    factors = {
        id(p) for module in model.modules() if isinstance(module, FactoredMatrix) for p in module.parameters()
    }
    factors |= {
        id(p) for name, p in model.named_parameters() if ".factors.left." in name or ".factors.right." in name
    }
    own = [p for p in model.parameters() if id(p) in factors]
    others = [p for p in model.parameters() if id(p) not in factors]
    groups = [{"params": own, "lr": options.lr}, {"params": others, "lr": options.lr_other}]
    return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.0)


def _precision(model: Any, options: TrainingOptions) -> Callable[[], Any]:
    device = next(iter((*model.parameters(), *model.buffers()))).device.type
    if options.precision == "fp32" or (options.precision == "auto" and not _has_bf16(device)):
        return lambda: torch.autocast(device, enabled=False)
    return lambda: torch.autocast(device, dtype=torch.bfloat16)


def _has_bf16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device == "cpu" and bool(native.load().linear.has_bf16())


def _save(
    path: Path, model: Any, optimizer: Any, scheduler: Any, step: int, losses: list[float], task: Task
) -> None:
    save_state(
        path,
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "step": step,
            "losses": losses,
            "task": task.state(),
        },
    )


def _resume(path: Path, model: Any, optimizer: Any, scheduler: Any, task: Task) -> tuple[int, list[float]]:
    if not path.exists():
        return 0, []
    state = load_state(path)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    task.restore(state.get("task", {}))
    return int(state["step"]), list(state["losses"])
