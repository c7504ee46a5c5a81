"""The pair table: texts that belong together, with what is known about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leanmatch.data.arrow import pa, pc
from leanmatch.data.columns.mapping import ROWS_LOOKED_AT, ColumnMapping, map_columns, warn_python
from leanmatch.data.columns.names import SPLIT_NAMES, SPLITS, is_known, negative_columns, require
from leanmatch.data.fingerprints import table_fingerprint
from leanmatch.data.items import ItemTable
from leanmatch.data.problems import OnError, Problems, SkippedRow
from leanmatch.data.readers.canonical import canonical_rows, column_type
from leanmatch.data.readers.plain_values import as_list
from leanmatch.errors import DataError, MissingExtraError

MAX_SLICE_VALUES = 1000


class PairTable:
    """Pairs of texts, immutable, Arrow underneath.

    Columns: ``anchor`` and ``positive`` (texts, required); ``negative``, ``negative_1``, ... (texts that do
    not match the anchor); ``label`` (1: the pair matches, 0: it does not); ``split`` (train, valid or test;
    val, dev and validation are read as valid); ``timestamp``; ``anchor_id``, ``positive_id``; ``relevance``
    (grade); every other column is kept as text and may serve to slice.

    Build it with :meth:`from_arrow`, :meth:`from_columns` or :func:`leanmatch.data.read_pairs`.

    >>> table = PairTable.from_columns({"anchor": ["a b", "c"], "positive": ["a", "d"], "label": [1, 0]})
    >>> len(table), table.labels.tolist(), table.relevant().anchors
    (2, [1, 0], ['a b'])
    """

    def __init__(
        self,
        table: pa.Table,
        *,
        source: str = "",
        corpus: ItemTable | None = None,
        skipped: tuple[SkippedRow, ...] = (),
        columns_read: Mapping[str, str] | None = None,
    ) -> None:
        """Wrap rows that are canonical already; see the class for how to build a table from others.

        ``columns_read``: our name to the file's, for columns that were read by another name.
        """
        self._table, self.source, self.corpus, self.skipped = table, source, corpus, skipped
        self.columns_read = dict(columns_read or {})

    @classmethod
    def from_arrow(
        cls,
        table: pa.Table,
        source: str = "",
        *,
        corpus: ItemTable | None = None,
        on_error: OnError = "raise",
    ) -> PairTable:
        """Check the rows of an Arrow table and take them.

        Args:
            table: at least the columns ``anchor`` and ``positive``.
            source: where the rows come from, for messages and provenance.
            corpus: the items that positives are searched among, where they come with the data.
            on_error: raise at the first bad row, or leave bad rows out and list them in ``skipped``.

        Raises:
            DataError: a missing column, or a bad row (counted from 1).
        """
        return cls._checked(
            {name: table.column(name) for name in table.column_names}, source, corpus, on_error
        )

    @classmethod
    def from_columns(
        cls, columns: Mapping[str, Sequence[Any]], source: str = "", *, on_error: OnError = "raise"
    ) -> PairTable:
        """Check rows that are given as one list a column, and take them.

        Raises:
            DataError: a missing column, columns of different lengths, or a bad row (counted from 1).
        """
        lengths = {name: len(values) for name, values in columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(
                f"the columns differ in length: {lengths}", remedy="give every column a value a row"
            )
        return cls._checked({name: list(values) for name, values in columns.items()}, source, None, on_error)

    @classmethod
    def from_pandas(
        cls,
        frame: Any,
        source: str = "",
        *,
        columns: Mapping[str, str] | None = None,
        on_error: OnError = "raise",
    ) -> PairTable:
        """Check the rows of a pandas ``DataFrame`` and take them; its index is left out.

        Args:
            frame: columns for ``anchor`` and ``positive``, at least.
            source: where the rows come from, for messages and provenance.
            columns: our name to the frame's: ``{"anchor": "query", "positive": "title"}``; others are
                recognized by their usual names, as by :func:`leanmatch.data.read_pairs`.
            on_error: as in :meth:`from_arrow`.

        Raises:
            DataError: a missing column, or a bad row (counted from 1).
        """
        rows = pa.Table.from_pandas(frame, preserve_index=False)
        mapping = _mapping(rows, columns, source)
        warn_python(mapping)
        return cls._read_as(rows, mapping, source, on_error)

    @classmethod
    def from_dataset(
        cls,
        dataset: Any,
        source: str = "",
        *,
        columns: Mapping[str, str] | None = None,
        on_error: OnError = "raise",
    ) -> PairTable:
        """Take the rows of a Hugging Face ``datasets.Dataset``; arguments and errors: :meth:`from_pandas`."""
        rows = dataset.with_format("arrow")[:]
        mapping = _mapping(rows, columns, source)
        warn_python(mapping)
        return cls._read_as(rows, mapping, source, on_error)

    @classmethod
    def _read_as(cls, rows: pa.Table, mapping: ColumnMapping, source: str, on_error: OnError) -> PairTable:
        table = cls.from_arrow(
            rows.rename_columns(mapping.names(rows.column_names)), source, on_error=on_error
        )
        table.columns_read = mapping.columns
        return table

    def to_dataset(self) -> Any:
        """The rows as a Hugging Face ``datasets.Dataset``, as sentence-transformers' trainer takes them.

        Raises:
            MissingExtraError: ``datasets`` is not installed.
        """
        try:
            from datasets import Dataset
        except ModuleNotFoundError as error:
            raise MissingExtraError("datasets", "train", "PairTable.to_dataset") from error
        return Dataset(self._table)

    @classmethod
    def _checked(
        cls, columns: dict[str, Any], source: str, corpus: ItemTable | None, on_error: OnError
    ) -> PairTable:
        require(list(columns), path=source or None)
        problems = Problems(source or None, on_error)
        rows, bad_rows = canonical_rows(columns, range(1, len(columns["anchor"]) + 1))
        problems.report(bad_rows)
        return cls(rows, source=source, corpus=corpus, skipped=tuple(problems.skipped))

    @classmethod
    def concat(cls, tables: Sequence[PairTable]) -> PairTable:
        """One table after the other. A column that one of them lacks is null there, ``label`` is 1 there.

        Raises:
            DataError: no table is given, or only some have a ``split`` or a ``timestamp`` column.
        """
        if not tables:
            raise DataError("there is no table to concatenate", remedy="give at least one")
        for name in ("split", "timestamp"):
            having = [table.has(name) for table in tables]
            if any(having) and not all(having):
                lacking = tables[having.index(False)].source or f"table {having.index(False) + 1}"
                raise DataError(
                    f"{lacking} has no column {name!r}, another of the tables has one",
                    remedy=f"add {name!r} to all of them or to none",
                )
        parts = [table._table for table in tables]
        if any(table.has_labels for table in tables):
            parts = [
                table._table
                if table.has_labels
                else table._table.append_column("label", pa.array(np.ones(len(table), np.int8)))
                for table in tables
            ]
        sources = dict.fromkeys(table.source for table in tables if table.source)
        corpora = {id(table.corpus): table.corpus for table in tables}
        corpus = next(iter(corpora.values())) if len(corpora) == 1 else None
        skipped = tuple(row for table in tables for row in table.skipped)
        rows = pa.concat_tables(parts, promote_options="default")
        return cls(rows, source=" + ".join(sources), corpus=corpus, skipped=skipped)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __repr__(self) -> str:
        names = ", ".join(self._table.column_names)
        return f"PairTable({len(self):,} rows: {names}; source={self.source!r})"

    @property
    def column_names(self) -> tuple[str, ...]:
        """All columns, in the order of the source."""
        return tuple(self._table.column_names)

    @cached_property
    def anchors(self) -> list[str]:
        """The anchors, one a row; kept after the first use, so do not change the list."""
        return self.column("anchor")

    @cached_property
    def positives(self) -> list[str]:
        """The texts that are paired with the anchors (not matching where ``label`` is 0); kept likewise."""
        return self.column("positive")

    @property
    def has_labels(self) -> bool:
        """Whether there is a label column."""
        return self.has("label")

    @cached_property
    def labels(self) -> NDArray[np.int8]:
        """1 where the pair matches, 0 where not, shape ``(rows,)``; all 1 without a label column."""
        labels = (
            self._table.column("label").to_numpy().astype(np.int8)
            if self.has_labels
            else np.ones(len(self), np.int8)
        )
        labels.flags.writeable = False
        return labels

    @cached_property
    def negatives(self) -> list[list[str]]:
        """The given negatives of each row, possibly none; ``negative`` first, then by number."""
        columns = [self.column(name) for name in negative_columns(self.column_names)]
        if not columns:
            return [[] for _ in range(len(self))]
        return [[text for text in row if text is not None] for row in zip(*columns, strict=True)]

    @cached_property
    def slice_columns(self) -> tuple[str, ...]:
        """Columns without a meaning of their own that have few values: at most half as many as rows.

        (20 values are always few, 1,000 is the limit.)
        """
        most = min(MAX_SLICE_VALUES, max(20, len(self) // 2))
        others = [name for name in self.column_names if not is_known(name)]
        return tuple(
            name for name in others if 0 < pc.count_distinct(self._table.column(name)).as_py() <= most
        )

    def has(self, name: str) -> bool:
        """Whether there is a column of this name."""
        return name in self._names

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self._table.column_names)

    def column(self, name: str) -> list[Any]:
        """The values of a column, None where one is missing.

        Raises:
            DataError: there is no such column; the message lists those there are.
        """
        self._require(name)
        return list(self._table.column(name).to_pylist())

    def take(self, indices: ArrayLike) -> PairTable:
        """The rows at these positions, in this order; a position may come more than once.

        Raises:
            DataError: a position outside the table.
        """
        positions = np.asarray(indices, np.int64).reshape(-1)
        if positions.size and not 0 <= positions.min() <= positions.max() < len(self):
            outside = positions.min() if positions.min() < 0 else positions.max()
            raise DataError(
                f"row {outside} of a table of {len(self)} rows", remedy=f"rows go from 0 to {len(self) - 1}"
            )
        return PairTable(self._table.take(pa.array(positions)), source=self.source, corpus=self.corpus)

    def filter(self, mask: ArrayLike) -> PairTable:
        """The rows where ``mask`` (booleans, shape ``(rows,)``) is true.

        Raises:
            DataError: a mask of another length or type.
        """
        chosen = np.asarray(mask)
        if chosen.shape != (len(self),) or (chosen.dtype != np.bool_ and chosen.size):
            raise DataError(
                f"the mask has shape {chosen.shape} and type {chosen.dtype}",
                remedy=f"give {len(self)} booleans, one a row",
            )
        return self.take(np.flatnonzero(chosen))

    def select_split(self, name: str) -> PairTable:
        """The rows of one split: train, valid or test.

        Raises:
            DataError: an unknown split, or a table without a ``split`` column.
        """
        if name not in SPLIT_NAMES:
            raise DataError(f"there is no split {name!r}", remedy=f"one of: {', '.join(SPLITS)}")
        self._require("split")
        return self.filter(pc.equal(self._table.column("split"), SPLIT_NAMES[name]).to_numpy())

    def relevant(self) -> PairTable:
        """The rows whose pair matches (label 1)."""
        return self.filter(self.labels == 1) if self.has_labels else self

    def fingerprint(self) -> str:
        """SHA-256 over column names, values and row order; the same for one table in every file format.

        Neither the order of the columns nor the corpus counts.
        """
        return table_fingerprint(self._table)

    def to_arrow(self) -> pa.Table:
        """The Arrow table underneath (shared, not copied: Arrow data cannot be changed)."""
        return self._table

    def _require(self, name: str) -> None:
        if not self.has(name):
            raise DataError(
                f"there is no column {name!r} in {self.source or 'the table'}",
                remedy=f"one of: {', '.join(self.column_names)}",
            )


def _mapping(rows: pa.Table, columns: Mapping[str, str] | None, source: str) -> ColumnMapping:
    first = rows.slice(0, ROWS_LOOKED_AT)
    values = {name: as_list("", first.column(name), range(first.num_rows), []) for name in rows.column_names}
    return map_columns(values, columns, path=source or None)


def empty_rows(names: Sequence[str]) -> pa.Table:
    """A canonical table without rows."""
    return pa.table({name: pa.array([], column_type(name)) for name in names})
