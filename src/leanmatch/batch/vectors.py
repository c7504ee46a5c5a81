"""Reading what :func:`leanmatch.batch.encode_files` wrote."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from leanmatch.batch.encode import SCALE, from_stored
from leanmatch.batch.finish import Complete
from leanmatch.batch.locations import Folder
from leanmatch.batch.parts import VECTOR, open_part
from leanmatch.batch.plan import MANIFEST, Plan
from leanmatch.batch.rows import BLOCK_ROWS, ID, METADATA, TEXT
from leanmatch.data.arrow import pa
from leanmatch.data.readers.plain_values import plain_columns, typed_column
from leanmatch.errors import DataError
from leanmatch.index.changes import Item
from leanmatch.index.storage.columns import infer_type, joined_type, reads_as_number
from leanmatch.types import Vectors


@dataclass(frozen=True)
class Block:
    """Some rows.

    Attributes:
        ids, texts: one a row.
        metadata: what else is known of each row, plain values, without missing ones.
        vectors: float32, unit length.
    """

    ids: list[str]
    texts: list[str]
    metadata: list[dict[str, Any]]
    vectors: Vectors


class EncodedFiles:
    """A finished output of :func:`leanmatch.batch.encode_files`. Make one with :meth:`open`.

    Attributes:
        plan: which model, which inputs.
        rows: how many there are.
    """

    def __init__(self, folder: Folder, plan: Plan, complete: Complete) -> None:
        self._folder, self._complete = folder, complete
        self.plan, self.rows = plan, complete.rows

    @classmethod
    def open(cls, place: str | Path) -> EncodedFiles:
        """Open a folder, by path or URL.

        Raises:
            DataError: it holds no vectors, or parts are missing.
            FormatError: it is damaged.
        """
        folder = Folder(place)
        content = folder.read(MANIFEST)
        if content is None:
            raise DataError(
                "the folder holds no encoded files", path=place, remedy="make them: leanmatch encode"
            )
        plan = Plan.from_bytes(content, folder)
        complete = Complete.read(folder, plan)
        if complete is None:
            raise DataError(
                "the encoding has not finished", path=place, remedy="give its leanmatch encode command again"
            )
        return cls(folder, plan, complete)

    def items(self) -> Iterator[tuple[list[Item], Vectors]]:
        """All rows as items of a catalogue, block by block, with their vectors.

        Raises:
            FormatError: a part that is damaged.
        """
        for block in self.blocks():
            yield list(map(Item, block.ids, block.texts, block.metadata)), block.vectors

    def blocks(self) -> Iterator[Block]:
        """All rows, in the order of the inputs, some thousands at a time.

        Columns of CSV and TSV files become numbers or booleans where all values of the file are, as in
        :func:`leanmatch.data.read_items`.

        Raises:
            FormatError: a part that is damaged.
        """
        for number, batch in self._batches(None):
            file = self.plan.slices[number].file
            metadata = self._typed(file, _metadata(batch.column(METADATA)))
            codes = batch.column(VECTOR).flatten().to_numpy(zero_copy_only=False)
            scales = batch.column(VECTOR + SCALE).to_numpy() if VECTOR + SCALE in batch.schema.names else None
            vectors = from_stored(codes.reshape(-1, self.plan.model.dimension), scales)
            yield Block(batch.column(ID).to_pylist(), batch.column(TEXT).to_pylist(), metadata, vectors)

    def columns(self) -> Iterator[list[dict[str, Any]]]:
        """What else is known of the rows, block by block, without reading the vectors."""
        for number, batch in self._batches([METADATA]):
            yield self._typed(self.plan.slices[number].file, _metadata(batch.column(METADATA)))

    def column_types(self) -> tuple[dict[str, str], tuple[str, ...]]:
        """Type of each column (text, integer, number, boolean); the text columns that hold only numbers."""
        kinds: dict[str, set[str]] = defaultdict(set)
        not_numeric: set[str] = set()
        for rows in self.columns():
            values: dict[str, list[Any]] = defaultdict(list)
            for row in rows:
                for name, value in row.items():
                    values[name].append(value)
            for name, given in values.items():
                kinds[name].add(infer_type(given))
                if any(isinstance(value, str) and not reads_as_number(value) for value in given):
                    not_numeric.add(name)
        types = {name: joined_type(found) for name, found in kinds.items()}
        numeric = (name for name, kind in types.items() if kind == "text" and name not in not_numeric)
        return types, tuple(numeric)

    def _batches(self, names: list[str] | None) -> Iterator[tuple[int, Any]]:
        """Number of the part, and some of its rows that count."""
        for number in range(len(self.plan.slices)):
            file, _ = open_part(self._folder, number, self.plan.key)
            gone = np.asarray(self._complete.superseded.get(number, []), dtype=np.int64)
            start = 0
            for batch in file.iter_batches(batch_size=BLOCK_ROWS, columns=names):
                kept = np.setdiff1d(np.arange(batch.num_rows), gone - start)
                start += batch.num_rows
                rows = batch if len(kept) == batch.num_rows else batch.take(pa.array(kept))
                if rows.num_rows:
                    yield number, rows

    @cached_property
    def _texts_only(self) -> set[tuple[int, str]]:
        """File and name of the columns of text files that stay text."""
        kinds: dict[tuple[int, str], set[str]] = defaultdict(set)
        for number, batch in self._batches([METADATA]):
            file = self.plan.slices[number].file
            for row in _metadata(batch.column(METADATA)) if self._is_text_file(file) else ():
                for name, value in row.items():
                    kinds[file, name].add(_reading(value))
        return {place for place, readings in kinds.items() if readings not in ({"number"}, {"boolean"})}

    def _is_text_file(self, file: int) -> bool:
        return self.plan.scans[file].format in {"csv", "tsv"}

    def _typed(self, file: int, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows, with the numbers and booleans of text files as such."""
        if not self._is_text_file(file):
            return rows
        return [
            {
                name: value if (file, name) in self._texts_only else typed_column([value])[0]
                for name, value in row.items()
            }
            for row in rows
        ]


def _reading(value: str) -> str:
    typed = typed_column([value])[0]
    return "text" if isinstance(typed, str) else "boolean" if isinstance(typed, bool) else "number"


def _metadata(column: Any) -> list[dict[str, Any]]:
    if not hasattr(column, "field"):  # JSON
        return [json.loads(value) for value in column.to_pylist()]
    names = [column.type.field(i).name for i in range(column.type.num_fields)]
    rows = list(range(1, len(column) + 1))
    plain, _, problems = plain_columns({name: column.field(name) for name in names}, rows)
    if problems:
        raise DataError(problems[0].problem, column=problems[0].column, remedy=problems[0].remedy)
    return [
        {name: plain[name][i] for name in names if plain[name][i] is not None} for i in range(len(column))
    ]
