"""What ``leanmatch evaluate`` evaluates on: flags first, then what the model's provenance says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from leanmatch.cli.checks import check_models
from leanmatch.cli.common import say
from leanmatch.cli.matchers import labels, provenance_of, slice_columns
from leanmatch.cli.pairs import read_table
from leanmatch.data import PairTable, Split, split_from_json
from leanmatch.errors import DataError, UsageError
from leanmatch.metrics import PROPENSITY_CONSTANTS, Evaluation, EvaluationOptions, choose_rows
from leanmatch.metrics.slices import few_valued_columns

"""Columns with 2 to so many values are sliced by where none is named."""
PARTS_OF = {"train": ("train",), "valid": ("valid",), "test": ("test_in", "test_out")}
"""``--split`` to the parts of the split that a model was trained with."""


@dataclass(frozen=True)
class EvaluationPlan:
    """The table and options of an evaluation.

    ``train``: rows to count training labels on; ``remarks``: what was decided without being asked for;
    ``rows``: which rows the table holds, in words, where they come from the model's own split.
    """

    table: PairTable
    options: EvaluationOptions
    train: PairTable | None
    remarks: tuple[str, ...]
    rows: str | None = None

    def sentences(self) -> list[str]:
        """What to tell before the work starts."""
        return [*([] if self.rows is None else [f"rows: {self.rows}"]), *self.remarks]

    def annotated(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation with the plan's words for its rows, and the remarks among its notes."""
        notes = tuple(dict.fromkeys([*self.remarks, *evaluation.notes]))
        return replace(evaluation, split=self.rows or evaluation.split, notes=notes)


@dataclass(frozen=True)
class Comparison:
    """What a command that compares two matchers works on.

    Attributes:
        provenance: the model's, None where it has none.
        rival: the matcher to compare with, None without one.
        names: of the model and the rival, for tables.
        table: the rows that were read.
        plan: which of them count, and how.
    """

    provenance: Mapping[str, Any] | None
    rival: str | None
    names: tuple[str, str]
    table: PairTable
    plan: EvaluationPlan


def compare_on(
    data: Path,
    model: str,
    against: str | None,
    *,
    hold_out: Sequence[str] | None,
    after: str | None,
    split: str | None,
    slices: str | None,
    symmetric: bool | None,
    column: list[str] | None,
    on_error: str,
    delimiter: str | None,
    propensity: str = "default",
) -> Comparison:
    """Check the models, read the rows and plan the evaluation; arguments are the commands' options.

    Raises:
        UsageError: an option out of range, or no such base.
        ModelError, DataError: a model or rows that cannot be used.
    """
    constants = propensity_constants(propensity)
    provenance = provenance_of(model)
    rival = base_named_by(provenance, model) if against == "base" else against
    check_models(model, rival)
    table = read_table(
        data, column=column, on_error=on_error, delimiter=delimiter, provenance=provenance, model=model
    )
    plan = plan_evaluation(
        table,
        provenance,
        hold_out=tuple(hold_out or ()),
        after=after,
        split=split,
        slices=slice_columns(slices),
        symmetric="auto" if symmetric is None else symmetric,
        propensity=constants,
    )
    for sentence in plan.sentences():
        say(sentence)
    return Comparison(provenance, rival, labels(model, rival, by_base=against == "base"), table, plan)


def propensity_constants(name: str) -> tuple[float, float]:
    """``(A, B)`` by name.

    Raises:
        UsageError: no such name.
    """
    if name not in PROPENSITY_CONSTANTS:
        raise UsageError(
            f"there are no propensity constants {name!r}", remedy=f"one of: {', '.join(PROPENSITY_CONSTANTS)}"
        )
    return PROPENSITY_CONSTANTS[name]


def base_named_by(provenance: Mapping[str, Any] | None, model: str) -> str:
    """The base that a model was trained from.

    Raises:
        UsageError: the model does not say.
        ModelError: there is no such model.
    """
    base = (provenance or {}).get("base")
    if not isinstance(base, str) or not base:
        check_models(model)
        raise UsageError(
            f"{model} does not say what its base is",
            remedy="name it: --against NAME_OR_FOLDER in place of base",
        )
    return base


def plan_evaluation(
    table: PairTable,
    provenance: Mapping[str, Any] | None,
    *,
    hold_out: tuple[str, ...],
    after: str | None,
    split: str | None,
    slices: tuple[str, ...] | Literal["auto"],
    symmetric: bool | Literal["auto"],
    propensity: tuple[float, float],
) -> EvaluationPlan:
    """Decide on rows and slices.

    Rows: those that ``split`` names, by the table's column ``split`` or, where it has none, by the split that
    the model was trained with, if this is the table that was split; without ``split`` the test rows of the
    model's split; else the rows with split test; else all. Out of distribution: as asked for, else as in
    training, as far as the table has those columns.

    Raises:
        DataError: the model's split has none of those rows.
    """
    remarks: list[str] = []
    train, rows = None, None
    recorded = _training_split(provenance)
    reproduced = _reproduce(table, recorded) if "parts" in recorded else None
    by_default = split in (None, "auto")
    if reproduced is not None and (by_default or (split in PARTS_OF and not table.has("split"))):
        part = "test" if split is None or by_default else split
        table, rows = _rows_of(reproduced, part)
        train, split = reproduced.train, "all"
        as_in_training = part == "test"  # nothing else holds rows out of distribution
    else:
        as_in_training = True
        if by_default and "parts" in recorded:
            remarks.append(
                "this is not the table that the model was trained on: rows may repeat what it was trained on"
            )
        elif reproduced is not None and split == "all":
            remarks.append(f"the model was trained on {len(reproduced.rows['train']):,} of these rows")
    if as_in_training and not hold_out and after is None:
        hold_out, after = _held_out_in_training(provenance, table, remarks)
    options = EvaluationOptions(
        hold_out=hold_out, after=after, split=split or "auto", symmetric=symmetric, propensity=propensity
    )
    if slices == "auto":
        slices = few_valued_columns(choose_rows(table, options.split)[0])
        if slices:
            remarks.append(f"slices: {', '.join(slices)} (columns of few values; choose with --slices)")
    options = EvaluationOptions(
        slices=slices,
        hold_out=hold_out,
        after=after,
        split=options.split,
        symmetric=symmetric,
        propensity=propensity,
    )
    return EvaluationPlan(table, options, train, tuple(remarks), rows)


def _training_split(provenance: Mapping[str, Any] | None) -> Mapping[str, Any]:
    recorded = (provenance or {}).get("split")
    return recorded if isinstance(recorded, Mapping) else {}


def _held_out_in_training(
    provenance: Mapping[str, Any] | None, table: PairTable, remarks: list[str]
) -> tuple[tuple[str, ...], str | None]:
    """``hold_out`` and ``after`` from the first place of the provenance that has them."""
    split = _training_split(provenance)
    places = [split.get("options"), split, (provenance or {}).get("options"), provenance]
    conditions: tuple[str, ...] = ()
    after: str | None = None
    for section in places:
        if isinstance(section, Mapping):
            conditions = conditions or tuple(str(condition) for condition in section.get("hold_out") or ())
            after = after or (str(section["after"]) if section.get("after") else None)
    usable = tuple(condition for condition in conditions if _occurs(condition, table))
    for condition in conditions:
        if condition in usable:
            remarks.append(f"out of distribution, as in the model's training: {condition}")
        else:
            remarks.append(f"the model was trained without {condition}, which this data does not have")
    if after is not None and table.has("timestamp"):
        remarks.append(f"out of distribution, as in the model's training: from {after} on")
    elif after is not None:
        remarks.append(f"the model was trained on times before {after}, but this data has no timestamps")
        after = None
    return usable, after


def _occurs(condition: str, table: PairTable) -> bool:
    column, _, value = condition.partition("=")
    return table.has(column) and value in {str(cell) for cell in table.column(column) if cell is not None}


def _reproduce(table: PairTable, manifest: Mapping[str, Any]) -> Split | None:
    if manifest.get("fingerprint") != table.fingerprint():
        return None
    return split_from_json(table, dict(manifest), name="the split of the model")


def _rows_of(reproduced: Split, part: str) -> tuple[PairTable, str]:
    """The rows of one part of the model's split, and what they are, in words."""
    sizes = {name: sum(len(reproduced.rows[key]) for key in parts) for name, parts in PARTS_OF.items()}
    if not sizes[part]:
        there = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
        others = "".join(f"; or --split {name}" for name in ("test", "valid") if sizes[name])
        raise DataError(
            f"the split that the model was trained with has no {part} rows ({there})",
            path=reproduced.table.source or None,
            remedy=f"--split all takes every row, also those that it was trained on{others}",
        )
    chosen = np.sort(np.concatenate([reproduced.rows[key] for key in PARTS_OF[part]]))
    kinds = (
        f" ({len(reproduced.rows['test_in']):,} in, {len(reproduced.rows['test_out']):,} out of distribution)"
    )
    words = (
        f"the {len(chosen):,} {part} rows of the split that the model was trained with"
        f"{kinds if part == 'test' else ''}, of {len(reproduced.table):,} rows"
    )
    return reproduced.table.take(chosen), words
