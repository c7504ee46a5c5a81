"""How long training will take, measured by one step of each run before the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from leanmatch.metrics.pace import in_words
from leanmatch.models.adapter import on_device, tokenize
from leanmatch.trainer.pace import seconds_a_step

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import nn


def step_seconds(model: Any, loss: nn.Module, dataset: Dataset, batch_size: int) -> float:
    """Seconds of one training step on a random batch. Weights stay as they are; gradients are dropped.

    Args:
        model: the model in training.
        loss: made for ``model`` alone: a base model's cache must not be that of the run.
        dataset: text columns.
        batch_size: pairs of the step.
    """
    rows = np.random.default_rng(0).permutation(len(dataset))[:batch_size].tolist()
    training = model.training
    model.train()

    def passes(batch: list[int]) -> None:
        texts = dataset[batch]
        features = [on_device(tokenize(model, texts[name]), model) for name in dataset.column_names]
        loss(features, torch.arange(len(batch), device=model.device)).backward()
        model.zero_grad(set_to_none=True)

    seconds = seconds_a_step(passes, [rows[:4], rows])
    model.train(training)
    return seconds


def steps_within(minutes: float, seconds: Sequence[float], most: int, choice: float) -> int:
    """Steps of each run so that all runs and the choice after them end in time; at least 1, at most ``most``.

    Args:
        minutes: for everything.
        seconds: a step's, of each run.
        most: steps that were asked for.
        choice: seconds of the choice; no more than half of the time is kept for it.

    >>> steps_within(1, [1.0, 2.0], 50, 12), steps_within(1, [0.001], 50, 0), steps_within(0.1, [9.0], 5, 0)
    (16, 50, 1)
    """
    left = 60 * minutes - min(choice, 30 * minutes)
    return max(1, min(most, int(left / max(sum(seconds), 1e-9))))


def training_in_words(runs: Sequence[tuple[str, int, float]], choice: float, texts: int) -> str:
    """The estimate as a sentence.

    Args:
        runs: name, steps, and seconds of a step.
        choice: seconds of the choice.
        texts: validation texts.

    >>> training_in_words([("plain", 50, 1.9), ("itv", 50, 3.0)], 30.0, 640)  # doctest: +NORMALIZE_WHITESPACE
    'training takes about 5 minutes: 50 steps at 1.90 s (plain), 50 steps at 3.00 s (itv), and 30 seconds
    for the choice on 640 validation texts'
    """
    text = ", ".join(
        f"{steps:,} {'step' if steps == 1 else 'steps'} at {each:.2f} s ({name})"
        for name, steps, each in runs
    )
    if choice:
        text += f", and {in_words(choice)} for the choice on {texts:,} validation texts"
    total = sum(steps * each for _, steps, each in runs) + choice
    return f"training takes about {in_words(total)}: {text}"
