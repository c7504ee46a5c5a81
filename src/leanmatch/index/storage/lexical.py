"""The files of a segment's terms: two arrays, mapped where they are read.

``-terms.npy`` is int64 ``(2, terms)``: the rising keys of the terms, and where the postings of each end.
``-postings.npy`` is int32 ``(2, postings)``: numbers of rows, and the bits of their float32 weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import FormatError
from leanmatch.index.storage.arrays import map_array
from leanmatch.index.storage.manifest import LexicalFiles, Manifest, store_file
from leanmatch.lexical.bm25 import Postings, build_postings
from leanmatch.lexical.terms import TERMS_VERSION


def check_terms(manifest: Manifest) -> None:
    """Refuse a catalogue whose terms were made by a rule that this version does not have.

    Raises:
        FormatError: it was.
    """
    if manifest.hybrid and manifest.lexical != TERMS_VERSION:
        raise FormatError(
            f"the catalogue's terms follow the rule {manifest.lexical!r:.40}, not {TERMS_VERSION!r}",
            remedy="make them anew: rebuild_catalogue with WriteOptions(hybrid=True)",
            command="make them anew: leanmatch index rebuild CATALOGUE --hybrid",
        )


def write_postings(folder: Path, name: str, texts: Sequence[str | None]) -> LexicalFiles:
    """Index the texts of a segment.

    Raises:
        MissingExtraError: bm25s is not installed.
    """
    postings = build_postings([text or "" for text in texts])
    return LexicalFiles(
        _store(folder, f"{name}-terms.npy", np.stack([postings.keys, postings.ends])),
        _store(folder, f"{name}-postings.npy", np.stack([postings.rows, postings.weights.view(np.int32)])),
    )


def _store(folder: Path, name: str, array: NDArray[Any]) -> Any:
    def write(path: Path) -> None:
        with path.open("wb") as stream:
            np.save(stream, array)

    return store_file(folder, name, write)


def read_postings(path: Path, terms: NDArray[Any], documents: int) -> Postings:
    """The postings of a file.

    Args:
        path: ``-postings.npy``.
        terms: what ``-terms.npy`` holds.
        documents: rows of the segment.

    Raises:
        OSError, ValueError: the two do not fit each other or the segment.
    """
    both = map_array(path)
    if terms.dtype != np.int64 or terms.ndim != 2 or len(terms) != 2:
        raise ValueError(f"terms of type {terms.dtype} and shape {terms.shape}")
    if both.dtype != np.int32 or both.ndim != 2 or len(both) != 2:
        raise ValueError(f"postings of type {both.dtype} and shape {both.shape}")
    (keys, ends), rows, weights = terms, both[0], both[1].view(np.float32)
    total = int(ends[-1]) if len(ends) else 0
    if total != len(rows) or (len(ends) and int(ends[0]) < 1) or (ends[1:] <= ends[:-1]).any():
        raise ValueError(f"terms that end at {total:,} of {len(rows):,} postings")
    if (keys[1:] <= keys[:-1]).any():
        raise ValueError("terms that are not in rising order")
    if len(rows):
        inside = np.ones(len(rows), np.bool_)
        inside[ends[:-1]] = False  # the first posting of a term may be any row
        if int(rows.min()) < 0 or int(rows.max()) >= documents or (np.diff(rows)[inside[1:]] < 1).any():
            raise ValueError("rows that do not exist, or not in rising order")
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise ValueError("weights that are not finite and above 0")
    return Postings(keys, ends, rows, weights, documents)
