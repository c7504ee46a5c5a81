"""Pairs with the importance of their words under both models, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.data import PairTable
from leanmatch.interventions import TokenImportance
from leanmatch.metrics.slices import OVERALL, Slice
from leanmatch.report.pairs import signed_change
from leanmatch.types import JsonValue

MOST_CHARACTERS = 1500
"""Of a text that are shown."""


@dataclass(frozen=True)
class ShownUnit:
    """A word: its place in the text (characters), and its effect."""

    start: int
    end: int
    effect: float


@dataclass(frozen=True)
class ShownText:
    """One side of a pair. ``text`` is cut where it is very long; ``length``: of the whole, in characters.

    ``units``: words under ``model`` and ``base``; ``read``: how many characters each of them read.
    """

    text: str
    length: int
    units: dict[str, tuple[ShownUnit, ...]]
    read: dict[str, int]

    def to_json(self) -> JsonValue:
        """Words with their text, so that a reader need not count characters."""
        return {
            "text": self.text,
            "length": self.length,
            "read": self.read,
            "units": {
                key: [
                    {
                        "text": self.text[shown.start : shown.end],
                        "start": shown.start,
                        "end": shown.end,
                        "effect": shown.effect,
                    }
                    for shown in units
                ]
                for key, units in self.units.items()
            },
        }


@dataclass(frozen=True)
class ShownPair:
    """A pair of the explorer.

    ``row``: in the evaluated rows, from 0. ``label``: 1 where it matches. ``score``, ``base_score``: under
    both models; ``gain``: change in the right direction. ``rank``, ``base_rank``: of the positive among the
    candidates, None for pairs that do not match. ``slices``: that it is in. ``why`` it is shown.
    """

    row: int
    label: int
    score: float
    base_score: float
    gain: float
    rank: int | None
    base_rank: int | None
    slices: tuple[str, ...]
    why: str
    anchor: ShownText
    positive: ShownText

    def to_json(self) -> JsonValue:
        """All fields."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return plain | {
            "slices": list(self.slices),
            "anchor": self.anchor.to_json(),
            "positive": self.positive.to_json(),
        }


def shown_pairs(
    table: PairTable,
    parts: Sequence[Slice],
    chosen: Mapping[int, str],
    scores: Sequence[NDArray[np.float64]],
    ranks: Sequence[NDArray[np.int64]],
    importances: Sequence[TokenImportance],
) -> tuple[ShownPair, ...]:
    """Put the explorer's pairs together, the worst regression first.

    Args:
        table: the evaluated rows.
        parts: the slices.
        chosen: rows, and why each is shown.
        scores, ranks: of all rows under the model and the base.
        found: importance of the chosen rows, in their order, under the model and the base.
    """
    gain = signed_change(table.labels, *scores)
    member = {part.name: set(part.rows.tolist()) for part in parts if part.kind != OVERALL}
    pairs = [
        ShownPair(
            row=row,
            label=int(table.labels[row]),
            score=float(scores[0][row]),
            base_score=float(scores[1][row]),
            gain=float(gain[row]),
            rank=int(ranks[0][row]) or None,
            base_rank=int(ranks[1][row]) or None,
            slices=tuple(name for name, rows in member.items() if row in rows),
            why=why,
            anchor=_shown_text(importances, position, 0),
            positive=_shown_text(importances, position, 1),
        )
        for position, (row, why) in enumerate(chosen.items())
    ]
    return tuple(sorted(pairs, key=lambda pair: (pair.gain, pair.row)))


def _shown_text(importances: Sequence[TokenImportance], pair: int, side: int) -> ShownText:
    text = importances[0].text(pair, side)
    units: dict[str, tuple[ShownUnit, ...]] = {}
    for key, importance in zip(("model", "base"), importances, strict=True):
        rows = importance.rows(pair, side)
        units[key] = tuple(
            ShownUnit(start, end, effect)
            for (start, end), effect in zip(
                importance.offsets[rows].tolist(), importance.effects[rows].tolist(), strict=True
            )
            if end <= MOST_CHARACTERS
        )
    read = {
        key: int(importance.read[side, pair])
        for key, importance in zip(("model", "base"), importances, strict=True)
    }
    return ShownText(text[:MOST_CHARACTERS], len(text), units, read)
