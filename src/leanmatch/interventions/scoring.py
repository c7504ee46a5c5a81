"""Scores of edited texts, with all work that can be shared being shared.

Each distinct text is read and encoded once, however many pairs it is in. Edited texts are made as they are
needed, in the order of length so that passes hold no padding, and equal ones are encoded once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from leanmatch.errors import DataError, UsageError
from leanmatch.interventions.readers import Content, Ids, SidedReaders
from leanmatch.types import Vectors

CHUNK_EDITS, CHUNK_TOKENS = 2048, 1_000_000
"""Edited texts that are held at once, and about how many tokens (or characters) they have together."""


class Edit(NamedTuple):
    """An intervention: number of the text, and its units, with what replaces them where something does."""

    text: int
    units: Mapping[int, Content | None]


class PairScorer:
    """Scores of pairs, ``s(x, z)``, the cosine of the two vectors, before and after interventions.

    Attributes:
        readings: one for each distinct text; a text on both sides has two where the readers differ.
        sides: number of the text on each side of each pair, int64 ``(2, pairs)``.
        vectors: of the distinct texts, unit length or zero.
        scores: float64 ``(pairs,)``.
    """

    def __init__(
        self, readers: SidedReaders, anchors: Sequence[str], positives: Sequence[str], unit: str
    ) -> None:
        distinct_readers = list(dict.fromkeys(map(id, readers)))
        which = [distinct_readers.index(id(reader)) for reader in readers]  # 0, 0 where both are one
        numbers: dict[tuple[int, str], int] = {}
        self.sides = np.array(
            [
                [numbers.setdefault((reader, text), len(numbers)) for text in side]
                for reader, side in zip(which, (anchors, positives), strict=True)
            ],
            np.int64,
        ).reshape(2, len(anchors))
        self._readers = list(readers) if len(distinct_readers) > 1 else [readers.anchor]
        self._reader_of = [reader for reader, _ in numbers]
        read = [
            iter(reader.read([text for own, text in numbers if own == number], unit))
            for number, reader in enumerate(self._readers)
        ]
        self.readings = [next(read[number]) for number in self._reader_of]
        self.vectors = self._encode([reading.source for reading in self.readings], self._reader_of)
        self.scores = cosines(self.vectors, self.sides[0], self.vectors, self.sides[1])

    def edited_scores(
        self,
        edits: Sequence[Edit],
        which: NDArray[np.int64],
        partners: NDArray[np.int64],
        kind: str,
        *,
        progress: str | None = None,
    ) -> NDArray[np.float64]:
        """Score edited texts against texts that are not edited.

        Args:
            edits: the interventions.
            which: number of the edit, one for each wanted score.
            partners: number of the text that it is scored against, same shape.
            kind: mask, delete or replace.
            progress: what a bar on stderr is called; no bar where left out.

        Returns:
            float64, same shape.
        """
        result = np.empty(len(which), np.float64)
        by_edit = np.argsort(which, kind="stable")
        bounds = np.searchsorted(which[by_edit], np.arange(len(edits) + 1))
        with tqdm(total=len(edits), desc=progress, unit=" passes", disable=progress is None) as bar:
            for chunk, vectors, rows in self.edited_vectors(edits, kind):
                wanted = [by_edit[bounds[edit] : bounds[edit + 1]] for edit in chunk]
                uses = np.concatenate([*wanted, np.empty(0, np.int64)]).astype(np.int64)
                row = np.repeat(rows, [len(some) for some in wanted])
                result[uses] = cosines(vectors, row, self.vectors, partners[uses])
                bar.update(len(chunk))
        return result

    def edited_vectors(
        self, edits: Sequence[Edit], kind: str
    ) -> Iterator[tuple[NDArray[np.int64], Vectors, NDArray[np.int64]]]:
        """Encode edited texts chunk by chunk: numbers of the edits, vectors, and the vector of each edit."""
        sizes = np.array([len(self.readings[edit.text].source) for edit in edits], np.int64)
        if kind == "delete":
            sizes -= np.array([self._removed(edit) for edit in edits], np.int64)
        order = np.argsort(sizes, kind="stable")
        for chunk in _chunks(order, sizes):
            distinct: dict[tuple[int, bytes | str], int] = {}
            sources: list[Ids | str] = []
            rows = np.empty(len(chunk), np.int64)
            for index, number in enumerate(chunk.tolist()):
                edit = edits[number]
                reader = self._reader_of[edit.text]
                source = self._readers[reader].edit(self.readings[edit.text], edit.units, kind)
                key = reader, source if isinstance(source, str) else source.tobytes()
                rows[index] = distinct.setdefault(key, len(distinct))
                if rows[index] == len(sources):
                    sources.append(source)
            yield chunk, self._encode(sources, [reader for reader, _ in distinct]), rows

    def _removed(self, edit: Edit) -> int:
        reading = self.readings[edit.text]
        if isinstance(reading.source, str):
            return sum(reading.units[unit].end - reading.units[unit].start for unit in edit.units)
        return sum(len(reading.units[unit].pieces) for unit in edit.units)

    def _encode(self, sources: Sequence[Ids | str], readers: Sequence[int]) -> Vectors:
        """Vectors of sources, each by its own reader."""
        if len(self._readers) == 1:
            return self._readers[0].encode(sources)
        parts: list[tuple[list[int], Vectors]] = []
        for number, reader in enumerate(self._readers):
            rows = [row for row, own in enumerate(readers) if own == number]
            if rows:
                parts.append((rows, reader.encode([sources[row] for row in rows])))
        vectors = np.zeros((len(sources), parts[0][1].shape[1] if parts else 0), np.float32)
        for rows, part in parts:
            vectors[rows] = part
        return vectors


def cosines(
    left: Vectors, rows: NDArray[np.int64], right: Vectors, others: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Inner products of vectors of unit length, added up in float64, in blocks."""
    step = 8192
    parts = [
        np.einsum(
            "ij,ij->i",
            left[rows[i : i + step]],
            right[others[i : i + step]],
            dtype=np.float64,
            casting="safe",
        )
        for i in range(0, len(rows), step)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def checked_texts(anchors: Sequence[str], positives: Sequence[str]) -> None:
    """Refuse what is not two lists of texts of one length.

    Raises:
        UsageError: a string in place of a list, or lists of different lengths.
        DataError: an entry that is no text.
    """
    for name, side in (("anchors", anchors), ("positives", positives)):
        if isinstance(side, str):
            raise UsageError(f"{name} is one string, {side!r:.60}", remedy="give a list of texts")
    if len(anchors) != len(positives):
        raise UsageError(
            f"there are {len(anchors):,} anchors and {len(positives):,} positives", remedy="give one of each"
        )
    for name, side in (("anchor", anchors), ("positive", positives)):
        for row, text in enumerate(side):
            if not isinstance(text, str):
                raise DataError(
                    f"a text is a {type(text).__name__}",
                    line=row + 1,
                    column=name,
                    value=text,
                    remedy="give str",
                )


def _chunks(order: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    start = 0
    total = 0
    for end in range(len(order)):
        total += int(sizes[order[end]])
        if end + 1 - start >= CHUNK_EDITS or total >= CHUNK_TOKENS:
            yield order[start : end + 1]
            start, total = end + 1, 0
    if start < len(order):
        yield order[start:]
