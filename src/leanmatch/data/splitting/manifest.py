"""A split as a small file.

A JSON object: ``format`` and ``version``, ``source``, ``rows`` and ``fingerprint`` of the table, ``options``,
``leakage``, ``notes`` and ``parts``. A part has its number of ``rows``, the ``bits`` (one bit a row of the
table, first row highest in the first byte, deflated, base64) and their ``sha256`` before deflating.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.splitting.leakage import LeakageReport
from leanmatch.data.splitting.options import SplitOptions
from leanmatch.data.splitting.parts import FORMAT, PARTS, VERSION, Split
from leanmatch.data.table import PairTable
from leanmatch.errors import DataError, FormatError, LeanmatchError
from leanmatch.files import write_json
from leanmatch.types import JsonValue


def write_manifest(split: Split, path: str | Path) -> None:
    """Write the manifest, atomically."""
    write_json(path, split.manifest())


def is_split_manifest(path: Path) -> bool:
    """Whether a file is the manifest of a split, of any version."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT


def load_split(table: PairTable, path: str | Path) -> Split:
    """Reproduce a split from its manifest.

    Args:
        table: the table that was split, from whatever file format.
        path: the manifest.

    Raises:
        DataError: another table, by its fingerprint.
        FormatError: no manifest, a version that is not known, or a damaged one.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, ValueError) as error:
        raise FormatError(f"{path} is no JSON file: {error}", remedy="write the manifest again") from error
    return split_from_json(table, document, name=str(path))


def split_from_json(table: PairTable, document: JsonValue, *, name: str = "the manifest") -> Split:
    """Reproduce a split from what :meth:`Split.manifest` gave; errors as in :func:`load_split`."""
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise FormatError(
            f"{name} is no split manifest", remedy="make one: leanmatch data split FILE -o MANIFEST"
        )
    if document.get("version") != VERSION:
        raise FormatError(
            f"{name} has version {document.get('version')!r}, this leanmatch reads {VERSION}",
            remedy="use the leanmatch that wrote it, or split again",
        )
    fingerprint = table.fingerprint()
    if document.get("fingerprint") != fingerprint:
        raise DataError(
            f"{name} was made for {document.get('source')!r} ({document.get('rows')} rows, "
            f"fingerprint "
            f"{str(document.get('fingerprint'))[:12]}...), not for {table.source or 'this table'!r} "
            f"({len(table)} rows, fingerprint {fingerprint[:12]}...)",
            remedy="give the same data, read with the same columns, or split again",
            command="give the same data with the same --column names, or split again",
        )
    try:
        options = SplitOptions(**document["options"])
        rows = {name: _unpacked(name, document["parts"][name], len(table)) for name in PARTS}
        leakage = LeakageReport(**document["leakage"])
        notes = tuple(document["notes"])
    except (KeyError, TypeError, ValueError, zlib.error, binascii.Error, LeanmatchError) as error:
        raise FormatError(f"{name} is damaged: {error!r}", remedy="write the manifest again") from error
    return Split(table, options, rows, leakage, notes)


def _unpacked(name: str, part: dict[str, Any], count: int) -> NDArray[np.int64]:
    limit = (count + 7) // 8
    bits = zlib.decompressobj().decompress(base64.b64decode(part["bits"], validate=True), limit + 1)
    if hashlib.sha256(bits).hexdigest() != part["sha256"] or len(bits) != limit:
        raise ValueError(f"the rows of {name} do not match their checksum")
    rows = np.flatnonzero(np.unpackbits(np.frombuffer(bits, np.uint8), count=count)).astype(np.int64)
    if len(rows) != part["rows"]:
        raise ValueError(f"{name} has {len(rows)} rows, not {part['rows']}")
    return rows
