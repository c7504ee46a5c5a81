"""Checkpoints of ``transformers.Trainer`` that hold the state dict and count only when all is on the disk."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from leanmatch.errors import FormatError
from leanmatch.files import atomic_file, fsync_path
from leanmatch.trainer.parallel import first_decides, wait_for_all
from leanmatch.trainer.work_folder import MARKER

STATE_FILE = "state.safetensors"
PATIENCE = 20
"""Times what saving a checkpoint took that passes, at least, until the next one."""


class Stateful(Protocol):
    """What a checkpoint keeps beside the model and the optimizer, as tensors."""

    def state_dict(self) -> dict[str, Tensor]:
        """The state."""

    def load_state_dict(self, state: dict[str, Tensor]) -> Any:
        """Take what :meth:`state_dict` gave."""


def save_weights(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a state dict as safetensors, atomically."""
    with atomic_file(path) as temporary:
        save_file(
            {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}, temporary
        )


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read what :func:`save_weights` wrote, onto the CPU."""
    return load_file(path)


class StateCheckpoints:
    """Mixin for a trainer: checkpoints hold the state dict, and resuming loads it into the model at hand.

    The stock trainers save a model's folder and load it again by its configuration, which knows nothing of
    compressed layers, LoRA adapters or static encoders::

        class Trainer(StateCheckpoints, SentenceTransformerTrainer): ...

    For a compressed model, ``factorize`` it and make the ``STF`` as in the first run, then
    ``train(resume_from_checkpoint=...)``.
    """

    model: Any
    args: Any
    state: Any
    accelerator: Any

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(folder / STATE_FILE, self.accelerator.unwrap_model(self.model).state_dict())

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        file = Path(checkpoint_path) / STATE_FILE
        if not file.exists():
            raise FormatError(
                f"{checkpoint_path} is no checkpoint of {type(self).__name__}: it lacks {STATE_FILE}",
                remedy="resume from a checkpoint that the same trainer class wrote",
            )
        plain = self.accelerator.unwrap_model(model if model is not None else self.model)
        plain.load_state_dict(load_weights(file))

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint is not None:
            self._load_from_checkpoint(self.state.best_model_checkpoint)


class TimedCheckpoints(TrainerCallback):
    """Asks for a checkpoint every few seconds; marks it complete only when all of it is on the disk.

    Args:
        seconds: between two checkpoints, or :data:`PATIENCE` times what saving one takes if that is more;
            0 saves after each step.
        companions: what else is saved in each, by the file's name without its ending.
    """

    def __init__(self, seconds: float, companions: Mapping[str, Stateful]) -> None:
        self.seconds, self.companions = seconds, companions
        self.last, self._pause = time.monotonic(), seconds
        self._asked: float | None = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Ask for a checkpoint where one is due."""
        due = time.monotonic() - self.last >= self._pause and state.global_step < state.max_steps
        if first_decides(due):  # clocks differ, and a checkpoint holds the random state of every process
            control.should_save = True
            self._asked = time.monotonic()
        return control

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Complete the checkpoint that the trainer wrote."""
        wait_for_all()  # each process writes its random state into the checkpoint
        if state.is_world_process_zero:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            for name, companion in self.companions.items():
                save_weights(folder / f"{name}.safetensors", companion.state_dict())
            for file in folder.iterdir():
                fsync_path(file)
            (folder / MARKER).touch()
            fsync_path(folder)
        self.last = time.monotonic()
        if self._asked is not None and self.seconds:
            self._pause = max(self.seconds, PATIENCE * (self.last - self._asked))
        self._asked = None
        return control

    def restore(self, checkpoint: Path) -> None:
        """Give the companions what they had at a checkpoint."""
        for name, companion in self.companions.items():
            companion.load_state_dict(load_weights(checkpoint / f"{name}.safetensors"))
