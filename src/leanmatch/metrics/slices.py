"""The parts of a table that are evaluated: all rows, in and out of distribution, values of columns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.splitting.options import parse_hold_out
from leanmatch.data.table import PairTable
from leanmatch.data.timestamps import parse_timestamp
from leanmatch.errors import DataError
from leanmatch.metrics.options import EvaluationOptions

OVERALL = "overall"
IN_DISTRIBUTION = "in distribution"
OUT_OF_DISTRIBUTION = "out of distribution"
COLUMN_VALUE = "column value"
MOST_DEFAULT_VALUES = 12


class Slice(NamedTuple):
    """A named part: its rows (int64, rising) and why it is there (one of the constants of this module)."""

    name: str
    kind: str
    rows: NDArray[np.int64]


def make_slices(table: PairTable, options: EvaluationOptions) -> list[Slice]:
    """All slices, overall first; an empty in- or out-of-distribution part is left out.

    Raises:
        DataError: a column or value that the table does not have, with those that it has.
    """
    everything = np.arange(len(table), dtype=np.int64)
    slices = [Slice(OVERALL, OVERALL, everything)]
    if options.hold_out or options.after is not None:
        outside = held_out_rows(table, options)
        for name, mask in ((IN_DISTRIBUTION, ~outside), (OUT_OF_DISTRIBUTION, outside)):
            if mask.any():
                slices.append(Slice(name, name, np.flatnonzero(mask)))
    for column in dict.fromkeys(options.slices):
        values = _values(table, column)
        for value in sorted(set(values.tolist())):
            slices.append(Slice(f"{column}={value}", COLUMN_VALUE, np.flatnonzero(values == value)))
    return slices


def few_valued_columns(table: PairTable) -> tuple[str, ...]:
    """The columns that rows are sliced by where nobody names any: those of 2 to 12 values."""
    return tuple(
        name for name in table.slice_columns if 2 <= len(set(table.column(name))) <= MOST_DEFAULT_VALUES
    )


def held_out_rows(table: PairTable, options: EvaluationOptions) -> NDArray[np.bool_]:
    """Which rows match any ``hold_out`` condition or are not before ``after``; shape ``(rows,)``.

    Raises:
        DataError: an unknown column or value, or ``after`` without a ``timestamp`` column.
    """
    outside = np.zeros(len(table), np.bool_)
    for column, wanted in parse_hold_out(options.hold_out).items():
        values = _values(table, column)
        for value in wanted:
            matching = values == value
            if not matching.any():
                raise DataError(
                    f"no row has {column}={value} to hold out",
                    path=table.source or None,
                    remedy=f"values of {column}: {_shown(sorted(set(values.tolist())))}",
                )
            outside |= matching
    if options.after is not None:
        if not table.has("timestamp"):
            raise DataError(
                f"after={options.after} needs a column 'timestamp'",
                path=table.source or None,
                remedy=f"the columns are: {', '.join(table.column_names)}; read another one as timestamp",
            )
        limit = parse_timestamp(options.after)
        outside |= np.array(
            [time is not None and time >= limit for time in table.column("timestamp")], np.bool_
        )
    return outside


def _values(table: PairTable, column: str) -> NDArray[np.object_]:
    """A column as text; a missing value is the empty text."""
    if not table.has(column):
        raise DataError(
            f"there is no column {column!r} to slice by",
            path=table.source or None,
            remedy=f"columns to slice by: {_shown(list(table.slice_columns)) or 'none'}",
        )
    values = np.empty(len(table), np.object_)
    values[:] = ["" if value is None else str(value) for value in table.column(column)]
    return values


def _shown(names: list[str], most: int = 20) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
