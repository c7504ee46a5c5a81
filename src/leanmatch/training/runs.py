"""The training runs of a recipe: one for each weight of the regularizer, timed, checked, continued."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanmatch.errors import DataError, ModelError, UsageError
from leanmatch.models import Prompts
from leanmatch.models.adapter import transformer_of
from leanmatch.trainer.checkpoints import load_weights, save_weights
from leanmatch.trainer.pace import fixed_steps
from leanmatch.trainer.parallel import wait_for_all
from leanmatch.trainer.work_folder import WorkFolder
from leanmatch.training.adapters import add_lora, freeze_layers, merge_lora
from leanmatch.training.base_scores import FrozenBase
from leanmatch.training.dataset import most_repeated, training_dataset
from leanmatch.training.engine import process_state, total_steps, train_stage
from leanmatch.training.estimate import CANDIDATES, step_seconds, steps_within, training_in_words
from leanmatch.training.losses import ITVReg, MaskingLoss, OutReg, PlainLoss
from leanmatch.training.selection.choice import WEIGHTS, mixtures
from leanmatch.training.selection.evaluator import PairTableEvaluator, encode_function

if TYPE_CHECKING:
    from torch import Tensor, nn

    from leanmatch.data import PairTable
    from leanmatch.training.options import TrainOptions
    from leanmatch.types import EncodeFunction

METRIC = "MRR@10"
TRANSFORMER_LR = 2e-5
STATIC_LR = 1e-2
FINAL = "final.safetensors"
"""The weights that a run ended with."""


class Runs:
    """A run for each weight, each from the base model; runs that are done are read from the work folder."""

    def __init__(
        self,
        model: Any,
        start: dict[str, Tensor],
        train: PairTable,
        slices: dict[str, PairTable],
        options: TrainOptions,
        folder: WorkFolder,
        pace: float,
        remark: Callable[[str], None],
        report: Callable[[str], None],
        encoder_of: Callable[[Any], EncodeFunction],
    ) -> None:
        self.model, self.start, self.slices, self.folder = model, start, slices, folder
        self.remark, self.report = remark, report
        self.encoder_of = encode_function if options.lora_rank else encoder_of  # adapters are torch's alone
        self.base = FrozenBase(model)
        self.dataset, remarks = training_dataset(train, options, self.base.model)
        self.texts = sum(len({*table.anchors, *table.positives}) for table in slices.values())
        self.choice_seconds = self.texts * pace * CANDIDATES[len(mixtures(run_weights(options)))]
        for message in [*remarks, *self._repeated(options.schedule.batch_size)]:
            remark(message)
        self.options = self._timed(options)

    def train_all(self) -> tuple[dict[float, dict[str, Tensor]], dict[str, dict[str, Any]]]:
        """The weights that each run ends with, and the runs' histories."""
        from transformers import set_seed

        options, model = self.options, self.model
        finals: dict[float, dict[str, Tensor]] = {}
        history: dict[str, dict[str, Any]] = {}
        for weight in run_weights(options):
            stage = self._stage(weight)
            done = stage / FINAL
            if not done.exists():
                set_seed(options.schedule.seed)
                model.load_state_dict(self.start)
                history[stage.name] = self._train(weight, stage)
                _check_finite(model.state_dict(), stage.name)
                if not options.schedule.early_stopping:  # it may keep the very first weights
                    _check_moved(self.start, model.state_dict(), stage.name)
                with process_state(options.schedule).main_process_first():
                    if not done.exists():
                        save_weights(done, model.state_dict())
            finals[weight] = load_weights(done)
        wait_for_all()  # the caller's first process may remove the folder that the others read
        return finals, history

    def _stage(self, weight: float) -> Path:
        return self.folder.stage(f"weight-{weight:g}")

    def _repeated(self, batch: int) -> list[str]:
        rows, repeated = len(self.dataset), most_repeated(self.dataset)
        if repeated == rows and self.dataset.column_names == ["anchor", "positive"]:
            raise DataError(
                f"one text stands in all {repeated:,} training pairs: no batch can hold two of them, so "
                "there is nothing to learn from",
                remedy="give pairs of several positives, or negatives (rows with label 0)",
            )
        if repeated * batch <= 2 * rows:
            return []
        return [
            f"a batch holds no text twice, and one stands in {repeated:,} of {rows:,} pairs: "
            f"batches have about {rows / repeated:.0f} pairs instead of {batch}"
        ]

    def _timed(self, options: TrainOptions) -> TrainOptions:
        """Say how long it will take; with ``minutes``, the options with the number of steps that fit."""
        schedule = options.schedule
        processes = process_state(schedule).num_processes
        pending = [weight for weight in run_weights(options) if not (self._stage(weight) / FINAL).exists()]
        if processes > 1:
            if schedule.minutes is not None:
                raise UsageError(
                    "minutes needs one process: several would measure different steps",
                    remedy="give max_steps under torchrun",
                    command="give --max-steps under torchrun",
                )
            return options
        steps = total_steps(len(self.dataset), schedule, 1, most_repeated(self.dataset))
        seconds = {}
        for weight in pending:
            loss = build_loss(self.model, self.base.fresh(), options, weight)
            each = step_seconds(self.model, loss, self.dataset, schedule.batch_size)
            seconds[_run_name(options, weight)] = each
        if schedule.minutes is not None:
            minutes, longest = schedule.minutes, steps
            steps = fixed_steps(
                self.folder.path,
                lambda: steps_within(minutes, [*seconds.values()], longest, self.choice_seconds),
            )
            options = replace(options, schedule=replace(schedule, max_steps=steps))
        if seconds:
            self.report(training_in_words(steps, seconds, self.choice_seconds, self.texts))
        return options

    def _train(self, weight: float, stage: Path) -> dict[str, Any]:
        options, model, valid = self.options, self.model, self.slices.get("valid")
        schedule = options.schedule
        if options.freeze_layers:
            freeze_layers(model, options.freeze_layers)
        if options.lora_rank:
            add_lora(model, options.lora_rank)
        evaluator = None
        if schedule.early_stopping and valid is not None:
            evaluator = PairTableEvaluator(valid, METRIC, encoder_of=self.encoder_of)
        history = train_stage(
            model,
            build_loss(model, self.base, options, weight),
            self.dataset,
            schedule,
            stage,
            lr=schedule.lr if schedule.lr is not None else default_lr(model),
            evaluator=evaluator,
            description=f"train, {_run_name(options, weight)}",
        )
        merge_lora(model)
        model.requires_grad_(True)
        return history


def _check_finite(state: dict[str, Tensor], stage: str) -> None:
    for name, value in state.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ModelError(
                f"training {stage} diverged: {name} holds values that are not finite",
                remedy="lower the learning rate (lr) and start anew with resume=False",
                command="lower the learning rate (--lr) and start anew with --no-resume",
            )


def _check_moved(start: dict[str, Tensor], state: dict[str, Tensor], stage: str) -> None:
    import torch

    if all(torch.equal(start[name], value.cpu()) for name, value in state.items()):
        raise ModelError(
            f"training {stage} changed no weight of the base model",
            remedy="a batch needs two pairs with different texts: check the columns, and how often each "
            "positive repeats (leanmatch data check)",
        )


def build_loss(model: Any, base: FrozenBase, options: TrainOptions, weight: float) -> nn.Module:
    """The loss that the options name."""
    regularizer, size = options.regularizer, options.schedule.mini_batch_size
    if regularizer.kind == "itv" and weight > 0:
        return ITVReg(
            model,
            base,
            weight=weight,
            interventions=regularizer.interventions,
            per_text=regularizer.per_text,
            unit=regularizer.unit,
            matching=regularizer.matching,
            pairs=regularizer.pairs,
            sides=regularizer.sides,
            mini_batch_size=size,
            prompts=Prompts.from_model(model),
        )
    if regularizer.kind == "out" and weight > 0:
        return OutReg(model, base, weight=weight, pairs=regularizer.pairs, mini_batch_size=size)
    if regularizer.kind == "mask":
        return MaskingLoss(
            model,
            interventions=regularizer.interventions,
            unit=regularizer.unit,
            mini_batch_size=size,
            prompts=Prompts.from_model(model),
        )
    return PlainLoss(model, mini_batch_size=size)


def default_lr(model: Any) -> float:
    """Peak learning rate where the user names none."""
    return STATIC_LR if transformer_of(model) is None else TRANSFORMER_LR


def _run_name(options: TrainOptions, weight: float) -> str:
    return f"{options.regularizer.kind} at weight {weight:g}" if weight else _unweighted(options)


def _unweighted(options: TrainOptions) -> str:
    return "masking" if options.regularizer.kind == "mask" else "plain"


def run_weights(options: TrainOptions) -> tuple[float, ...]:
    """The regularizer's weight of each run."""
    if options.regularizer.kind in ("none", "mask"):
        return (0.0,)
    weight = options.regularizer.weight
    return WEIGHTS if weight == "auto" else (float(weight),)
