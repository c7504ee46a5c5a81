"""Reading what :func:`leanmatch.batch.encode_files` wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
from leanmatch.types import Vectors


@dataclass(frozen=True)
class Block:
    """Some rows.

    Attributes:
        file: number of the input that they come from.
        ids, texts: one a row.
        metadata: what else is known of each row, plain values, without missing ones.
        vectors: float32, unit length.
    """

    file: int
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

    def blocks(self) -> Iterator[Block]:
        """All rows, in the order of the inputs, some thousands at a time.

        Raises:
            FormatError: a part that is damaged.
        """
        for number in range(len(self.plan.slices)):
            file, _ = open_part(self._folder, number, self.plan.key)
            gone = np.asarray(self._complete.superseded.get(number, []), dtype=np.int64)
            start = 0
            for batch in file.iter_batches(batch_size=BLOCK_ROWS):
                kept = np.setdiff1d(np.arange(batch.num_rows), gone - start)
                start += batch.num_rows
                rows = batch if len(kept) == batch.num_rows else batch.take(pa.array(kept))
                if rows.num_rows:
                    yield _block(self.plan.slices[number].file, rows, self.plan.model.dimension)

    def items(self) -> tuple[list[Item], Vectors]:
        """All rows as items of a catalogue, with their vectors, float32 ``(rows, dimension)``.

        Columns of CSV and TSV files become numbers or booleans where all values are, as in
        :func:`leanmatch.data.read_items`.

        Raises:
            FormatError: a part that is damaged.
        """
        vectors = np.empty((self.rows, self.plan.model.dimension), np.float32)
        items: list[Item] = []
        starts = [0] * (len(self.plan.files) + 1)
        for block in self.blocks():
            vectors[len(items) : len(items) + len(block.ids)] = block.vectors
            items += map(Item, block.ids, block.texts, block.metadata)
            starts[block.file + 1 :] = [len(items)] * (len(starts) - block.file - 1)
        for number, scanned in enumerate(self.plan.scans):
            if scanned.format in {"csv", "tsv"}:
                _type_columns([item.metadata for item in items[starts[number] : starts[number + 1]]])
        return items, vectors


def _type_columns(rows: Sequence[Any]) -> None:
    """Make the columns of a text file numbers or booleans, in place."""
    for name in dict.fromkeys(name for row in rows for name in row):
        typed = typed_column([row.get(name) for row in rows])
        for row, value in zip(rows, typed, strict=True):
            if name in row:
                row[name] = value


def _block(file: int, batch: Any, dimension: int) -> Block:
    columns: Mapping[str, Any] = {name: batch.column(name) for name in batch.schema.names}
    codes = columns[VECTOR].flatten().to_numpy(zero_copy_only=False).reshape(-1, dimension)
    scales = columns[VECTOR + SCALE].to_numpy() if VECTOR + SCALE in columns else None
    return Block(
        file,
        columns[ID].to_pylist(),
        columns[TEXT].to_pylist(),
        _metadata(columns[METADATA]),
        from_stored(codes, scales),
    )


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
