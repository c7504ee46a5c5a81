"""Scores and ranks of pairs under two models, and which pairs are worth looking at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.data import PairTable
from leanmatch.metrics.encoding import SideVectors, encode_checked, encode_sides
from leanmatch.metrics.ranking.candidates import decide_symmetric, identify
from leanmatch.models import RoleEncoder
from leanmatch.types import EncodeFunction, Vectors

TIE = 1e-6
"""Scores that differ by less are a tie, which counts for the pair."""


class Remembering:
    """An encoder that encodes each text once in its life and role."""

    def __init__(self, encode: Any, *, name: str) -> None:
        encoder = RoleEncoder(encode)
        self.roles_differ = encoder.roles_differ
        self.encode_query = self.encode_document = _Remembered(encoder.encode_query, name)
        if encoder.roles_differ:
            self.encode_document = _Remembered(encoder.encode_document, name)


class _Remembered:
    """An encode function that encodes each text once in its life."""

    def __init__(self, encode: EncodeFunction, name: str) -> None:
        self._encode, self._name = encode, name
        self._rows: dict[str, int] = {}
        self._vectors: Vectors | None = None

    def __call__(self, texts: Sequence[str]) -> Vectors:
        new = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if new or self._vectors is None:
            vectors = encode_checked(self._encode, new, name=self._name)
            self._vectors = vectors if self._vectors is None else np.concatenate([self._vectors, vectors])
            for text in new:
                self._rows[text] = len(self._rows)
        return self._vectors[[self._rows[text] for text in texts]]


def scores_of(encode: Any, table: PairTable) -> NDArray[np.float64]:
    """Score of each row, float64 ``(rows,)``."""
    encoder, rows = RoleEncoder(encode), np.arange(len(table))
    sides = SideVectors(encoder.encode_query(table.anchors), encoder.encode_document(table.positives))
    return sides.pair_scores(rows, rows)


def ranks_of(encode: Any, table: PairTable, symmetric: bool) -> NDArray[np.int64]:
    """Rank of each matching row's positive among the candidates, from 1; 0 for rows that do not match.

    Candidates are the corpus, or all texts (symmetric), or all positives. Other positives of the same anchor,
    and for symmetric pairs the anchor itself, do not count.
    """
    identified = identify(table, symmetric=symmetric)
    queries, documents = encode_sides(encode, identified.texts, *identified.roles(symmetric=symmetric))
    if identified.corpus is not None:
        candidates = np.unique(identified.text_of[identified.corpus])
    elif symmetric:
        candidates = np.unique(np.concatenate([identified.anchor_texts, identified.positive_texts]))
    else:
        candidates = np.unique(identified.positive_texts)
    position = np.full(len(identified.texts), -1, np.int64)
    position[candidates] = np.arange(len(candidates))
    matching = np.flatnonzero(table.labels == 1)
    aside: dict[int, set[int]] = {}
    for row in matching.tolist():
        aside.setdefault(int(identified.anchor_texts[row]), set()).add(int(identified.positive_texts[row]))
    ranks = np.zeros(len(table), np.int64)
    pool = documents[candidates].T
    for start in range(0, len(matching), 256):
        rows = matching[start : start + 256]
        scores = queries[identified.anchor_texts[rows]] @ pool
        own = np.einsum(
            "ij,ij->i", queries[identified.anchor_texts[rows]], documents[identified.positive_texts[rows]]
        )
        better = scores > own[:, None] + TIE
        for line, row in enumerate(rows.tolist()):
            anchor = int(identified.anchor_texts[row])
            left_out = [*aside[anchor], *([anchor] if symmetric else [])]
            better[line, [position[text] for text in left_out if position[text] >= 0]] = False
        ranks[rows] = 1 + better.sum(axis=1)
    return ranks


def is_symmetric(table: PairTable, wanted: bool | str) -> bool:
    """Whether both sides of the pairs are of one kind."""
    return decide_symmetric(table, wanted).symmetric  # type: ignore[arg-type]


def worth_looking_at(
    labels: NDArray[np.int8],
    scores: NDArray[np.float64],
    base: NDArray[np.float64],
    ranks: NDArray[np.int64],
    base_ranks: NDArray[np.int64],
    *,
    most: int,
    usual: NDArray[np.int64],
) -> dict[int, str]:
    """Rows for the explorer, and why: the worst by score, the worst by rank, the best, and some of the usual.

    Args:
        labels, scores, base, ranks, base_ranks: of all rows.
        most: rows in all.
        usual: rows to fill up with.
    """
    gain = signed_change(labels, scores, base)
    with np.errstate(divide="ignore"):
        lost = np.where(ranks > 0, 1 / np.maximum(base_ranks, 1) - 1 / np.maximum(ranks, 1), 0.0)
    groups: list[tuple[str, float, Callable[[], NDArray[np.int64]]]] = [
        ("lost score", 0.4, lambda: np.argsort(gain, kind="stable")[: np.count_nonzero(gain < 0)]),
        ("lost rank", 0.6, lambda: np.argsort(-lost, kind="stable")[: np.count_nonzero(lost > 0)]),
        ("gained", 0.8, lambda: np.argsort(-gain, kind="stable")[: np.count_nonzero(gain > 0)]),
        ("sample", 1.0, lambda: usual),
    ]
    chosen: dict[int, str] = {}
    for why, share, rows in groups:
        for row in rows().tolist():
            if len(chosen) >= max(1, round(share * most)):
                break
            chosen.setdefault(row, why)
    return chosen


def signed_change(
    labels: NDArray[np.int8], scores: NDArray[np.float64], base: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Change of the score in the right direction: up for a match, down for a pair that does not match."""
    return np.asarray((2.0 * labels - 1.0) * (scores - base))
