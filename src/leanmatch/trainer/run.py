"""One run of a trainer: progress on stderr, timed checkpoints, and the place where a killed run was."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from torch import Tensor
from tqdm import tqdm
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from leanmatch.errors import ModelError
from leanmatch.memory import malloc_trim, resident_bytes, return_freed
from leanmatch.trainer.checkpoints import StateCheckpoints, Stateful, TimedCheckpoints
from leanmatch.trainer.work_folder import last_checkpoint

KEPT_LOSSES = 100
SHOWN_LOSSES = 20
GROWTH = 1.15
"""How far the process may grow after the first step that follows a trim."""
COMMON_ARGUMENTS: dict[str, Any] = {
    "weight_decay": 0.0,
    "logging_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}
"""Arguments of every trainer here: what it would report, :func:`run` does."""


class Losses:
    """The losses of a run's last steps."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def append(self, value: float) -> None:
        """Add a step's."""
        self.values = [*self.values[1 - KEPT_LOSSES :], value]

    def mean(self, count: int) -> float | None:
        """Of the last ``count`` steps, as far as they are kept; None before the first step."""
        return float(np.mean(self.values[-max(1, count) :])) if self.values else None

    def state_dict(self) -> dict[str, Tensor]:
        """The values, float64."""
        return {"values": torch.tensor(self.values, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take what :meth:`state_dict` gave."""
        self.values = state["values"].tolist()


class Elapsed:
    """Seconds of training that a run's weights took: up to the checkpoint it goes on from, and since."""

    def __init__(self) -> None:
        self._before, self._begun = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Until now."""
        return self._before + time.perf_counter() - self._begun

    def state_dict(self) -> dict[str, Tensor]:
        """The seconds, float64."""
        return {"seconds": torch.tensor(self.seconds, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take what :meth:`state_dict` gave."""
        self._before = float(state["seconds"])


class ResumableTrainer(StateCheckpoints):
    """Mixin for a trainer that :func:`run` runs: keeps the losses of its last steps and checks each."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.losses = Losses()

    def training_step(self, *arguments: Any, **options: Any) -> Any:
        """The stock trainer's.

        Raises:
            ModelError: the loss is not finite.
        """
        loss = super().training_step(*arguments, **options)  # type: ignore[misc]
        value = float(loss)
        if not np.isfinite(value):
            raise ModelError(
                f"training diverged: the loss of step {self.state.global_step + 1} is {value}",
                remedy="use a lower learning rate (lr) or another seed",
                command="use a lower learning rate (--lr) or another --seed",
            )
        self.losses.append(value)
        return loss


def run(
    trainer: Any,
    stage: Path,
    *,
    checkpoint_seconds: float,
    description: str,
    loss: Any = None,
    companions: Mapping[str, Stateful] | None = None,
) -> dict[str, Any]:
    """Train, continuing from the newest complete checkpoint in ``stage``.

    Args:
        trainer: a stock trainer with :class:`ResumableTrainer`, whose ``output_dir`` is ``stage``.
        stage: folder for checkpoints.
        checkpoint_seconds: between two checkpoints.
        description: shown beside the progress bar.
        loss: its ``components`` (name to value) are shown as well.
        companions: what else a resumed run needs to give the same bits, by name.

    Returns:
        ``steps``, ``resumed_at``, ``seconds`` (after a resume also those up to the checkpoint) and ``loss``
        (mean of the last tenth of the steps, at most 100).

    Raises:
        ModelError: the loss is not finite.
    """
    elapsed = Elapsed()
    kept = {"losses": trainer.losses, "elapsed": elapsed, **(companions or {})}
    checkpoints = TimedCheckpoints(checkpoint_seconds, kept)
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(Progress(description, trainer.losses, loss))
    trainer.add_callback(checkpoints)
    trainer.add_callback(ReturnedMemory())
    with PartialState().main_process_first():
        checkpoint = last_checkpoint(stage)  # the first process removes what is half-written
    if checkpoint:
        checkpoints.restore(checkpoint)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    steps = trainer.state.global_step
    mean = trainer.losses.mean(steps // 10)
    return {
        "steps": steps,
        "resumed_at": int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else None,
        "seconds": round(elapsed.seconds, 2),
        "loss": None if mean is None else round(mean, 6),
    }


class ReturnedMemory(TrainerCallback):
    """Gives freed memory back to the system whenever the process has grown by 15% (:data:`GROWTH`).

    Batches differ in length, and so do their tensors. glibc keeps what they leave behind, in pieces that the
    next batch cannot use: a process that trains a BERT-base grew by 100 MB a step. Elsewhere than on glibc
    this does nothing.
    """

    def __init__(self) -> None:
        self._usual: int | None = None  # after the first step with a trimmed heap

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Trim the heap where it has grown."""
        if malloc_trim() is None:
            return
        now = resident_bytes()
        if self._usual is None:
            self._usual = now
        elif now > GROWTH * self._usual:
            return_freed()
            self._usual = None


class Progress(TrainerCallback):
    """A bar on stderr with the loss and its parts."""

    def __init__(self, description: str, losses: Losses, loss: Any = None) -> None:
        self.description, self.losses, self.loss = description, losses, loss
        self.bar: tqdm[Any] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar."""
        if state.is_world_process_zero:
            self.bar = tqdm(
                total=state.max_steps, initial=state.global_step, desc=self.description, unit=" steps"
            )

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move it."""
        if self.bar is not None:
            if state.global_step % 10 == 0:
                parts = {"loss": self.losses.mean(SHOWN_LOSSES), **getattr(self.loss, "components", {})}
                self.bar.set_postfix(
                    {name: f"{float(value):.4f}" for name, value in parts.items()}, refresh=False
                )
            self.bar.update(1)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close it."""
        if self.bar is not None:
            self.bar.close()
