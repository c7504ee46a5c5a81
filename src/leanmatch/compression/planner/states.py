"""Makes and evaluates the models of a plan: of less depth and healed, with first factors, trained.

Everything lies in the folder, by the plan's key, so that an interrupted run, or the next call for another
plan, makes nothing twice.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from leanmatch.compression.calibration import count_tokens
from leanmatch.compression.convert import Factored, compressed_layers, factorize, finalize, reopen
from leanmatch.compression.layer_specs import ROUNDING, DenseSpec, MixedRoundingSpec
from leanmatch.compression.planner.attempts import Attempt
from leanmatch.compression.planner.choice import Plan
from leanmatch.compression.planner.depth import without_layers
from leanmatch.compression.planner.evidence import Judgement, load_judgement, save_judgement
from leanmatch.compression.planner.quality import Quality, compare
from leanmatch.compression.planner.tasks import Task
from leanmatch.compression.planner.training import TrainingOptions, train_factors
from leanmatch.errors import ModelError
from leanmatch.files import write_json
from leanmatch.metrics.pace import in_words
from leanmatch.trainer.checkpoints import load_weights, save_weights
from leanmatch.trainer.pace import Spent

FACTOR_TEXTS = 12_288
"""Texts that first factors are made on, at most. With 3,072 they overfit: see docs/LOG.md, 2026-11-30."""
COUNTED_TEXTS = 50_000
"""Texts whose tokens are counted."""
PARTS = ("measuring", "factors", "training", "judging")
"""What the planner's time goes to."""
JUDGING, LEAST_JUDGING = 0.1, 30.0
"""Time that the dense model may take to encode the distractors: a share of the training's time, or so many
seconds if that is more. A compressed model takes a fraction of it."""
HEALING = 0.5
"""Share of the training for which a model of less depth is healed before its layers are factored."""
HEALING_RATE = 3e-4
"""Peak learning rate of all parameters while it is healed."""


class States:
    """The models of plans.

    Args:
        model: the dense model.
        task: texts, loss and score.
        folder: for all states.
        method: one of :data:`leanmatch.compression.planner.candidates.LINEAR_CANDIDATES`.
        training: how long and how.
        report: gets a sentence whenever something was evaluated.
        progress: bars on stderr.
        start: a compressed model, whose layers every plan starts with in place of first factors.

    Raises:
        ModelError: the dense model has no quality that could be kept.
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        folder: Path,
        *,
        method: str,
        training: TrainingOptions,
        report: Callable[[str], None],
        progress: bool,
        start: Any = None,
    ) -> None:
        self.model, self.task, self.folder, self.method = model, task, folder, method
        self.training, self.report, self.progress, self.start = training, report, progress, start
        self.spent = Spent(folder / "spent.json", PARTS)
        self._tables: dict[tuple[int, ...], Factored] = {}  # what is factored alone, by dropped layers
        self._prepare_judging()
        kept = folder / "dense.safetensors"
        if not kept.exists():
            among = "" if task.candidates is None else f" among {task.candidates:,} candidates"
            report(f"measuring the dense model's {task.metric} on held-out data{among}")
            save_judgement(kept, self._judged(model))
        self._dense = load_judgement(kept)
        mean = float(self._dense.scores.mean())
        if not np.isfinite(self._dense.scores).all() or mean <= 0:
            raise ModelError(
                f"the dense model's {task.metric} on the held-out data is {mean:.4f}",
                remedy="its quality cannot be kept: check model and data",
            )

    @property
    def trains(self) -> bool:
        """Whether there is time for any training step."""
        steps, minutes = self.training.steps, self.training.minutes
        return bool(minutes if steps is None else steps)

    def one_shot(self, rung: int, plan: Plan) -> Attempt:
        """The plan's first factors, evaluated once."""
        file = self._folder(plan) / "one-shot.json"
        if not file.exists():
            model = self._factored(plan)
            finalize(model)
            errors = layer_errors(self._base(plan), model)
            write_json(file, {"quality": self._quality(model).to_json(), "errors": errors})
        record = json.loads(file.read_text(encoding="utf-8"))
        quality = Quality(**record["quality"])
        what = "one shot at" if self.start is None else "before more training,"
        self.report(f"{what} {plan.label}: {quality.sentence()}")
        return Attempt(rung, plan, quality, record["errors"], {"steps": 0, "loss": None})

    def trained(self, rung: int, plan: Plan) -> Attempt:
        """The plan after training."""
        folder = self._folder(plan)
        done, result = folder / "final.safetensors", folder / "training.json"
        if not done.exists():
            model = self._factored(plan)
            history = self._train(
                model,
                self._share(1 - HEALING) if plan.dropped and self.start is None else self.training,
                folder,
                f"training, {plan.label}",
            )
            finalize(model)
            record = {
                "training": history,
                "quality": self._quality(model).to_json(),
                "errors": layer_errors(self._base(plan), model),
            }
            write_json(result, record)
            save_weights(done, model.state_dict())
            _remove_checkpoints(folder)
        record = json.loads(result.read_text(encoding="utf-8"))
        quality = Quality(**record["quality"])
        self.report(f"{plan.label}, trained: {quality.sentence()}")
        return Attempt(rung, plan, quality, record["errors"], record["training"])

    def model_of(self, attempt: Attempt) -> Any:
        """The model of an attempt, made again: factors are kept, trained weights lie in the folder."""
        model = self._factored(attempt.plan)
        finalize(model)
        if attempt.trained:
            model.load_state_dict(load_weights(self._folder(attempt.plan) / "final.safetensors"))
        return model.eval()

    def sample(self, count: int) -> list[str]:
        """A fixed random sample of the training texts."""
        order = np.random.default_rng(0).permutation(len(self.task.texts))[:count]
        return [self.task.texts[row] for row in order]

    @cached_property
    def token_counts(self) -> NDArray[np.int64] | None:
        """How often each token occurs in the training texts, a sample of at most :data:`COUNTED_TEXTS`."""
        return count_tokens(self.model, self.sample(COUNTED_TEXTS), tokenizer=self.task.tokenizer)

    def timed(self, part: str) -> AbstractContextManager[None]:
        """Add what the block takes to a part of :attr:`spent`."""
        return self.spent.on(part)

    def _factored(self, plan: Plan) -> Any:
        """A copy of the model with the plan's first factors, or of the one to start from."""
        if self.start is not None:
            return reopen(copy.deepcopy(self.start))
        model = copy.deepcopy(self._base(plan))
        counted = any(isinstance(rule.layer, MixedRoundingSpec) for rule in plan.spec.rules)
        with self.timed("factors"):
            factorize(
                model,
                plan.spec,
                calibration_texts=None if _only_rounds(plan) else self.sample(FACTOR_TEXTS),
                tokenizer=self.task.tokenizer,
                progress=self.progress,
                folder=self._folder(plan) / "factors",
                cache=self._tables.setdefault(plan.dropped, {}),
                token_counts=self.token_counts if counted else None,
            )
        return model

    def _base(self, plan: Plan) -> Any:
        """The dense model. With fewer encoder layers it is healed by distillation from the whole one, unless
        a model to start from has been healed already."""
        if not plan.dropped:
            return self.model
        if self.start is not None:
            return without_layers(self.model, plan.dropped)
        share = 1.0 if _only_rounds(plan) else HEALING  # codes do not train: all the time is for healing
        folder = self.folder / f"without-{'-'.join(map(str, plan.dropped))}-{share:g}"
        done = folder / "final.safetensors"
        model = without_layers(self.model, plan.dropped)
        if not done.exists():
            options = self._share(share)
            options = replace(options, lr=HEALING_RATE, lr_other=HEALING_RATE)
            self._train(model, options, folder, f"healing without encoder layers {_listed(plan.dropped)}")
            save_weights(done, model.state_dict())
            _remove_checkpoints(folder)
        model.load_state_dict(load_weights(done))
        return model.eval()

    def _train(self, model: Any, options: TrainingOptions, folder: Path, description: str) -> dict[str, Any]:
        if options.steps is None and options.minutes:
            self.report(f"{description}: about {in_words(60 * options.minutes)}")
        with self.timed("training"):
            return train_factors(model, self.model, self.task, options, folder, description=description)

    def _share(self, share: float) -> TrainingOptions:
        training = self.training
        if training.steps is not None:
            return replace(training, steps=round(share * training.steps))
        return replace(training, minutes=share * training.minutes)

    def _prepare_judging(self) -> None:
        """Fix the size of the search. It is kept in the folder: it hangs on how fast this machine is now."""
        file = self.folder / "judging.json"
        minutes = math.inf if self.training.steps is not None else self.training.minutes
        seconds = max(LEAST_JUDGING, 60 * JUDGING * minutes)
        former = json.loads(file.read_text(encoding="utf-8"))["distractors"] if file.exists() else None
        with self.timed("judging"):
            count = self.task.prepare(self.model, seconds, former)
        write_json(file, {"distractors": count})

    def _judged(self, model: Any) -> Judgement:
        with self.timed("judging"):
            return self.task.judge(model)

    def _quality(self, model: Any) -> Quality:
        judged = self._judged(model)
        evidence = self.task.evidence(self._dense, judged)
        task = self.task
        return compare(
            task.metric,
            self._dense.scores,
            judged.scores,
            evidence,
            task.slices,
            candidates=task.candidates,
        )

    def _folder(self, plan: Plan) -> Path:
        folder = self.folder / f"plan-{plan.key}"
        folder.mkdir(exist_ok=True)
        return folder


def _only_rounds(plan: Plan) -> bool:
    return all(isinstance(rule.layer, (*ROUNDING, DenseSpec)) for rule in plan.spec.rules)


def _remove_checkpoints(folder: Path) -> None:
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def layer_errors(dense: Any, model: Any) -> dict[str, float]:
    """``|W - W^|^2 / |W|^2`` of each compressed layer, ``W`` being the dense model's weight."""
    errors = {}
    with torch.no_grad():
        for name, layer in compressed_layers(model).items():
            weight = dense.get_submodule(name).weight.float()
            lost = (weight - layer.factors.weight().to(weight)).square().sum()
            errors[name] = float(lost / weight.square().sum().clamp_min(1e-30))
    return errors
