"""A file of item vectors, so that a catalogue is encoded once for a model and not at every call."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leanmatch.errors import FormatError, UsageError
from leanmatch.files import atomic_file
from leanmatch.types import Vectors

SUFFIX = ".npz"
_FORMAT = "leanmatch-vectors-1"
_OTHER_ITEMS = "it belongs to other items"
_KEYS = ("format", "model", "items", "vectors")


@dataclass(frozen=True)
class VectorFile:
    """What :func:`read_vectors` found: the vectors, or the reason why the file does not serve."""

    vectors: Vectors | None
    reason: str


def write_vectors(path: str | Path, vectors: Vectors, *, model: str, items: str) -> None:
    """Write vectors with the fingerprints of the model and the items that they belong to, atomically."""
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream, format=_FORMAT, model=model, items=items, vectors=np.asarray(vectors, dtype=np.float32)
        )


def read_vectors(path: str | Path, *, model: str, items: str, rows: int) -> VectorFile:
    """Read vectors if they belong to this model and these items.

    Args:
        path: the file; it need not be there.
        model: :func:`leanmatch.formats.model_fingerprint`.
        items: ``ItemTable.fingerprint()``.
        rows: number of items.

    Returns:
        the vectors, or None with a reason: the file is not there, is damaged, or belongs to others.

    Raises:
        UsageError: the name does not end in ``.npz``, so that another file might be overwritten later.
        FormatError: a sound ``.npz`` file of something else; it is not ours to replace.
    """
    file = Path(path)
    if file.suffix != SUFFIX:
        raise UsageError(f"the file of vectors is named {str(path)!r}", remedy=f"end its name in {SUFFIX}")
    if not file.exists():
        return VectorFile(None, "it is not there yet")
    try:
        with np.load(file, allow_pickle=False) as stored:
            if set(stored.files) != set(_KEYS):
                raise FormatError(
                    f"{file} holds {', '.join(stored.files)}: it is not a file of item vectors",
                    remedy="name another file",
                )
            found = {key: str(stored[key]) for key in _KEYS[:3]}
            for key, wanted in (("format", _FORMAT), ("model", model), ("items", items)):
                if found[key] != wanted:
                    return VectorFile(
                        None, f"it belongs to another {key}" if key != "items" else _OTHER_ITEMS
                    )
            vectors = stored["vectors"]
    except (ValueError, EOFError, OSError, RuntimeError, AttributeError, zipfile.BadZipFile) as error:
        return VectorFile(None, f"it is damaged ({type(error).__name__}: {error})"[:200])
    if (
        vectors.dtype != np.float32
        or vectors.ndim != 2
        or len(vectors) != rows
        or not np.isfinite(vectors).all()
    ):
        return VectorFile(None, f"it is damaged (vectors of type {vectors.dtype}, shape {vectors.shape})")
    return VectorFile(vectors, "")
