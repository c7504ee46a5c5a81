"""Parts: one Parquet file a slice, whole or absent, that says which plan it belongs to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leanmatch.batch.locations import Folder
from leanmatch.batch.rows import ID, TEXT
from leanmatch.data.arrow import pa, parquet
from leanmatch.errors import FormatError

PARTS = "parts"
VECTOR = "vector"
_NAME = re.compile(r"part-(\d{6,})\.parquet")
_NOTE = b"leanmatch"


def part_name(number: int) -> str:
    """The file of a slice's part, below the output folder.

    >>> part_name(7)
    'parts/part-000007.parquet'
    """
    return f"{PARTS}/part-{number:06d}.parquet"


def is_part(name: str) -> bool:
    """Whether a file below the folder of parts is called like a part."""
    return _NAME.fullmatch(name) is not None


def part_numbers(folder: Folder) -> dict[int, int]:
    """The slices whose parts are there, with the size of each."""
    matches = ((_NAME.fullmatch(name), size) for name, size in folder.sizes(PARTS).items())
    return {int(match[1]): size for match, size in matches if match}


@dataclass(frozen=True)
class PartNote:
    """What a part says about itself.

    Attributes:
        key: of the plan.
        number: of the slice.
        rows: that it holds.
        skipped: bad rows that were left out.
        truncated: texts that were longer than the model reads.
    """

    key: str
    number: int
    rows: int
    skipped: int
    truncated: int


def write_part(
    folder: Folder,
    key: str,
    number: int,
    tables: Iterable[Any],
    schema: Any,
    count: Any,
) -> PartNote:
    """Write a part: rows stream to a temporary name, and the whole part takes its own.

    Args:
        folder: the output.
        key: of the plan.
        number: of the slice.
        tables: the rows, with vectors.
        schema: of a part without rows.
        count: a function that gives the rows skipped and the texts truncated, called at the end.

    Raises:
        OSError: the disk is full, or the folder cannot be reached; no part is there then.
    """
    rows = 0
    with folder.writing(part_name(number)) as path:
        writer: Any = None
        try:
            for table in tables:
                writer = _writer(path, table.schema) if writer is None else writer
                writer.write_table(table)
                rows += table.num_rows
            writer = _writer(path, schema) if writer is None else writer
            skipped, truncated = count()
            note = PartNote(key, number, rows, skipped, truncated)
            writer.add_key_value_metadata({_NOTE: json.dumps(note.__dict__).encode()})
        finally:
            if writer is not None:
                writer.close()
    return note


def _writer(path: Path, schema: Any) -> Any:
    names = [name for name in schema.names if name != VECTOR]
    return parquet().ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=[name for name in names if name not in (ID, TEXT)],
        write_page_checksum=True,
        use_byte_stream_split=False,
    )


def open_part(folder: Folder, number: int, key: str) -> tuple[Any, PartNote]:
    """A part as ``pyarrow.parquet.ParquetFile``, and its note.

    Raises:
        FormatError: it is damaged, or of another plan.
    """
    name = part_name(number)
    remedy = f"remove {name} and give the same command again: it encodes what is missing"
    try:
        file = parquet().ParquetFile(
            folder.filesystem.open_input_file(folder.path(name)), page_checksum_verification=True
        )
        note = PartNote(**json.loads((file.metadata.metadata or {})[_NOTE]))
    except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{folder}/{name}: no readable part ({error})", remedy=remedy) from error
    if (note.key, note.number) != (key, number) or note.rows != file.metadata.num_rows:
        raise FormatError(f"{folder}/{name}: a part of another encoding", remedy=remedy)
    return file, note
