"""What :func:`leanmatch.interventions.importance` found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.interventions.names import ANCHOR, POSITIVE
from leanmatch.types import JsonValue


@dataclass(frozen=True)
class TokenImportance:
    """The effect of each token or word on the score of its pair; one row a unit, in the order of the texts.

    Attributes:
        effects: ``TI = s(x, z) - s(do(x_t), z)``, float64 ``(units,)``. Above 0: the unit supports the match.
        offsets: start and end of each unit in the user's text, int64 ``(units, 2)``.
        pair: number of the pair, int64 ``(units,)``, rising.
        side: 0 on the anchor's side, 1 on the positive's, int8 ``(units,)``.
        scores: ``s(x, z)``, float64 ``(pairs,)``.
        anchors, positives: the texts.
        counts: how many units each text has, int64 ``(2, pairs)``; more than there are rows where
            ``max_units`` took a sample.
        read: how many characters of each text the model read, int64 ``(2, pairs)``.
        intervention, unit, level, samples, seed: how it was found.
    """

    effects: NDArray[np.float64]
    offsets: NDArray[np.int64]
    pair: NDArray[np.int64]
    side: NDArray[np.int8]
    scores: NDArray[np.float64]
    anchors: tuple[str, ...]
    positives: tuple[str, ...]
    counts: NDArray[np.int64]
    read: NDArray[np.int64]
    intervention: str
    unit: str
    level: str
    samples: int
    seed: int

    def __len__(self) -> int:
        return len(self.effects)

    def text(self, pair: int, side: int) -> str:
        """One of the texts."""
        return (self.anchors, self.positives)[side][pair]

    def rows(self, pair: int, side: int | None = None) -> NDArray[np.int64]:
        """The rows of a pair, or of one side of it."""
        start, end = np.searchsorted(self.pair, [pair, pair + 1])
        rows = np.arange(start, end)
        return rows if side is None else rows[self.side[start:end] == side]

    def words(self) -> list[str]:
        """The text of each unit, as the user wrote it."""
        return [
            self.text(pair, side)[start:end]
            for pair, side, (start, end) in zip(
                self.pair.tolist(), self.side.tolist(), self.offsets.tolist(), strict=True
            )
        ]

    def complete(self) -> NDArray[np.bool_]:
        """Whether all units of a text were intervened on, shape ``(2, pairs)``."""
        counted = np.zeros_like(self.counts)
        np.add.at(counted, (self.side.astype(np.int64), self.pair), 1)
        return np.asarray(counted == self.counts)

    def to_json(self) -> JsonValue:
        """Pairs with their scores and units; offsets count characters (code points)."""
        words, pairs = self.words(), []
        for pair, score in enumerate(self.scores.tolist()):
            sides = {}
            for name, side in (("anchor", ANCHOR), ("positive", POSITIVE)):
                sides[name] = {
                    "text": self.text(pair, side),
                    "read": int(self.read[side, pair]),
                    "units": [
                        {
                            "text": words[row],
                            "start": int(self.offsets[row, 0]),
                            "end": int(self.offsets[row, 1]),
                            "effect": float(self.effects[row]),
                        }
                        for row in self.rows(pair, side)
                    ],
                }
            pairs.append({"score": score, **sides})
        settings = {
            name: getattr(self, name) for name in ("intervention", "unit", "level", "samples", "seed")
        }
        return {**settings, "pairs": pairs}
