"""Vectors that a diagnosis has made, kept until it is done: in memory, and in a folder that a kill leaves."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from leanmatch.files import atomic_file, write_json
from leanmatch.interventions.readers import Content, Ids, Reader, Reading, SidedReaders
from leanmatch.models import DOCUMENT, QUERY, ByRole, RoleEncoder
from leanmatch.types import EncodeFunction, Vectors

BLOCK = 1024
"""Texts in one file."""


class KeptVectors:
    """A folder of vectors by what was encoded and by which model; without a folder nothing outlives a kill.

    A file's name is a hash of the model's identity and of the texts or token ids, so that another command in
    the same folder takes only what is its own.

    Args:
        folder: made when the first vectors come; None keeps none.
        models: identities, such as fingerprints, of the matcher and its base.
    """

    def __init__(self, folder: Path | None = None, models: tuple[str, str] = ("model", "base")) -> None:
        self.folder, self.models = folder, models

    def by_role(self, model: int, encode: Any, *, progress: str | None) -> ByRole:
        """An encoder in blocks of texts of like length, each of which is kept; ``progress`` names a bar."""
        encoder = RoleEncoder(encode)
        query = self._blocks(model, QUERY, encoder.encode_query, progress)
        if not encoder.roles_differ:
            return _KeptEncoder(query, query)
        return _KeptEncoder(query, self._blocks(model, DOCUMENT, encoder.encode_document, progress))

    def _blocks(self, model: int, role: str, encode: EncodeFunction, progress: str | None) -> EncodeFunction:

        def blocks(texts: Sequence[str]) -> Vectors:
            order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
            parts: list[Vectors] = []
            with tqdm(total=len(texts), desc=progress, unit=" texts", disable=progress is None) as bar:
                for start in range(0, len(texts), BLOCK):
                    block = [texts[row] for row in order[start : start + BLOCK]]
                    parts.append(self._vectors(model, role, block, partial(encode, block)))
                    bar.update(len(block))
            if not parts:
                return encode([])
            vectors = np.concatenate(parts)
            result = np.empty_like(vectors)
            result[order] = vectors
            return result

        return blocks

    def readers(self, model: int, readers: SidedReaders) -> SidedReaders:
        """The readers, encoding no source twice."""
        query = _KeptReader(readers.anchor, partial(self._vectors, model, QUERY))
        if readers.positive is readers.anchor:
            return SidedReaders(query, query)
        return SidedReaders(query, _KeptReader(readers.positive, partial(self._vectors, model, DOCUMENT)))

    def number(self, name: str, facts: Mapping[str, object], make: Callable[[], int]) -> int:
        """A number that depends on time, and so must be kept: that of an unfinished run with equal facts."""
        record = {"models": list(self.models), **facts}
        file = None if self.folder is None else self.folder / f"{name}.json"
        if file is not None and file.is_file():
            try:
                kept = json.loads(file.read_text(encoding="utf-8"))
                if kept["facts"] == json.loads(json.dumps(record)):
                    return int(kept[name])
            except (ValueError, KeyError, TypeError):
                pass  # damaged or of another kind: measured anew
        value = make()
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, {"facts": record, name: value})
        return value

    def remove(self) -> None:
        """The diagnosis is done and written."""
        if self.folder is not None and self.folder.is_dir():
            shutil.rmtree(self.folder)

    def _vectors(
        self, model: int, role: str, sources: Sequence[bytes | str], make: Callable[[], Vectors]
    ) -> Vectors:
        if self.folder is None:
            return make()
        rows = len(sources)
        file = self.folder / f"{_digest([self.models[model], role, *sources])}.npy"
        try:
            kept = np.load(file, allow_pickle=False)
            if kept.ndim == 2 and len(kept) == rows and kept.dtype == np.float32:
                return np.asarray(kept)
        except (OSError, ValueError, EOFError):
            pass  # not there yet, or damaged: made anew
        vectors = np.asarray(make(), np.float32)
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(file) as temporary, temporary.open("wb") as target:
            np.save(target, vectors, allow_pickle=False)
        return vectors


def _digest(parts: Sequence[bytes | str]) -> str:
    """A name for a list of texts or token ids."""
    hashed = hashlib.sha256()
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        hashed.update(len(content).to_bytes(8, "little") + content)
    return hashed.hexdigest()[:32]


class _KeptEncoder:
    """Two functions from texts to vectors, one for each role."""

    def __init__(self, query: EncodeFunction, document: EncodeFunction) -> None:
        self._query, self._document = query, document

    @property
    def roles_differ(self) -> bool:
        """See :class:`ByRole`."""
        return self._query is not self._document

    def encode_query(self, texts: Sequence[str]) -> Vectors:
        """See :class:`ByRole`."""
        return self._query(texts)

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """See :class:`ByRole`."""
        return self._document(texts)


class _KeptReader(Reader):
    """A reader that remembers the vector of each source."""

    def __init__(
        self, reader: Reader, vectors: Callable[[Sequence[bytes | str], Callable[[], Vectors]], Vectors]
    ) -> None:
        self._reader, self._made = reader, vectors
        self.level = reader.level  # type: ignore[misc]
        self._rows: dict[bytes | str, int] = {}
        self._vectors: list[Vectors] = []

    @property
    def can_mask(self) -> bool:
        """See :class:`Reader`."""
        return self._reader.can_mask

    def read(self, texts: Sequence[str], unit: str) -> list[Reading]:
        """See :class:`Reader`."""
        return self._reader.read(texts, unit)

    def contents(self, reading: Reading) -> list[Content]:
        """See :class:`Reader`."""
        return self._reader.contents(reading)

    def edit(self, reading: Reading, units: Mapping[int, Content | None], kind: str) -> Ids | str:
        """See :class:`Reader`."""
        return self._reader.edit(reading, units, kind)

    def encode(self, sources: Sequence[Ids | str]) -> Vectors:
        """See :class:`Reader`."""
        keys = [source if isinstance(source, str) else source.tobytes() for source in sources]
        new = {key: source for key, source in zip(keys, sources, strict=True) if key not in self._rows}
        if new:
            vectors = self._made(list(new), lambda: self._reader.encode(list(new.values())))
            for key, vector in zip(new, vectors, strict=True):
                self._rows[key] = len(self._vectors)
                self._vectors.append(vector)
        if not keys:
            return self._reader.encode([])
        return np.stack([self._vectors[self._rows[key]] for key in keys])
