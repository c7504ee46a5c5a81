"""Does an importance name what the score hangs on? Take the named units away, or keep nothing else, and see.

Source of the measures: DeYoung et al., ERASER: A Benchmark to Evaluate Rationalized NLP Models (ACL 2020,
arXiv 1911.03429), which averages over shares of the units; here the score is a cosine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError
from leanmatch.interventions.adapt import as_readers
from leanmatch.interventions.readers import check_intervention
from leanmatch.interventions.results import TokenImportance
from leanmatch.interventions.scoring import Edit, PairScorer
from leanmatch.types import JsonValue

SHARES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Faithfulness:
    """Mean over texts; a text is one side of a pair, edited alone.

    Attributes:
        shares: of the units that are taken away or kept; at least one unit is.
        removed: ``s - s(x without its most important units)`` at each share, float64 ``(shares,)``: the
            deletion curve. A faithful importance makes the score fall fast.
        kept: ``s - s(x with these units only)``, float64 ``(shares,)``. A faithful one leaves little missing.
        removed_at_random, kept_at_random: the same for units in random order.
        texts: how many.
    """

    shares: NDArray[np.float64]
    removed: NDArray[np.float64]
    kept: NDArray[np.float64]
    removed_at_random: NDArray[np.float64]
    kept_at_random: NDArray[np.float64]
    texts: int

    @property
    def comprehensiveness(self) -> float:
        """Mean of ``removed`` over the shares; higher is better."""
        return float(self.removed.mean())

    @property
    def sufficiency(self) -> float:
        """Mean of ``kept`` over the shares; lower is better."""
        return float(self.kept.mean())

    def to_json(self) -> JsonValue:
        """Curves and their means, for the importance and for random order."""
        return {
            "texts": self.texts,
            "comprehensiveness": self.comprehensiveness,
            "comprehensiveness_at_random": float(self.removed_at_random.mean()),
            "sufficiency": self.sufficiency,
            "sufficiency_at_random": float(self.kept_at_random.mean()),
            "shares": self.shares.tolist(),
            "removed": self.removed.tolist(),
            "kept": self.kept.tolist(),
            "removed_at_random": self.removed_at_random.tolist(),
            "kept_at_random": self.kept_at_random.tolist(),
        }


def faithfulness(
    model: Any,
    importance: TokenImportance,
    *,
    shares: Sequence[float] = SHARES,
    intervention: str = "delete",
    mask_text: str | None = None,
    seed: int = 0,
    show_progress: bool = False,
) -> Faithfulness:
    """Judge an importance by cumulative removal.

    Args:
        model: the model that ``found`` is about.
        found: an importance of all units of its texts (no ``max_units``). Any other attribution can be
            judged by putting its numbers in ``effects`` with :func:`dataclasses.replace`.
        shares: of the units to take away or keep, each above 0 and at most 1.
        intervention: ``delete`` or ``mask``: how units are taken away.
        mask_text: the mask token of a function of texts.
        seed: of the random order.
        show_progress: a bar on stderr.

    Raises:
        UsageError: an importance of sampled units, a share out of range, ``replace``, or no text with units.
    """
    _check(importance, shares, intervention)
    level = "auto" if importance.level == "tokens" else importance.level
    readers = as_readers(model, level=level, mask_text=mask_text)
    check_intervention(readers.anchor, intervention)
    scorer = PairScorer(readers, importance.anchors, importance.positives, importance.unit)
    draw = np.random.default_rng(seed)
    edits: list[Edit] = []
    partners: list[int] = []
    before: list[float] = []
    for pair in range(len(importance.scores)):
        for side in (0, 1):
            rows = importance.rows(pair, side)
            if not len(rows):
                continue
            orders = (np.argsort(-importance.effects[rows], kind="stable"), draw.permutation(len(rows)))
            for order in orders:
                for share in shares:
                    count = math.ceil(share * len(rows) - 1e-9)
                    for taken in (order[:count], order[count:]):
                        edits.append(Edit(int(scorer.sides[side, pair]), dict.fromkeys(taken.tolist())))
                        partners.append(int(scorer.sides[1 - side, pair]))
            before.append(float(scorer.scores[pair]))
    if not before:
        raise UsageError("no text has a unit to take away", remedy="give pairs with words")
    after = scorer.edited_scores(
        edits,
        np.arange(len(edits)),
        np.array(partners, np.int64),
        intervention,
        progress="faithfulness" if show_progress else None,
    )
    lost = np.array(before)[:, None, None, None] - after.reshape(len(before), 2, len(shares), 2)
    curves = lost.mean(axis=0)
    return Faithfulness(
        shares=np.array(shares, np.float64),
        removed=curves[0, :, 0],
        kept=curves[0, :, 1],
        removed_at_random=curves[1, :, 0],
        kept_at_random=curves[1, :, 1],
        texts=len(before),
    )


def _check(importance: TokenImportance, shares: Sequence[float], intervention: str) -> None:
    if intervention not in ("delete", "mask"):
        raise UsageError(f"units cannot be taken away by {intervention!r}", remedy="one of delete, mask")
    if not shares or not all(0 < share <= 1 for share in shares):
        raise UsageError(f"shares are {tuple(shares)}", remedy="give numbers above 0 and at most 1")
    if not bool(importance.complete().all()):
        raise UsageError(
            "this importance is of a sample of the units, so their order is not known",
            remedy="leave max_units out",
        )
