"""What ``transformers.Trainer`` and ``SentenceTransformerTrainer`` need for compressed models."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from leanmatch.trainer.checkpoints import StateCheckpoints

__all__ = ["STFCallback", "StateCheckpoints"]


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
