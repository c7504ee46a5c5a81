"""A catalogue's static files: vectors in 8 bits, items and columns in parts (``web/src/catalogue.ts``)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import DataError
from leanmatch.index import Catalogue
from leanmatch.serve.suggestions import sample_queries
from leanmatch.types import Vectors

FORMAT, FORMAT_VERSION = "leanmatch-web-catalogue", 1
VECTOR_PART_BYTES = 4_000_000
ITEM_PART_BYTES = 64_000
MOST_PART_ITEMS = 4_096
MOST_EXACT = 2**53 - 1
"""Integers beyond it have no exact number in JavaScript: they are written as text."""

_STEPS = 127


@dataclass(frozen=True)
class WebModel:
    """The model as the site's catalogue names it: its weights' SHA-256, and the catalogue's prompts."""

    name: str
    weights: str
    query: str
    document: str


def rounded(vectors: Vectors) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    r"""Vectors in 8 bits, each with a scale: ``codes[i] * scales[i]``.

    .. math:: s_i = \max_j |v_{ij}| / 127, \quad c_{ij} = \mathrm{round}(v_{ij} / s_i)

    Returns:
        codes int8 ``(rows, dimension)`` from -127 to 127, scales float32 ``(rows,)``; 0 for a row of zeros.

    >>> codes, scales = rounded(np.array([[1.0, -0.5, 0.0], [0.0, 0.0, 0.0]], np.float32))
    >>> codes.tolist(), scales.round(4).tolist()
    ([[127, -64, 0], [0, 0, 0]], [0.007899999618530273, 0.0])
    """
    scales = (np.abs(vectors).max(axis=1, initial=0.0) / _STEPS).astype(np.float32)
    steps = np.divide(vectors, scales[:, None], out=np.zeros_like(vectors), where=scales[:, None] > 0)
    return np.rint(steps).clip(-_STEPS, _STEPS).astype(np.int8), scales


def write_catalogue(catalogue: Catalogue, folder: Path, model: WebModel) -> dict[str, int]:
    """Write the files of a catalogue into a folder.

    Returns:
        bytes by kind of file: ``vectors``, ``items``, ``columns``, ``manifest``.

    Raises:
        DataError: vectors that are not finite.
    """
    folder.mkdir()
    files = _Files(folder)
    count, dimension = len(catalogue), catalogue.dimension
    step = max(1, VECTOR_PART_BYTES // (dimension + 4))
    vectors = []
    for number, start in enumerate(range(0, count, step)):
        rows = range(start, min(start + step, count))
        block = np.asarray(catalogue.vectors(rows), np.float32)
        if not np.isfinite(block).all():
            raise DataError(
                "the catalogue holds vectors with NaN or infinity", remedy="rebuild the catalogue"
            )
        codes, scales = rounded(block)
        content = scales.astype("<f4").tobytes() + codes.tobytes()
        vectors.append({**files.write("vectors", f"vectors-{number}.bin", content), "rows": len(rows)})
    parts = []
    for number, (start, stop) in enumerate(pairwise(_bounds(catalogue))):
        items = [
            {
                "id": catalogue.ids[row],
                "text": catalogue.text(row),
                "metadata": _shown(catalogue.metadata(row)),
            }
            for row in range(start, stop)
        ]
        parts.append({**files.write("items", f"items-{number}.json", as_json(items)), "rows": stop - start})
    ids = files.write("items", "ids.json", as_json(catalogue.ids))
    columns = []
    for number, facet in enumerate(catalogue.facets()):
        stored = files.write("columns", f"column-{number}.json", as_json(_column(catalogue, facet["name"])))
        columns.append({**facet, "file": stored})
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "items": count,
        "dimension": dimension,
        "model": {
            "name": model.name,
            "weights": model.weights,
            "query": model.query,
            "document": model.document,
        },
        "vectors": vectors,
        "parts": parts,
        "ids": ids,
        "columns": columns,
        "samples": sample_queries(catalogue),
    }
    files.write("manifest", "catalogue.json", as_json(manifest))
    return files.bytes


class _Files:
    """Writes files and counts their bytes by kind."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.bytes = dict.fromkeys(("vectors", "items", "columns", "manifest"), 0)

    def write(self, kind: str, name: str, content: bytes) -> dict[str, Any]:
        """Write one; gives how a manifest names it."""
        (self._folder / name).write_bytes(content)
        self.bytes[kind] += len(content)
        return {"file": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def as_json(value: Any) -> bytes:
    """JSON in UTF-8 without white space."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _bounds(catalogue: Catalogue) -> list[int]:
    """Where each part of the items begins, and the end of the last: about :data:`ITEM_PART_BYTES` each."""
    bounds, size = [0], 0
    for row in range(len(catalogue)):
        if row > bounds[-1] and (size > ITEM_PART_BYTES or row - bounds[-1] >= MOST_PART_ITEMS):
            bounds.append(row)
            size = 0
        size += len(catalogue.document(row))
    return [*bounds, len(catalogue)] if len(catalogue) else bounds


def _column(catalogue: Catalogue, name: str) -> dict[str, Any]:
    """The rows' values; of texts, the distinct ones and their numbers (``web/src/columns.ts``)."""
    coded = catalogue.column(name)
    present = coded.present.tolist()
    if coded.kind == "text":
        codes = [code if there else None for code, there in zip(coded.codes.tolist(), present, strict=True)]
        return {"values": list(coded.values), "codes": codes}
    values = coded.codes.astype(bool).tolist() if coded.kind == "boolean" else coded.codes.tolist()
    if coded.integers is not None:
        whole, integers = coded.integers.present.tolist(), coded.integers.codes.tolist()
        values = [
            integer if is_whole else value
            for value, integer, is_whole in zip(values, integers, whole, strict=True)
        ]
    return {"rows": [_exact(value) if there else None for value, there in zip(values, present, strict=True)]}


def _exact(value: Any) -> Any:
    return str(value) if isinstance(value, int) and abs(value) > MOST_EXACT else value


def _shown(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _exact(value) for name, value in metadata.items()}
