"""The whole of training: data, loss, run, choice. What ``leanmatch train`` does."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmatch.errors import UsageError
from leanmatch.metrics import RetrievalProbe
from leanmatch.metrics.pace import in_words, text_seconds
from leanmatch.models.torch_encoder import set_model_prompts
from leanmatch.trainer.work_folder import WorkFolder
from leanmatch.training.engine import process_state
from leanmatch.training.runs import METRIC, Runs, run_weights
from leanmatch.training.selection.averaging import average_weights, mean_weights, snapshot
from leanmatch.training.selection.choice import (
    SHARES,
    Candidate,
    Choice,
    choose,
    explore,
    mixtures,
    weight_json,
)
from leanmatch.training.selection.evaluator import encode_function
from leanmatch.training.selection.shift import set_aside

if TYPE_CHECKING:
    from torch import Tensor

    from leanmatch.data import PairTable
    from leanmatch.training.options import ScheduleOptions, TrainOptions
    from leanmatch.training.selection.choice import Slices
    from leanmatch.types import EncodeFunction

ANNOUNCED = 60.0
"""What takes more seconds than this is announced."""
MAX_VALIDATION_ROWS = 1500
"""More would cost more than they tell; fewer make the search too easy: its pool shrinks with them."""


@dataclass(frozen=True)
class TrainResult:
    """A trained matcher and how it came about.

    Attributes:
        model: the ``SentenceTransformer``, with averaged weights and merged adapters.
        weights: the regularizer's weight of every run whose weights are averaged in the model; mostly one.
        average: share of the trained weights.
        choice: what the automatic choices saw, or None where there was nothing to choose.
        remarks: sentences for the user.
        history: steps, seconds and mean loss of each training run.
    """

    model: Any
    weights: tuple[float, ...]
    average: float
    choice: Choice | None
    remarks: tuple[str, ...]
    history: dict[str, dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """For provenance and ``--json``; the model itself is left out."""
        return {
            "weight": weight_json(self.weights),
            "average": self.average,
            "choice": self.choice.to_json() if self.choice else None,
            "remarks": list(self.remarks),
            "history": self.history,
        }


def fit(
    model: Any,
    train: PairTable,
    valid: PairTable | None,
    options: TrainOptions,
    work: str | Path,
    *,
    resume: bool = True,
    group_columns: Sequence[str] = (),
    by_time: bool = False,
    report: Callable[[str], None] = lambda message: None,
    encoder_of: Callable[[Any], EncodeFunction] = encode_function,
) -> TrainResult:
    """Fine-tune ``model`` on the pairs of ``train``.

    Args:
        model: the base ``SentenceTransformer``; trained in place.
        train: training rows; label-0 rows serve as given negatives.
        valid: validation rows of the training distribution; needed by ``auto`` choices and early stopping.
        options: see :class:`~leanmatch.training.options.TrainOptions`.
        work: folder for checkpoints. The same call on the same folder continues a killed run and ends with
            the same weights (on a CPU; accelerators add in no fixed order). The caller removes it when the
            result is safe.
        resume: continue what ``work`` holds; otherwise it is dropped.
        group_columns, by_time: how the user's own test slices are held out, so that the shifted validation
            slice can be made alike; see :func:`leanmatch.training.selection.shift.set_aside`.
        report: gets a sentence whenever something was decided.
        encoder_of: makes the encode function of a model's current weights, for validation;
            :class:`leanmatch.runtime.TwinEncoders` makes fast ones.

    Raises:
        UsageError: options that need validation pairs, and there are none.
        LeanmatchError: ``work`` holds a run with other settings.
    """
    from transformers import set_seed

    set_seed(options.schedule.seed)
    _check_validation(options, valid)
    identity = _identity(options, train, valid, group_columns, by_time)
    with _open_work(work, identity, resume, options.schedule) as folder:
        if folder.resumed:
            report(f"continuing the run in {folder.path}")
        return _fit(model, train, valid, options, folder, group_columns, by_time, report, encoder_of)


def _fit(
    model: Any,
    train: PairTable,
    valid: PairTable | None,
    options: TrainOptions,
    folder: WorkFolder,
    group_columns: Sequence[str],
    by_time: bool,
    report: Callable[[str], None],
    encoder_of: Callable[[Any], EncodeFunction],
) -> TrainResult:
    schedule = options.schedule
    set_model_prompts(model, options.prompts)
    remarks: list[str] = []

    def remark(message: str) -> None:
        remarks.append(message)
        report(message)

    limit = model.max_seq_length
    if schedule.max_length is not None and limit != float("inf"):  # static encoders have no limit to set
        model.max_seq_length = min(schedule.max_length, limit)
    slices = _validation_slices(valid)
    pace = 0.0
    if _chooses(options):
        encode = encoder_of(model)
        pace = text_seconds(encode, train.anchors)
        if pace * len(train) > ANNOUNCED:
            report(f"encoding {len(train):,} training texts takes about {in_words(pace * len(train))}")
        aside = set_aside(train, encode, group_columns=group_columns, by_time=by_time, seed=schedule.seed)
        train = aside.train
        if aside.shifted is not None:
            slices["shifted"] = aside.shifted
        remark(f"shifted validation slice: {aside.how}")
    start = snapshot(model.state_dict())
    run = Runs(model, start, train, slices, options, folder, pace, remark, report, encoder_of)
    finals, history = run.train_all()
    choice, share = None, 1.0
    weights: tuple[float, ...] = (next(iter(finals)),)
    if _chooses(options):
        choice = _choose(model, start, finals, slices, options, encoder_of)
        weights, share = choice.candidate.weights, choice.candidate.share
        remark("chosen on validation pairs: " + choice.reason)
        if share == 0:
            remark("fine-tuning did not help on the validation slices: the result is the base model")
    elif not isinstance(options.average, str):
        share = float(options.average)
    model.load_state_dict(average_weights(start, mean_weights([finals[w] for w in weights]), share))
    if model.max_seq_length != limit:
        model.max_seq_length = limit
    model.eval()
    return TrainResult(model, weights, share, choice, tuple(remarks), history)


def _open_work(
    path: str | Path, identity: dict[str, Any], resume: bool, schedule: ScheduleOptions
) -> WorkFolder:
    """The work folder; under torchrun the first process makes (and locks) it and the others find it."""
    state = process_state(schedule)
    with state.main_process_first():
        return WorkFolder(
            path, identity, resume=resume or not state.is_main_process, lock=state.is_main_process
        )


def _choose(
    model: Any,
    start: dict[str, Tensor],
    finals: dict[float, dict[str, Tensor]],
    slices: dict[str, PairTable],
    options: TrainOptions,
    encoder_of: Callable[[Any], EncodeFunction],
) -> Choice:
    from tqdm import tqdm

    shares = SHARES if options.average == "auto" else (float(options.average),)
    probes = {name: RetrievalProbe(table, METRIC) for name, table in slices.items()}
    model.eval()
    disable = not process_state(options.schedule).is_main_process
    with tqdm(desc="choosing on validation pairs", unit=" models", disable=disable) as bar:

        def score(candidate: Candidate) -> Slices:
            trained = mean_weights([finals[weight] for weight in candidate.weights])
            model.load_state_dict(average_weights(start, trained, candidate.share))
            encode = encoder_of(model)
            bar.update()
            return {name: probe.per_query(encode) for name, probe in probes.items()}

        per_query = explore(dict.fromkeys(mixtures(tuple(finals)), shares), score)
    return choose(per_query, METRIC)


def _validation_slices(valid: PairTable | None) -> dict[str, PairTable]:
    if valid is None or not len(valid):
        return {}
    if len(valid) <= MAX_VALIDATION_ROWS:
        return {"valid": valid}
    rows = np.sort(np.random.default_rng(0).choice(len(valid), MAX_VALIDATION_ROWS, replace=False))
    return {"valid": valid.take(rows)}


def _chooses(options: TrainOptions) -> bool:
    return options.average == "auto" or len(run_weights(options)) > 1


def _check_validation(options: TrainOptions, valid: PairTable | None) -> None:
    wanted = [
        name
        for name, needed in (
            ("average 'auto'", options.average == "auto"),
            ("weight 'auto'", len(run_weights(options)) > 1),
            ("early stopping", options.schedule.early_stopping > 0),
        )
        if needed
    ]
    if wanted and (valid is None or not int((np.asarray(valid.labels) == 1).sum())):
        none = f"none of the {len(valid):,} validation rows has label 1" if valid else "there are none"
        raise UsageError(
            f"{' and '.join(wanted)} need validation pairs, and {none}",
            remedy="give a validation share, or set average and weight to numbers and early_stopping to 0",
        )


def _identity(
    options: TrainOptions,
    train: PairTable,
    valid: PairTable | None,
    group_columns: Sequence[str],
    by_time: bool,
) -> dict[str, Any]:
    """Whatever decides the outcome. How often checkpoints are written does not."""
    fixed = replace(options, schedule=replace(options.schedule, checkpoint_minutes=0.0))
    return {
        "options": fixed.to_json(),
        "train": train.fingerprint(),
        "valid": valid.fingerprint() if valid is not None else None,
        "group_columns": list(group_columns),
        "by_time": by_time,
        "processes": process_state(options.schedule).num_processes,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "sentence-transformers")},
    }
