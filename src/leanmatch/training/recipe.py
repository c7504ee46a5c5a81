"""The whole of training: data, loss, run, choice. What ``leanmatch train`` does."""

from __future__ import annotations

import hashlib
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
from leanmatch.training.runs import ALL, METRIC, REST, Job, Runs, run_weights
from leanmatch.training.selection.averaging import average_weights, snapshot
from leanmatch.training.selection.choice import (
    SHARES,
    SHIFTED,
    TARGET,
    VALID,
    Choice,
    choose,
    weight_json,
)
from leanmatch.training.selection.evaluator import encode_function
from leanmatch.training.selection.shift import set_aside
from leanmatch.training.selection.target import FEWEST_TEXTS, clean_target, halves

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from leanmatch.data import PairTable
    from leanmatch.training.options import ScheduleOptions, TrainOptions
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
        weights: the regularizer's weight of every run whose weights are averaged in the model.
        average: share of the trained weights.
        choice: what the automatic choice saw, or None where there was nothing to choose.
        remarks: sentences for the user.
        history: steps, seconds and mean loss of each training run, those to choose on included.
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
    target: Sequence[str] = (),
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
        target: unlabelled texts of where the model will be used. The choice looks at them too
            (:mod:`leanmatch.training.selection.target`). If the plain run is worse on them than the base,
            the ITVReg run keeps the base's token effects on them.

    Raises:
        UsageError: options that need validation pairs, and there are none; target texts without use.
        DataError: fewer than two target texts.
        LeanmatchError: ``work`` holds a run with other settings.
    """
    from transformers import set_seed

    set_seed(options.schedule.seed)
    _check_validation(options, valid)
    _check_target(options, target)
    texts = clean_target(target)
    identity = _identity(options, train, valid, group_columns, by_time, texts)
    with _open_work(work, identity, resume, options.schedule) as folder:
        if folder.resumed:
            report(f"continuing the run in {folder.path}")
        return _fit(model, train, valid, options, folder, group_columns, by_time, report, encoder_of, texts)


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
    target: list[str],
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
    weights, tables, pace = run_weights(options), {REST: train}, 0.0
    judged = final = [Job(weight, REST) for weight in weights]  # without a shifted slice REST is all rows
    if options.average == "auto":
        encode = encoder_of(model)
        pace = text_seconds(encode, train.anchors)
        if pace * len(train) > ANNOUNCED:
            report(f"encoding {len(train):,} training texts takes about {in_words(pace * len(train))}")
        aside = set_aside(train, encode, group_columns=group_columns, by_time=by_time, seed=schedule.seed)
        remark(f"shifted validation slice: {aside.how}")
        if aside.shifted is not None:
            slices[SHIFTED] = aside.shifted
            tables = {REST: aside.train, ALL: train}
            if options.refit:
                judged, final = _refit(weights)
    slices |= _target_slice(target, schedule.seed, remark)
    start = snapshot(model.state_dict())
    jobs = list(dict.fromkeys([*judged, *final]))
    run = Runs(model, start, tables, jobs, slices, options, folder, pace, remark, report, encoder_of)
    first = run.soup(final[:1])
    regularized = target and len(final) > 1 and options.regularizer.kind == "itv"
    if regularized and (
        TARGET not in slices or _lost(model, start, first, slices[TARGET], encoder_of, remark)
    ):
        run.target = target
    trained, choice = run.soup(final) if len(final) > 1 else first, None
    share = float(options.average) if not isinstance(options.average, str) else 1.0
    if options.average == "auto":
        unseen = {
            SHIFTED: trained if judged == final else run.soup(judged),
            TARGET: first if run.target else trained,
        }
        choice = _choose(model, start, trained, unseen, slices, options, encoder_of)
        share = choice.share
        remark("chosen on validation pairs: " + choice.reason)
        for sentence in choice.outlook:
            remark(sentence)
    model.load_state_dict(average_weights(start, trained, share))
    if model.max_seq_length != limit:
        model.max_seq_length = limit
    model.eval()
    return TrainResult(model, weights, share, choice, tuple(remarks), run.history)


def _refit(weights: Sequence[float]) -> tuple[list[Job], list[Job]]:
    """The runs that the shifted slice is scored with, and those that the model is made of.

    The first run trains without the shifted slice for half of its steps; the slice is scored with those
    weights. It then continues on all rows. The other runs train on all rows from the start. So the model has
    seen every row, and training takes no more steps than without the slice.
    """
    first, *others = weights
    judged = Job(first, REST, half=True)
    return [judged], [Job(first, ALL, half=True), *(Job(weight, ALL) for weight in others)]


def _target_slice(target: list[str], seed: int, remark: Callable[[str], None]) -> dict[str, PairTable]:
    if not target:
        return {}
    cut = halves(target, seed)
    if cut is None:
        remark(
            f"target texts: fewer than {FEWEST_TEXTS} of {len(target):,} can be cut into halves of two "
            "words: they are not used to choose, only to keep the base's token effects on"
        )
        return {}
    remark(
        f"target texts: {len(target):,}; {len(cut):,} of them are cut in half, and the first half must find "
        "the second"
    )
    return {TARGET: cut}


def _open_work(
    path: str | Path, identity: dict[str, Any], resume: bool, schedule: ScheduleOptions
) -> WorkFolder:
    """The work folder; under torchrun the first process makes (and locks) it and the others find it."""
    state = process_state(schedule)
    with state.main_process_first():
        return WorkFolder(
            path, identity, resume=resume or not state.is_main_process, lock=state.is_main_process
        )


def _lost(
    model: Any,
    start: dict[str, Tensor],
    trained: dict[str, Tensor],
    cut: PairTable,
    encoder_of: Callable[[Any], EncodeFunction],
    remark: Callable[[str], None],
) -> bool:
    """Whether the plain run is worse than the base at finding the second halves of target texts."""
    probe = RetrievalProbe(cut, METRIC)
    scores = []
    model.eval()
    for share in (0.0, 1.0):
        model.load_state_dict(average_weights(start, trained, share))
        scores.append(100 * float(probe.per_query(encoder_of(model)).mean()))
    lost = scores[1] < scores[0]
    follows = "keeps the base's token effects on them" if lost else "is regularized on the training texts"
    remark(
        f"target texts: {METRIC} is {scores[0]:.1f} with the base model and {scores[1]:.1f} with the plain "
        f"run, so the ITVReg run {follows}"
    )
    return lost


def _choose(
    model: Any,
    start: dict[str, Tensor],
    trained: dict[str, Tensor],
    unseen: dict[str, dict[str, Tensor]],
    slices: dict[str, PairTable],
    options: TrainOptions,
    encoder_of: Callable[[Any], EncodeFunction],
) -> Choice:
    """Score every share; a slice in ``unseen`` with the weights given there, which never trained on it."""
    from tqdm import tqdm

    probes = {name: RetrievalProbe(table, METRIC) for name, table in slices.items()}
    groups: list[tuple[dict[str, Tensor], list[str]]] = []
    for name in probes:
        weights = unseen.get(name, trained)
        names = next((names for other, names in groups if other is weights), None)
        if names is None:
            groups.append((weights, [name]))
        else:
            names.append(name)
    model.eval()
    disable = not process_state(options.schedule).is_main_process

    def score(share: float) -> dict[str, NDArray[np.float64]]:
        scores: dict[str, NDArray[np.float64]] = {}
        for weights, names in [(start, list(probes))] if share == 0 else groups:
            model.load_state_dict(average_weights(start, weights, share))
            encode = encoder_of(model)
            scores |= {name: probes[name].per_query(encode) for name in names}
        return {name: scores[name] for name in probes}

    shares = tqdm(SHARES, desc="choosing on validation pairs", unit=" models", disable=disable)
    return choose({share: score(share) for share in shares}, METRIC, score)


def _validation_slices(valid: PairTable | None) -> dict[str, PairTable]:
    if valid is None or not len(valid):
        return {}
    if len(valid) <= MAX_VALIDATION_ROWS:
        return {VALID: valid}
    rows = np.sort(np.random.default_rng(0).choice(len(valid), MAX_VALIDATION_ROWS, replace=False))
    return {VALID: valid.take(rows)}


def _check_validation(options: TrainOptions, valid: PairTable | None) -> None:
    wanted = [
        name
        for name, needed in (
            ("average 'auto'", options.average == "auto"),
            ("early stopping", options.schedule.early_stopping > 0),
        )
        if needed
    ]
    if wanted and (valid is None or not int((np.asarray(valid.labels) == 1).sum())):
        none = f"none of the {len(valid):,} validation rows has label 1" if valid else "there are none"
        raise UsageError(
            f"validation pairs are needed for {' and '.join(wanted)}, and {none}",
            remedy="give more pairs or a larger valid_fraction, or set average to a number and "
            "early_stopping to 0",
            command="give more pairs or a larger --valid-fraction, or set --average to a number, such as 1, "
            "and --early-stopping to 0",
        )


def _check_target(options: TrainOptions, target: Sequence[str]) -> None:
    if target and options.average != "auto" and options.regularizer.kind != "itv":
        raise UsageError(
            "target texts have no use: the average is fixed, and the regularizer "
            f"{options.regularizer.kind!r} does not look at them",
            remedy="leave average at 'auto', or use the regularizer 'itv'",
            command="leave --average at auto, or use --regularizer itv",
        )


def _identity(
    options: TrainOptions,
    train: PairTable,
    valid: PairTable | None,
    group_columns: Sequence[str],
    by_time: bool,
    target: Sequence[str],
) -> dict[str, Any]:
    """Whatever decides the outcome. How often checkpoints are written does not."""
    fixed = replace(options, schedule=replace(options.schedule, checkpoint_minutes=0.0))
    return {
        "options": fixed.to_json(),
        "train": train.fingerprint(),
        "valid": valid.fingerprint() if valid is not None else None,
        "group_columns": list(group_columns),
        "by_time": by_time,
        "target": hashlib.sha256("\n".join(target).encode()).hexdigest() if target else None,
        "processes": process_state(options.schedule).num_processes,
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "sentence-transformers")},
    }
