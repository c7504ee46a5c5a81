"""What ``transformers.Trainer`` and ``SentenceTransformerTrainer`` need for compressed models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from leanmatch.compression.checkpoints import load_state, save_state
from leanmatch.errors import FormatError

STATE_FILE = "compressed.pt"


class STFCallback(TrainerCallback):
    """Calls :meth:`STF.step` after every optimizer step of a trainer.

    Args:
        stf: the :class:`leanmatch.compression.STF`.
    """

    def __init__(self, stf: Any) -> None:
        self.stf = stf

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the run's length from the trainer where it was not given."""
        if self.stf.total_steps is None:
            self.stf.total_steps = state.max_steps

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Count the step and refresh supports where one is due."""
        optimizer = kwargs.get("optimizer")
        self.stf.step(getattr(optimizer, "optimizer", optimizer))


class CompressedCheckpoints:
    """Mixin for a trainer: checkpoints hold the state dict, and resuming loads it into the model at hand.

    The stock trainers save a model's folder and load it again by its configuration, which knows nothing of
    compressed layers::

        class Trainer(CompressedCheckpoints, SentenceTransformerTrainer): ...

    Build the model, ``factorize`` it and make the ``STF`` as in the first run, then
    ``train(resume_from_checkpoint=...)``.
    """

    model: Any
    args: Any
    state: Any
    accelerator: Any

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(str(output_dir or self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model)
        save_state(folder / STATE_FILE, model.state_dict())

    def _load_from_checkpoint(self, checkpoint_path: str, model: Any = None) -> None:
        file = Path(checkpoint_path) / STATE_FILE
        if not file.exists():
            raise FormatError(
                f"{checkpoint_path} is no checkpoint of a compressed model: it lacks {STATE_FILE}",
                remedy="resume from a checkpoint that the same trainer class wrote",
            )
        plain = self.accelerator.unwrap_model(model if model is not None else self.model)
        plain.load_state_dict(load_state(file))

    def _load_best_model(self) -> None:
        if self.state.best_model_checkpoint is not None:
            self._load_from_checkpoint(self.state.best_model_checkpoint)
