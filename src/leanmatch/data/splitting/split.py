"""Splitting a pair table into train, valid and tests in and out of distribution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.columns.names import guess, is_known
from leanmatch.data.near_duplicates import near_pairs
from leanmatch.data.splitting.components import random_parts
from leanmatch.data.splitting.leakage import LeakageReport, TextRows, leaking_rows
from leanmatch.data.splitting.options import SplitOptions, parse_hold_out
from leanmatch.data.splitting.parts import PARTS, Split
from leanmatch.data.table import PairTable
from leanmatch.data.text_form import text_ids
from leanmatch.data.timestamps import parse_timestamp
from leanmatch.errors import DataError

DATES_LOOKED_AT = 100
"""Entries that decide whether a column holds dates."""


def split_pairs(table: PairTable, options: SplitOptions | None = None) -> Split:
    """Split a table at random, by group, by time, or by its ``split`` column.

    Rows of held-out groups and rows at or after the date are ``test_out``; where any of them is marked test
    in the ``split`` column, only those marked test. The others go where that column says, or at random: rows
    that share a text (or a near-duplicate) stay on one side. Then rows of train and valid that leak into the
    tests, and rows of train that leak into valid, are removed or reported. Without valid rows in the
    ``split`` column, valid is drawn at random from the train rows that are left.

    Raises:
        DataError: a held-out column or value that is not there, ``after`` without timestamps, nothing held
            out by the date, or no row left to train on.
    """
    options = options or SplitOptions()
    notes: list[str] = []
    data = text_rows(table, options)
    held = _held_out(table, options)
    everything = np.arange(len(table))
    splits = np.array(table.column("split")) if table.has("split") else None
    out = everything[held]
    if splits is None:
        fractions = {"test_in": options.test_fraction, "valid": options.valid_fraction}
        parts, _, remarks = random_parts(data, everything[~held], table.labels, fractions, options.seed)
    else:
        if (splits[out] == "test").any():
            unused = int((splits[out] != "test").sum())
            out = out[splits[out] == "test"]
            if unused:
                notes.append(f"{unused:,} held-out rows that are not marked test are in no part")
        ours = everything[~held]
        marks = {"train": "train", "valid": "valid", "test_in": "test"}
        parts = {name: ours[splits[ours] == mark] for name, mark in marks.items()}
        remarks = []
    notes += remarks
    rows = {"test_in": parts["test_in"], "test_out": out, "valid": parts["valid"], "train": parts["train"]}
    if not len(rows["train"]):
        raise DataError(
            f"no row of {table.source or 'the table'} is left to train on: {_sizes(rows)}",
            remedy="hold out less, set a later date or smaller fractions",
        )
    before = len(rows["train"])
    report = _leakage(data, rows, options)
    if not len(rows["train"]):
        raise DataError(
            f"all {before:,} training rows share texts with the tests, so that removing them leaves nothing "
            f"to train on",
            remedy="shared_positives=True lets parts share positives, leakage='report' only reports leakage",
            command="--shared-positives lets parts share positives, --leakage report only reports leakage",
        )
    if len(rows["train"]) < before / 2:
        notes.append(
            f"removing leakage took {before - len(rows['train']):,} of {before:,} training rows; where "
            "positives are a catalogue that all parts share, say so: --shared-positives"
        )
    if splits is not None and not len(rows["valid"]) and options.valid_fraction > 0:
        # drawn after the removal, so that valid gets its share of what is left
        fractions = {"valid": options.valid_fraction}
        drawn, _, remarks = random_parts(data, rows["train"], table.labels, fractions, options.seed)
        rows |= drawn
        notes += remarks
    return Split(table, options, {name: rows[name] for name in PARTS}, report, tuple(notes))


def text_rows(table: PairTable, options: SplitOptions) -> TextRows:
    """Number the normalized texts of a table and find the near-duplicates among them."""
    texts, (anchors, positives) = text_ids([table.anchors, table.positives])
    shared = options.shared_positives if options.shared_positives is not None else table.corpus is not None
    near = np.empty((0, 2), np.int64)
    if options.near_duplicates and options.leakage != "ignore":
        near = near_pairs(texts)
    return TextRows(np.array(anchors, np.int64), np.array(positives, np.int64), near, len(texts), shared)


def _held_out(table: PairTable, options: SplitOptions) -> NDArray[np.bool_]:
    held = np.zeros(len(table), np.bool_)
    for column, values in parse_hold_out(options.hold_out).items():
        if not table.has(column):
            raise DataError(
                f"there is no column {column!r} to hold out by in {table.source or 'the table'}",
                remedy=f"one of: {', '.join(table.slice_columns) or 'none: add a column of groups'}",
            )
        entries = table.column(column)
        for value in values:
            mask = np.array([entry is not None and str(entry) == value for entry in entries], np.bool_)
            if not mask.any():
                raise DataError(
                    f"no row has {column}={value}",
                    remedy=f"one of the values of {column!r}: {_some(entries)}",
                )
            held |= mask
    if options.after is not None:
        if not table.has("timestamp"):
            column = _time_column(table)
            raise DataError(
                f"{table.source or 'the table'} has no column 'timestamp', which a split by time needs",
                remedy=f"name the column of times when reading: columns={{'timestamp': {column!r}}}",
                command=f"name the column of times: --column timestamp={column}",
            )
        limit = parse_timestamp(options.after)
        times = table.column("timestamp")
        late = np.array([moment >= limit for moment in times], np.bool_)
        if not late.any():
            raise DataError(
                f"no row has a timestamp at or after {limit.isoformat()}",
                remedy=f"a date up to {max(times).isoformat() if times else 'nothing'}",
            )
        held |= late
    return held


def _time_column(table: PairTable) -> str:
    """The column that probably holds the times: the only one of dates, or one of a similar name."""
    dates = [name for name in table.column_names if not is_known(name) and _are_dates(table.column(name))]
    if len(dates) == 1:
        return dates[0]
    return guess("timestamp", table.slice_columns) or guess("date", table.slice_columns) or "NAME"


def _are_dates(entries: Sequence[object]) -> bool:
    """Whether the first entries are dates as text; numbers may be anything."""
    texts = [entry for entry in entries[:DATES_LOOKED_AT] if entry is not None]
    if not texts or not all(isinstance(entry, str) and "-" in entry for entry in texts):
        return False
    try:
        for entry in texts:
            parse_timestamp(entry)
    except ValueError:
        return False
    return True


def _leakage(data: TextRows, rows: dict[str, NDArray[np.int64]], options: SplitOptions) -> LeakageReport:
    if options.leakage == "ignore":
        return LeakageReport("ignore")
    report = LeakageReport(options.leakage)
    tests = np.concatenate([rows["test_in"], rows["test_out"]])
    for part, judged_name in (("valid", "test"), ("train", "test"), ("train", "valid")):
        judged = tests if judged_name == "test" else rows["valid"]
        leaks, counts, examples = leaking_rows(data, rows[part], judged)
        relation = f"{part} in {judged_name}"
        report.counts[relation], report.examples[relation] = counts, examples
        if options.leakage == "remove":
            report.removed[part] = report.removed.get(part, 0) + int(leaks.sum())
            rows[part] = rows[part][~leaks]
    return report


def _sizes(rows: dict[str, NDArray[np.int64]]) -> str:
    return ", ".join(f"{name} {len(numbers):,}" for name, numbers in rows.items())


def _some(values: Iterable[object]) -> str:
    distinct = sorted({str(value) for value in values if value is not None})
    return ", ".join(distinct[:20]) + (", ..." if len(distinct) > 20 else "")
