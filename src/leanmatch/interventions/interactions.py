"""Which word of one text depends on which word of the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.interventions.adapt import as_readers
from leanmatch.interventions.importance import replacements
from leanmatch.interventions.names import ANCHOR, POSITIVE
from leanmatch.interventions.readers import Content, check_intervention
from leanmatch.interventions.scoring import Edit, PairScorer, checked_texts
from leanmatch.types import JsonValue, Vectors


@dataclass(frozen=True)
class Interactions:
    """Interactions of one pair.

    Attributes:
        values: float64 ``(anchor units, positive units)``; above 0: the two support the match together.
        anchor_effects, positive_effects: effect of each unit alone, float64.
        anchor_offsets, positive_offsets: places in the texts, int64 ``(units, 2)``.
        score: ``s(x, z)``.
        anchor, positive: the texts.
        intervention: mask, delete or replace.
    """

    values: NDArray[np.float64]
    anchor_effects: NDArray[np.float64]
    positive_effects: NDArray[np.float64]
    anchor_offsets: NDArray[np.int64]
    positive_offsets: NDArray[np.int64]
    score: float
    anchor: str
    positive: str
    intervention: str

    def words(self) -> tuple[list[str], list[str]]:
        """The units of both texts."""
        return (
            [self.anchor[a:b] for a, b in self.anchor_offsets.tolist()],
            [self.positive[a:b] for a, b in self.positive_offsets.tolist()],
        )

    def to_json(self) -> JsonValue:
        """Both word lists, their effects, and the matrix by rows."""
        anchor, positive = self.words()
        return {
            "score": self.score,
            "intervention": self.intervention,
            "anchor": {"text": self.anchor, "units": anchor, "effects": self.anchor_effects.tolist()},
            "positive": {"text": self.positive, "units": positive, "effects": self.positive_effects.tolist()},
            "values": self.values.tolist(),
        }


def interactions(
    model: Any,
    anchors: Sequence[str],
    positives: Sequence[str],
    *,
    intervention: str = "delete",
    unit: str = "word",
    corpus: Sequence[str] | None = None,
    level: str = "auto",
    mask_text: str | None = None,
    seed: int = 0,
) -> list[Interactions]:
    r"""The interaction of every unit of the anchor with every unit of the positive.

    .. math:: I(t, u) = s(x, z) - s(do(x_t), z) - s(x, do(z_u)) + s(do(x_t), do(z_u))

    It is what of ``t``'s effect goes away when ``u`` is gone. It costs no more passes than importance does:
    both texts are edited alone, and the scores of edited with edited texts are one matrix product.

    Args:
        model, anchors, positives, intervention, unit, corpus, level, mask_text, seed: as
            :func:`leanmatch.interventions.importance` takes them; ``replace`` draws once a unit.

    Returns:
        one a pair.

    Raises:
        UsageError, DataError, ModelError: as :func:`leanmatch.interventions.importance`.
    """
    checked_texts(anchors, positives)
    readers = as_readers(model, level=level, mask_text=mask_text)
    check_intervention(readers.anchor, intervention)
    scorer = PairScorer(readers, anchors, positives, unit)
    pool = replacements(readers.anchor, scorer.readings, corpus, unit) if intervention == "replace" else []
    results = []
    for pair in range(len(anchors)):
        x, z = (int(number) for number in scorer.sides[:, pair])
        edits = []
        for number in dict.fromkeys((x, z)):
            draw = np.random.default_rng([seed, number])
            for unit_index in range(len(scorer.readings[number].units)):
                content: Content | None = pool[int(draw.integers(len(pool)))] if pool else None
                edits.append(Edit(number, {unit_index: content}))
        vectors = _in_order(scorer, edits, intervention)
        of = [[row for row, edit in enumerate(edits) if edit.text == number] for number in (x, z)]
        left, right = vectors[of[ANCHOR]].astype(np.float64), vectors[of[POSITIVE]].astype(np.float64)
        anchor, positive = (scorer.vectors[number].astype(np.float64) for number in (x, z))
        score = float(scorer.scores[pair])
        without_t, without_u = left @ positive, right @ anchor
        units = [scorer.readings[number].units for number in (x, z)]
        offsets = [np.array([(u.start, u.end) for u in some], np.int64).reshape(-1, 2) for some in units]
        results.append(
            Interactions(
                values=score - without_t[:, None] - without_u[None, :] + left @ right.T,
                anchor_effects=score - without_t,
                positive_effects=score - without_u,
                anchor_offsets=offsets[ANCHOR],
                positive_offsets=offsets[POSITIVE],
                score=score,
                anchor=anchors[pair],
                positive=positives[pair],
                intervention=intervention,
            )
        )
    return results


def _in_order(scorer: PairScorer, edits: list[Edit], kind: str) -> Vectors:
    """The vectors of the edits, in their order."""
    result = np.zeros((len(edits), scorer.vectors.shape[1]), np.float32)
    for chunk, vectors, rows in scorer.edited_vectors(edits, kind):
        result[chunk] = vectors[rows]
    return result
