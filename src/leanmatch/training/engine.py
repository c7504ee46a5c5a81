"""One run of ``SentenceTransformerTrainer`` on text columns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from transformers import EarlyStoppingCallback, TrainerCallback

from leanmatch.errors import DataError, ModelError, UsageError
from leanmatch.models import Prompts
from leanmatch.trainer.run import COMMON_ARGUMENTS, ResumableTrainer, run
from leanmatch.training.dataset import fewest_distinct, most_repeated
from leanmatch.training.stock import BatchSamplers

if TYPE_CHECKING:
    from datasets import Dataset

    from leanmatch.training.options import ScheduleOptions

EVALUATIONS = 10
"""How often a run with early stopping looks at the validation pairs."""


def train_stage(
    model: Any,
    loss: torch.nn.Module,
    dataset: Dataset,
    schedule: ScheduleOptions,
    stage: Path,
    *,
    lr: float,
    evaluator: Any = None,
    description: str = "train",
    callbacks: Sequence[TrainerCallback] = (),
) -> dict[str, Any]:
    """Train ``model`` in place, continuing from the newest complete checkpoint in ``stage``.

    Args:
        model: the ``SentenceTransformer``.
        loss: any loss of :mod:`leanmatch.training.losses` or of sentence-transformers.
        dataset: text columns only, in the order anchor, positive, negatives.
        schedule: see :class:`~leanmatch.training.options.ScheduleOptions`.
        stage: folder for checkpoints; removed by the caller when the whole run is done.
        lr: peak learning rate.
        evaluator: with ``schedule.early_stopping``, what decides the best moment.
        description: shown beside the progress bar.
        callbacks: more of them, such as ``STF(model).callback()``.

    Returns:
        See :func:`leanmatch.trainer.run.run`.

    Raises:
        DataError: under torchrun, fewer distinct texts than a full batch needs.
        ModelError: fewer steps were made than the run was to have, or a loss is not finite.
    """
    repeated, processes = most_repeated(dataset), process_state(schedule).num_processes
    _check_full_batches(dataset, schedule.batch_size, processes)
    steps = total_steps(len(dataset), schedule, processes, repeated)
    every = max(1, steps // EVALUATIONS)
    stopping = schedule.early_stopping > 0 and evaluator is not None
    precision = _precision(schedule)
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(stage),
        per_device_train_batch_size=schedule.batch_size,
        num_train_epochs=schedule.epochs,
        max_steps=steps,  # the trainer would count full batches
        learning_rate=lr,
        warmup_steps=round(schedule.warmup * steps),
        lr_scheduler_type="linear",
        seed=schedule.seed,
        prompts=column_prompts(model, dataset.column_names),
        batch_sampler=BatchSamplers.NO_DUPLICATES,
        use_cpu=on_cpu(schedule),
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        save_strategy="steps" if stopping else "no",
        save_steps=every,
        save_total_limit=2,
        eval_strategy="steps" if stopping else "no",
        eval_steps=every,
        load_best_model_at_end=stopping,
        metric_for_best_model=f"eval_{evaluator.primary_metric}" if stopping else None,
        greater_is_better=True if stopping else None,
        **COMMON_ARGUMENTS,
    )
    model.model_card_data.set_widget_examples = lambda dataset: None  # saves a bar, and reading the data
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=dataset,
        eval_dataset=None,
        evaluator=evaluator if stopping else None,
        loss=loss,
    )
    for callback in callbacks:
        trainer.add_callback(callback)
    early = EarlyStoppingCallback(schedule.early_stopping) if stopping else None
    if early is not None:
        trainer.add_callback(early)
    base = getattr(loss, "base", None)
    history = run(
        trainer,
        stage,
        checkpoint_seconds=60 * schedule.checkpoint_minutes,
        description=description,
        loss=loss,
        companions={} if base is None else {"base": base},
    )
    stopped = early is not None and early.early_stopping_patience_counter >= schedule.early_stopping
    _check_steps(trainer.state.global_step, steps, stopped_early=stopped)
    return history


def column_prompts(model: Any, columns: Sequence[str]) -> dict[str, str] | None:
    """What the trainer puts before each column's texts: the first are queries, the others documents."""
    prompts = Prompts.from_model(model)
    texts = dict(zip(columns, [prompts.query, *[prompts.document] * (len(columns) - 1)], strict=True))
    return {column: prompt for column, prompt in texts.items() if prompt} or None


def on_cpu(schedule: ScheduleOptions) -> bool:
    """Whether the run uses no accelerator."""
    return schedule.device == "cpu" or not torch.cuda.is_available()


def process_state(schedule: ScheduleOptions) -> Any:
    """Which of several processes this is (``torchrun``), with barriers; joins them where they are not yet."""
    from accelerate import PartialState

    return PartialState(cpu=on_cpu(schedule))


def total_steps(rows: int, schedule: ScheduleOptions, processes: int = 1, repeated: int = 1) -> int:
    """Optimizer steps of a run.

    Several processes take a whole batch each in one step; what is left over waits for another epoch. A text
    that stands in ``repeated`` rows needs as many batches: then there are more of them, and smaller ones.

    Raises:
        UsageError: fewer rows than one batch for each process.
    """
    an_epoch = -(-rows // schedule.batch_size) if processes == 1 else rows // schedule.batch_size // processes
    if an_epoch < 1 < processes:
        raise UsageError(
            f"{rows} training pairs are fewer than a batch of {schedule.batch_size} for each of {processes} "
            "processes",
            remedy=f"use one process, or a batch_size of at most {rows // processes}",
            command=f"use one process, or a --batch-size of at most {rows // processes}",
        )
    if schedule.max_steps is not None:
        return schedule.max_steps
    return max(1, int(schedule.epochs * max(1, an_epoch, -(-repeated // processes))))


def _check_full_batches(dataset: Dataset, batch_size: int, processes: int) -> None:
    """Several processes take full batches only, and a batch holds no text twice."""
    column, distinct = fewest_distinct(dataset)
    if processes > 1 and distinct < batch_size:
        raise DataError(
            f"column {column!r} of the training pairs has {distinct:,} distinct texts, and each of "
            f"{processes} processes needs full batches of {batch_size} pairs without a repeated text",
            remedy=f"use one process, or a batch_size of at most {max(2, distinct // 2)}",
            command=f"use one process, or a --batch-size of at most {max(2, distinct // 2)}",
        )


def _check_steps(steps: int, promised: int, *, stopped_early: bool) -> None:
    """The trainer ends without an error where the data run out of batches."""
    if steps < 1 or (steps < promised and not stopped_early):
        raise ModelError(
            f"training made {steps:,} of {promised:,} steps: the pairs give too few batches without a "
            "repeated text",
            remedy="use smaller batches (batch_size), or one process in place of torchrun",
            command="use smaller batches (--batch-size), or one process in place of torchrun",
        )


def _precision(schedule: ScheduleOptions) -> str:
    if schedule.precision != "auto":
        return schedule.precision
    return "bf16" if not on_cpu(schedule) and torch.cuda.is_bf16_supported() else "fp32"


class _Trainer(ResumableTrainer, SentenceTransformerTrainer):
    """Static encoders, LoRA and frozen layers all resume alike."""
