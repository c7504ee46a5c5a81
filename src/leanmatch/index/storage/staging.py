"""Encoding many texts so that a kill loses at most one chunk.

Vectors are kept in ``.building/MODEL/`` inside the catalogue, one synced file a chunk, under the hash of
the text that they belong to: a run that comes later takes what is there, whatever its items are, and
encodes the rest.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import ModelError
from leanmatch.files import atomic_file
from leanmatch.index.storage.arrays import read_arrays
from leanmatch.index.storage.checking import are_unit
from leanmatch.index.storage.manifest import STAGING, ModelIdentity
from leanmatch.index.storage.table import KEY_BYTES
from leanmatch.types import EncodeFunction, Vectors

CHUNK_TEXTS = 1_024
"""How many texts a kill may lose."""

Lookup = Callable[[bytes], "Vectors | None"]
Progress = Callable[[int, int], None]
"""Called with the number of texts that are done and the number of all, after each chunk."""


def text_key(text: str) -> bytes:
    """The first 16 bytes of the SHA-256 of a text: what its vector is kept under."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:KEY_BYTES]


def checked_vectors(vectors: Vectors, rows: int, dimension: int) -> Vectors:
    """Vectors as float32, finite, of unit length and of the shape that is needed.

    Raises:
        ModelError: they are not.
    """
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.shape != (rows, dimension):
        raise ModelError(
            f"the encoder gave vectors of shape {vectors.shape} for {rows} texts",
            remedy=f"({rows}, {dimension}) is needed",
        )
    if not are_unit(vectors).all():
        if not np.isfinite(vectors).all():
            raise ModelError("the encoder gave NaN or infinite numbers", remedy="use another model")
        raise ModelError(
            "the encoder gave vectors that are not of length 1",
            remedy="normalize them: the score of an item is the cosine",
        )
    return vectors


class Staging:
    """The chunks of one model under one catalogue folder."""

    def __init__(self, folder: Path, model: ModelIdentity) -> None:
        self._root = folder / STAGING
        prompt = text_key(model.document_prompt).hex()[:16] if model.document_prompt else ""
        parts = (model.fingerprint[:32], model.weights, str(model.dimension), prompt)
        self._folder = self._root / "-".join(filter(None, parts))
        self._dimension = model.dimension
        self._known: dict[bytes, Vectors] = {}
        self._chunks = 0
        for path in sorted(self._folder.glob("chunk-*.npz")):
            self._chunks = max(self._chunks, int(path.stem.partition("-")[2]) + 1)
            self._take(path)

    def __len__(self) -> int:
        return len(self._known)

    def encode(
        self,
        texts: Sequence[str],
        keys: Sequence[bytes],
        encoder: EncodeFunction,
        known: Lookup,
        *,
        keep: bool = True,
        progress: Progress | None = None,
    ) -> tuple[Vectors, int]:
        """Vectors for texts, and how many of them had to be encoded.

        Args:
            texts: the texts.
            keys: :func:`text_key` of each.
            encoder: texts to vectors.
            known: the vector of a key where one is known elsewhere, else None.
            keep: write chunks; without it nothing is kept (a handful of texts is not worth a file).
            progress: called after each chunk.

        Raises:
            ModelError: the encoder gives another shape than it said, or numbers that are not finite.
        """
        out = np.empty((len(texts), self._dimension), dtype=np.float32)
        missing: dict[bytes, list[int]] = {}
        for row, key in enumerate(keys):
            vector = self._known.get(key)
            vector = known(key) if vector is None else vector
            if vector is None:
                missing.setdefault(key, []).append(row)
            else:
                out[row] = vector
        wanted = list(missing)
        for start in range(0, len(wanted), CHUNK_TEXTS):
            part = wanted[start : start + CHUNK_TEXTS]
            vectors = checked_vectors(
                encoder([texts[missing[key][0]] for key in part]), len(part), self._dimension
            )
            for key, vector in zip(part, vectors, strict=True):
                out[missing[key]] = vector
            if keep:
                self._write(part, vectors)
            if progress is not None:
                progress(start + len(part), len(wanted))
        return out, len(wanted)

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove the chunks of all models under a catalogue's folder."""
        shutil.rmtree(folder / STAGING, ignore_errors=True)

    def _write(self, keys: list[bytes], vectors: Vectors) -> None:
        path = self._folder / f"chunk-{self._chunks:08d}.npz"
        with atomic_file(path) as temporary, temporary.open("wb") as stream:
            np.savez(
                stream, keys=np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES), vectors=vectors
            )
        self._chunks += 1

    def _take(self, path: Path) -> None:
        """Read a chunk; one that is damaged is encoded again."""
        try:
            stored = read_arrays(path, ("keys", "vectors"))
            keys: NDArray[np.uint8] = stored["keys"]
            vectors: Vectors = stored["vectors"]
        except (OSError, ValueError):
            path.unlink(missing_ok=True)
            return
        sound = keys.shape == (len(vectors), KEY_BYTES) and vectors.shape[1:] == (self._dimension,)
        if sound and keys.dtype == np.uint8 and vectors.dtype == np.float32 and are_unit(vectors).all():
            self._known.update(zip((key.tobytes() for key in keys), vectors, strict=True))
