"""A content hash of an Arrow table that does not depend on chunks, column order or file format."""

from __future__ import annotations

import hashlib

import numpy as np

from leanmatch.data.arrow import pa, pc


def table_fingerprint(table: pa.Table) -> str:
    """SHA-256 over the number of rows and, for each column by name: name, lengths of the values and bytes.

    Args:
        table: columns of ``large_string`` or of fixed-width types.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256(f"leanmatch table 1, {table.num_rows} rows".encode())
    for name in sorted(table.column_names):
        column = table.column(name)
        digest.update(f"\0{name}\0{column.type}\0".encode())
        if pa.types.is_large_string(column.type):
            _add_texts(digest, column)
        else:
            digest.update(np.packbits(pc.is_null(column).to_numpy().astype(bool)).tobytes())
            integers = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
            digest.update(np.ascontiguousarray(pc.fill_null(integers, 0).to_numpy()).tobytes())
    return digest.hexdigest()


def _add_texts(digest: hashlib._Hash, column: pa.ChunkedArray) -> None:
    lengths = pc.fill_null(pc.binary_length(column), -1)
    digest.update(lengths.to_numpy().astype("<i8").tobytes())
    for chunk in column.chunks:
        filled = pc.fill_null(chunk, "")
        if len(filled) == 0:
            continue
        _, offsets, data = filled.buffers()
        bounds = np.frombuffer(offsets, np.int64)[filled.offset : filled.offset + len(filled) + 1]
        if data is not None and bounds[-1] > bounds[0]:
            digest.update(memoryview(data)[int(bounds[0]) : int(bounds[-1])])
