"""What the tasks of ``compression.py`` share: convert, train, finalize, score; and the descent itself."""

from __future__ import annotations

import argparse
import copy
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from compression_methods import Contestant

from leanmatch.compression import STF, CompressionSpec, default_spec, factorize, finalize, model_cost

WARMUP = 20


class Task(ABC):
    """A dense model, and how compressed ones are trained and scored against it."""

    options: argparse.Namespace
    teacher: Any
    _dense: dict[str, Any] | None = None

    @abstractmethod
    def calibration_texts(self) -> list[str]:
        """Texts for the first factors."""

    @abstractmethod
    def scores(self, model: Any) -> dict[str, Any]:
        """Every metric's mean, and the values of all queries for paired intervals."""

    @abstractmethod
    def fine_tune(self, model: Any, contestant: Contestant, steps: int, seed: int) -> list[Any]:
        """Train a converted model in place; the history."""

    def spec(self, model: Any, contestant: Contestant) -> CompressionSpec:
        """What is compressed, and how."""
        return default_spec(
            model, contestant.layer, embeddings=contestant.embeddings, positions=contestant.positions
        )

    def loss(self, model: Any) -> dict[str, Any]:
        """The distillation's losses on texts that were not trained on, where the task has them."""
        return {}

    def saved(self, model: Any, spec: CompressionSpec, label: str) -> dict[str, Any]:
        """Write the final model where the task can; what is to be reported of the folder."""
        return {}

    def run(self, name: str, contestant: Contestant, steps: int, seed: int) -> dict[str, Any]:
        """Convert, score, train, finalize and score again."""
        torch.manual_seed(seed)
        model = copy.deepcopy(self.teacher)
        start = time.process_time()
        spec = self.spec(model, contestant)
        conversion = factorize(
            model,
            spec,
            calibration_texts=self.calibration_texts(),
            seed=seed,
        )
        result: dict[str, Any] = {
            "conversion_seconds": time.process_time() - start,
            "mean_error": conversion.mean_error,
            **{f"one_shot_{key}": value for key, value in self.loss(model).items()},
        }
        if self.options.one_shot:
            result["one_shot"] = self.scores(model)
        if contestant.trained and steps:
            start = time.process_time()
            result["history"] = self.fine_tune(model, contestant, steps, seed)
            result["training_seconds"] = time.process_time() - start
        finalize(model)
        cost = model_cost(model)
        return result | {
            **self.saved(model, spec, f"{name}-{contestant.layer.nonzeros}-{steps}-{seed}"),
            "mac_ratio": cost.mac_ratio,
            "byte_ratio": cost.byte_ratio,
            "model_bytes": cost.bytes,
            **self.loss(model),
            "final": self.scores(model),
            "dense": self.dense,
        }

    @property
    def dense(self) -> dict[str, Any]:
        """The teacher's scores."""
        if self._dense is None:
            self._dense = self.scores(self.teacher)
        return self._dense


def descend(
    model: Any,
    parameters: list[Any],
    lr: float,
    steps: int,
    loss_of: Callable[[int], torch.Tensor],
    stf: STF | None = None,
) -> list[Any]:
    """AdamW with a linear warm-up and decay; ``loss_of(step)``, steps from 1. Returns the history."""
    model.train()
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    history: list[Any] = []
    running = 0.0
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, step / WARMUP) * (1 - (step - 1) / steps)
        loss = loss_of(step)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if stf is not None:
            stf.step(optimizer)
        now = float(loss.detach())
        running = now if step == 1 else 0.95 * running + 0.05 * now
        if step % 20 == 0 or step == steps:
            history.append({"step": step, "loss": running})
            print(step, f"loss {running:.4f}", f"{time.process_time():.0f} s", flush=True)
    return history + (stf.history if stf is not None else [])


def without_dropout(model: Any) -> None:
    """Distillation wants the teacher's very output."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
