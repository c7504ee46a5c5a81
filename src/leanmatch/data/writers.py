"""Writing pair tables, atomically, in the format that the name's ending tells."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from leanmatch.data.arrow import pa, parquet
from leanmatch.data.readers.delimited import UNSAFE_IN_TSV
from leanmatch.data.readers.sources import format_of
from leanmatch.data.table import PairTable
from leanmatch.errors import DataError
from leanmatch.files import atomic_file


def write_pairs(table: PairTable, path: str | Path) -> None:
    """Write a table so that :func:`leanmatch.data.read_pairs` reads it back with the same fingerprint.

    Args:
        table: the pairs.
        path: the file; its ending (.parquet, .csv, .tsv, .jsonl, each also with .gz) tells the format.

    Raises:
        DataError: an unknown ending, or a text with a tab or a line end for TSV, which has no quoting.
    """
    path = Path(path)
    kind = format_of(path)
    if kind == "tsv":
        _refuse_unsafe(table, path)
    with atomic_file(path) as temporary:
        if kind == "parquet":
            if path.suffix.lower() == ".gz":
                with gzip.GzipFile(temporary, "wb", mtime=0) as packed:
                    parquet().write_table(table.to_arrow(), packed)
            else:
                parquet().write_table(table.to_arrow(), temporary)
            return
        with _text_file(temporary) as handle:
            if kind == "jsonl":
                for row in _rows(table):
                    handle.write(json.dumps(row, ensure_ascii=False) + "\n")
            elif kind == "csv":
                writer = csv.writer(handle)  # lines end in CRLF (RFC 4180): only so is a lone CR quoted
                writer.writerow(table.column_names)
                writer.writerows(row.values() for row in _rows(table))
            else:
                handle.write("\t".join(table.column_names) + "\n")
                for row in _rows(table):
                    handle.write("\t".join("" if v is None else str(v) for v in row.values()) + "\n")


@contextmanager
def _text_file(path: Path) -> Iterator[TextIO]:
    if path.suffix.lower() == ".gz":
        with (
            gzip.GzipFile(path, "wb", mtime=0) as packed,
            io.TextIOWrapper(packed, "utf-8", newline="") as text,
        ):
            yield text
    else:
        with path.open("w", encoding="utf-8", newline="") as text:
            yield text


def _rows(table: PairTable) -> Iterator[dict[str, Any]]:
    for batch in table.to_arrow().to_batches(4096):
        for row in batch.to_pylist():
            if "timestamp" in row:
                row["timestamp"] = row["timestamp"].isoformat()
            yield row


def _refuse_unsafe(table: PairTable, path: Path) -> None:
    rows = table.to_arrow()
    for name in table.column_names:
        bad_name = UNSAFE_IN_TSV.search(name) is not None
        if not (bad_name or pa.types.is_large_string(rows.schema.field(name).type)):
            continue
        for i, value in enumerate([name] if bad_name else rows.column(name).to_pylist(), start=1):
            if value is not None and UNSAFE_IN_TSV.search(value):
                raise DataError(
                    f"{'the name' if bad_name else f'row {i}'} has a tab or a line end, which TSV cannot "
                    f"hold",
                    path=path,
                    column=name,
                    value=value,
                    remedy="write .csv, .jsonl or .parquet instead",
                )
