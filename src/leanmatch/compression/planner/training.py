"""Trains compressed layers on any task for a given time.

The number of steps is fixed once, from the time that a few take, and stored in the folder, so that a resumed
run makes as many steps as an unbroken one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import Trainer, TrainingArguments

from leanmatch import native
from leanmatch.compression.layers import CompressedLinear
from leanmatch.compression.matrices import FactoredMatrix
from leanmatch.compression.planner.tasks import Task
from leanmatch.errors import UsageError
from leanmatch.trainer.pace import fixed_steps, seconds_a_step
from leanmatch.trainer.run import COMMON_ARGUMENTS, ResumableTrainer, run

TIMED_STEPS = 5
MOST_STEPS = 200_000
WIDTH = 384
"""Inputs of a layer up to which factors get the full rate."""
ORDER = 1
"""Added to the seed of the order of texts. Without it, seed 0 would begin with the texts that the first
factors were fitted on: NumPy draws the same numbers from ``[0, 0]`` as from 0."""


@dataclass(frozen=True)
class TrainingOptions:
    """How compressed layers are trained.

    Attributes:
        minutes: time for the steps; 0 trains nothing.
        steps: number of steps in place of ``minutes``.
        batch_size: texts a step.
        lr: peak learning rate of the factors (AdamW, linear warm-up and decay) where the narrowest compressed
            layer has at most :data:`WIDTH` inputs; in wider models it is multiplied by ``WIDTH / inputs``.
        lr_other: of all other parameters: tables, norms, biases.
        warmup: share of the steps in which the rates rise.
        clip: largest norm of the gradient.
        seed: of the order of texts.
        begin: number of the first batch in that order; a further training does not begin with the same texts.
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
    begin: int = 0
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
    description: str = "training",
) -> dict[str, Any]:
    """Train a factored model in place, continuing from the checkpoint in ``folder``.

    Args:
        model: after :func:`leanmatch.compression.factorize`.
        teacher: the dense model.
        task: gives texts and loss.
        options: see :class:`TrainingOptions`.
        folder: for checkpoints.
        description: shown beside the bar.

    Returns:
        See :func:`leanmatch.trainer.run.run`.

    Raises:
        ModelError: the loss is not finite.
    """
    teacher.eval()
    folder.mkdir(parents=True, exist_ok=True)
    student = _Student(model, teacher, task, _precision(model, options))
    batches = Batches(len(task.texts), options.batch_size, options.seed, options.begin)
    steps = _count_steps(student, options, folder, batches)
    if steps == 0:
        return {"steps": 0, "resumed_at": None, "seconds": 0.0, "loss": None}
    optimizer = _optimizer(model, options)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda done: min((done + 1) / max(1.0, options.warmup * steps), 1 - done / steps)
    )
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        max_grad_norm=options.clip,
        per_device_train_batch_size=1,  # an item of the data is a batch already
        remove_unused_columns=False,
        save_strategy="no",
        save_total_limit=1,
        seed=options.seed,
        use_cpu=_device_of(model) == "cpu",
        **COMMON_ARGUMENTS,
    )
    trainer = _Trainer(
        model=student,
        args=arguments,
        train_dataset=_Steps(batches, steps),
        data_collator=lambda items: items[0],
        optimizers=(optimizer, scheduler),
    )
    return run(
        trainer,
        folder,
        checkpoint_seconds=options.checkpoint_seconds,
        description=description,
        companions={"task": task},
    )


def _count_steps(student: _Student, options: TrainingOptions, folder: Path, batches: Batches) -> int:
    if options.steps is not None:
        return options.steps
    if options.minutes == 0:
        return 0

    def passes(rows: NDArray[np.int64]) -> None:
        student(torch.from_numpy(rows))["loss"].backward()
        student.zero_grad(set_to_none=True)

    def measure() -> int:
        seconds = seconds_a_step(passes, [batches(step) for step in range(1 + TIMED_STEPS)])
        return max(1, min(MOST_STEPS, int(60 * options.minutes / seconds)))

    return fixed_steps(folder, measure)


class _Student(torch.nn.Module):
    """The model with the task's loss, as a trainer calls it.

    Gradients come without dropout: the aim is the dense model's own outputs.
    """

    def __init__(self, model: Any, teacher: Any, task: Task, precision: Callable[[], Any]) -> None:
        super().__init__()
        self.model, self._task, self._precision = model.eval(), task, precision
        self._teacher = (teacher,)  # in a tuple: no submodule, whose weights would be trained and saved

    def train(self, mode: bool = True) -> _Student:
        """Never: dropout stays off."""
        return self

    def forward(self, rows: Tensor) -> dict[str, Tensor]:
        """The loss of the texts in int64 ``rows``."""
        with self._precision():
            return {"loss": self._task.loss(self.model, self._teacher[0], rows.cpu().numpy())}


class _Trainer(ResumableTrainer, Trainer):
    """Steps in their own order."""

    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(cast(_Steps, self.train_dataset))


class _Steps:
    """A data set whose items are the batches of the steps."""

    def __init__(self, batches: Batches, steps: int) -> None:
        self._batches, self._steps = batches, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return {"rows": torch.from_numpy(self._batches(step))}


class Batches:
    """Row numbers of each step's texts: a new random order each pass.

    What a step gets depends on the seed and the step alone. Texts are not sorted by length: short and long
    texts may be of different kinds (questions, product titles), and steps on one kind work against the other.

    Args:
        texts: how many there are.
        size: of a batch.
        seed: of the orders.
        begin: number of the batch that step 0 gets.
    """

    def __init__(self, texts: int, size: int, seed: int, begin: int = 0) -> None:
        self._texts, self._size, self._seed, self._first = texts, min(size, texts), seed, begin
        self._pass, self._order = -1, np.empty(0, np.int64)

    def __call__(self, step: int) -> NDArray[np.int64]:
        """Int64 ``(size,)``."""
        step += self._first
        each = max(1, self._texts // self._size)
        if step // each != self._pass:
            self._pass = step // each
            rng = np.random.default_rng([self._seed, self._pass, ORDER])
            self._order = rng.permutation(self._texts)
        begin = step % each * self._size
        return self._order[begin : begin + self._size]


def _optimizer(model: Any, options: TrainingOptions) -> Any:
    factors = {
        id(p) for module in model.modules() if isinstance(module, FactoredMatrix) for p in module.parameters()
    }
    factors |= {
        id(p) for name, p in model.named_parameters() if ".factors.left." in name or ".factors.right." in name
    }
    own = [p for p in model.parameters() if id(p) in factors]
    others = [p for p in model.parameters() if id(p) not in factors]
    widths = [layer.in_features for layer in model.modules() if isinstance(layer, CompressedLinear)]
    rate = options.lr * min(1.0, WIDTH / min(widths, default=WIDTH))
    groups = [{"params": own, "lr": rate}, {"params": others, "lr": options.lr_other}]
    return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.0)


def _precision(model: Any, options: TrainingOptions) -> Callable[[], Any]:
    device = _device_of(model)
    if options.precision == "fp32" or (options.precision == "auto" and not _has_bf16(device)):
        return lambda: torch.autocast(device, enabled=False)
    return lambda: torch.autocast(device, dtype=torch.bfloat16)


def _device_of(model: Any) -> str:
    return str(next(iter((*model.parameters(), *model.buffers()))).device.type)


def _has_bf16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device == "cpu" and bool(native.load().linear.has_bf16())
