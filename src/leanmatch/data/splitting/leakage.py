"""What training data shares with the data that it is judged on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.near_duplicates import THRESHOLD
from leanmatch.types import JsonValue

Leakage: TypeAlias = Literal["remove", "report", "ignore"]
"""What to do about leakage."""
KINDS = {
    "same_pair": "same two texts, in either order",
    "same_text": "shares a text",
    "near_text": f"shares a near-duplicate text (Jaccard similarity of trigrams at least {THRESHOLD})",
}
"""Kinds of leakage, the strongest first; a row counts under the strongest."""
EXAMPLES = 5


@dataclass(frozen=True)
class LeakageReport:
    """Rows whose texts also stand in data that they are judged on.

    Attributes:
        action: remove, report or ignore (then nothing was looked for).
        counts: rows by relation (``"train in test"``, ``"valid in test"``, ``"train in valid"``) and by kind.
        examples: a few ``[row, other row]`` of the table by relation and kind, counted from 0.
        removed: rows taken out of each part.
    """

    action: Leakage
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: dict[str, dict[str, list[list[int]]]] = field(default_factory=dict)
    removed: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All rows that leak, over all relations."""
        return sum(sum(kinds.values()) for kinds in self.counts.values())

    def to_json(self) -> JsonValue:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class TextRows:
    """The rows of a table by the numbers of their normalized texts.

    Attributes:
        anchors: shape ``(rows,)``.
        positives: shape ``(rows,)``.
        near: pairs of numbers whose texts are near-duplicates, shape ``(pairs, 2)``.
        texts: how many numbers there are.
        shared_positives: positives are items of a catalogue, which all parts may share.
    """

    anchors: NDArray[np.int64]
    positives: NDArray[np.int64]
    near: NDArray[np.int64]
    texts: int
    shared_positives: bool

    def pair_keys(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """One number for each unordered pair of texts."""
        a, b = self.anchors[rows], self.positives[rows]
        return np.minimum(a, b) * self.texts + np.maximum(a, b)

    def used(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The text numbers that count as leakage, one array a column."""
        return [self.anchors[rows]] if self.shared_positives else [self.anchors[rows], self.positives[rows]]


def leaking_rows(
    data: TextRows, rows: NDArray[np.int64], judged: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], dict[str, int], dict[str, list[list[int]]]]:
    """Which of ``rows`` leak into the rows ``judged``.

    Returns:
        a mask over ``rows``, the rows by kind, and examples by kind.
    """
    example = np.full(len(rows), -1, np.int64)
    kinds = np.full(len(rows), -1, np.int8)

    keys, first = np.unique(data.pair_keys(judged), return_index=True)
    _match(data.pair_keys(rows), keys, judged[first], 0, kinds, example)
    owner = np.full(data.texts, -1, np.int64)  # a judged row that has the text
    for column in data.used(judged):
        owner[column] = judged
    for column in data.used(rows):
        _mark(owner[column], 1, kinds, example)
    near_owner = np.full(data.texts, -1, np.int64)
    for left, right in (data.near.T, data.near.T[::-1]):
        held = owner[left] >= 0
        near_owner[right[held]] = owner[left[held]]
    for column in data.used(rows):
        _mark(near_owner[column], 2, kinds, example)

    counts = {kind: int((kinds == i).sum()) for i, kind in enumerate(KINDS)}
    examples = {
        kind: [[int(rows[k]), int(example[k])] for k in np.flatnonzero(kinds == i)[:EXAMPLES]]
        for i, kind in enumerate(KINDS)
    }
    return kinds >= 0, counts, {kind: pairs for kind, pairs in examples.items() if pairs}


def _match(
    keys: NDArray[np.int64],
    among: NDArray[np.int64],
    owners: NDArray[np.int64],
    kind: int,
    kinds: NDArray[np.int8],
    example: NDArray[np.int64],
) -> None:
    if not len(among):
        return
    positions = np.searchsorted(among, keys).clip(0, len(among) - 1)
    _mark(np.where(among[positions] == keys, owners[positions], -1), kind, kinds, example)


def _mark(owners: NDArray[np.int64], kind: int, kinds: NDArray[np.int8], example: NDArray[np.int64]) -> None:
    new = (owners >= 0) & (kinds < 0)
    kinds[new], example[new] = kind, owners[new]
