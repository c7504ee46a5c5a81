"""The training runs of a recipe: timed, checked, continued, averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from leanmatch.training.estimate import step_seconds, steps_within, training_in_words
from leanmatch.training.losses import ITVReg, MaskingLoss, OutReg, PlainLoss
from leanmatch.training.selection.averaging import mean_weights
from leanmatch.training.selection.choice import SHARES, VALID, WEIGHTS
from leanmatch.training.selection.evaluator import PairTableEvaluator, encode_function

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor, nn

    from leanmatch.data import PairTable
    from leanmatch.training.options import ScheduleOptions, TrainOptions
    from leanmatch.types import EncodeFunction

METRIC = "MRR@10"
REST, ALL = "rest", "all"
"""Training rows without the shifted slice, and with it."""
TRANSFORMER_LR = 2e-5
STATIC_LR = 1e-2
FINAL = "final.safetensors"
"""The weights that a run ended with."""


@dataclass(frozen=True)
class Job:
    """One training run, or half of one.

    Attributes:
        weight: the regularizer's weight.
        rows: the rows it trains on, ``rest`` (without the shifted slice) or ``all``.
        half: whether it is half of a run. The first half trains on ``rest``; the second continues on ``all``.
    """

    weight: float
    rows: str
    half: bool = False

    @property
    def before(self) -> Job | None:
        """The first half, whose weights a second half starts from; None if this starts from the base."""
        return replace(self, rows=REST) if self.half and self.rows == ALL else None

    @property
    def stage(self) -> str:
        """Its folder in the work folder, and its name in the history."""
        name = f"weight-{self.weight:g}"
        if self.half:
            return f"{name}-{'first' if self.before is None else 'second'}-half"
        return name if self.rows == REST else f"{name}-{self.rows}"

    def steps(self, whole: int) -> int:
        """How many steps it takes if a whole run takes ``whole``; each half takes at least one."""
        if not self.half:
            return whole
        return max(1, whole // 2 if self.before is None else whole - whole // 2)


class Runs:
    """Runs from the base model, timed beforehand; those that are done are read from the work folder.

    Args:
        tables: training rows by the name that jobs have for them.
        jobs: all that may come, in their order.

    Attributes:
        target: texts that the runs from now on regularize on, in place of the training texts.
    """

    def __init__(
        self,
        model: Any,
        start: dict[str, Tensor],
        tables: Mapping[str, PairTable],
        jobs: Sequence[Job],
        slices: Mapping[str, PairTable],
        options: TrainOptions,
        folder: WorkFolder,
        pace: float,
        remark: Callable[[str], None],
        report: Callable[[str], None],
        encoder_of: Callable[[Any], EncodeFunction],
    ) -> None:
        self.model, self.start, self.slices, self.folder = model, start, slices, folder
        self.remark, self.report = remark, report
        self.target: Sequence[str] = ()
        self.encoder_of = encode_function if options.lora_rank else encoder_of  # adapters are torch's alone
        self.base = FrozenBase(model)
        self.datasets: dict[str, Dataset] = {}
        self.repeated: dict[str, int] = {}
        for name in dict.fromkeys(job.rows for job in jobs):
            self.datasets[name], remarks = training_dataset(tables[name], options, self.base.model)
            self.repeated[name] = most_repeated(self.datasets[name])
            messages = _repeated(self.datasets[name], self.repeated[name], options.schedule.batch_size)
            for message in [*remarks, *messages]:
                remark(message)
        self.texts = sum(len({*table.anchors, *table.positives}) for table in slices.values())
        self.choice_seconds = self.texts * pace * len(SHARES)
        self.history: dict[str, dict[str, Any]] = {}
        self.options = self._timed(options, list(dict.fromkeys(jobs)))

    def soup(self, jobs: Sequence[Job]) -> dict[str, Tensor]:
        """The mean of the jobs' final weights. Jobs that are not finished are trained first."""
        for job in jobs:
            self._finish(job)
        wait_for_all()  # the caller's first process may remove the folder that the others read
        return mean_weights(load_weights(self._stage(job) / FINAL) for job in jobs)

    def _finish(self, job: Job) -> None:
        from transformers import set_seed

        stage, model = self._stage(job), self.model
        done = stage / FINAL
        if done.exists():
            return
        start = self.start if job.before is None else self.soup([job.before])
        set_seed(self.options.schedule.seed)
        model.load_state_dict(start)
        self.history[job.stage] = self._train(job, stage)
        _check_finite(model.state_dict(), job.stage)
        if not self.options.schedule.early_stopping:  # it may keep the very first weights
            _check_moved(start, model.state_dict(), job.stage)
        with process_state(self.options.schedule).main_process_first():
            if not done.exists():
                save_weights(done, model.state_dict())

    def _stage(self, job: Job) -> Path:
        return self.folder.stage(job.stage)

    def _timed(self, options: TrainOptions, jobs: list[Job]) -> TrainOptions:
        """Say how long it will take; with ``minutes``, the options with the number of steps that fit."""
        schedule = options.schedule
        if process_state(schedule).num_processes > 1:
            if schedule.minutes is not None:
                raise UsageError(
                    "minutes needs one process: several would measure different steps",
                    remedy="give max_steps under torchrun",
                    command="give --max-steps under torchrun",
                )
            return options
        seconds: dict[float, float] = {}
        pending = [job for job in jobs if not (self._stage(job) / FINAL).exists()]
        for job in pending:
            if job.weight not in seconds:
                loss = build_loss(self.model, self.base.fresh(), options, job.weight)
                data = self.datasets[job.rows]
                seconds[job.weight] = step_seconds(self.model, loss, data, schedule.batch_size)
        if schedule.minutes is not None:
            minutes = schedule.minutes
            each = [seconds[job.weight] / (2 if job.half else 1) for job in pending]
            longest = max(self._whole(schedule, rows) for rows in self.datasets)
            most = fixed_steps(
                self.folder.path, lambda: steps_within(minutes, each, longest, self.choice_seconds)
            )
            if most < longest:
                self.report(f"the time limit leaves {most:,} of {longest:,} steps for each run")
            schedule = replace(schedule, max_steps=most)
            options = replace(options, schedule=schedule)
        if pending:
            told = [
                (
                    self._described(options, job),
                    job.steps(self._whole(schedule, job.rows)),
                    seconds[job.weight],
                )
                for job in pending
            ]
            self.report(training_in_words(told, self.choice_seconds, self.texts))
        return options

    def _whole(self, schedule: ScheduleOptions, rows: str) -> int:
        """Steps of a whole run on these rows."""
        processes = process_state(schedule).num_processes
        return total_steps(len(self.datasets[rows]), schedule, processes, self.repeated[rows])

    def _described(self, options: TrainOptions, job: Job) -> str:
        name = _run_name(options, job.weight)
        if job.half:
            name += ", first half" if job.before is None else ", second half"
        return name + (", all pairs" if len(self.datasets) > 1 and job.rows == ALL else "")

    def _train(self, job: Job, stage: Path) -> dict[str, Any]:
        options, model, valid = self.options, self.model, self.slices.get(VALID)
        schedule = options.schedule
        if job.half:
            schedule = replace(schedule, max_steps=job.steps(self._whole(schedule, job.rows)))
        if options.freeze_layers:
            freeze_layers(model, options.freeze_layers)
        if options.lora_rank:
            add_lora(model, options.lora_rank)
        evaluator = None
        if schedule.early_stopping and valid is not None:
            evaluator = PairTableEvaluator(valid, METRIC, encoder_of=self.encoder_of)
        history = train_stage(
            model,
            build_loss(model, self.base, options, job.weight, self.target),
            self.datasets[job.rows],
            schedule,
            stage,
            lr=schedule.lr if schedule.lr is not None else default_lr(model),
            evaluator=evaluator,
            description=f"train, {self._described(options, job)}",
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


def build_loss(
    model: Any, base: FrozenBase, options: TrainOptions, weight: float, target: Sequence[str] = ()
) -> nn.Module:
    """The loss that the options name; ITVReg regularizes on the target texts where there are any."""
    regularizer = options.regularizer
    common: dict[str, Any] = {
        "mini_batch_size": options.schedule.mini_batch_size,
        "dimensions": options.dimensions,
    }
    if options.schedule.gather_across_devices:
        from leanmatch.training.stock import MultipleNegativesRankingLoss

        common["contrastive"] = partial(MultipleNegativesRankingLoss, gather_across_devices=True)
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
            prompts=Prompts.from_model(model),
            target=target,
            **common,
        )
    if regularizer.kind == "out" and weight > 0:
        return OutReg(model, base, weight=weight, pairs=regularizer.pairs, **common)
    if regularizer.kind == "mask":
        return MaskingLoss(
            model,
            interventions=regularizer.interventions,
            unit=regularizer.unit,
            prompts=Prompts.from_model(model),
            **common,
        )
    return PlainLoss(model, **common)


def _repeated(dataset: Dataset, repeated: int, batch: int) -> list[str]:
    rows = len(dataset)
    if repeated == rows and dataset.column_names == ["anchor", "positive"]:
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
