"""What a search finds, and the order that a reranker gives it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.index.search.planner import Plan
from leanmatch.index.search.scan import Rows
from leanmatch.models import RERANK_WEIGHT, Reranker
from leanmatch.models.reranker import reranking_scores


@dataclass(frozen=True)
class Found:
    """The rows found for one query, best first, their scores, and how they were found.

    Attributes:
        scores: what the rows are ordered by: cosines, or the weighted sum of a hybrid search.
        cosines, lexical: of a hybrid search, the parts of that sum; else None.
        nearest: of a hybrid search, the best cosine of all rows that may be found, and its row.
    """

    scores: NDArray[np.float64]
    rows: Rows
    plan: Plan
    cosines: NDArray[np.float64] | None = None
    lexical: NDArray[np.float64] | None = None
    nearest: tuple[float, int] | None = None

    @property
    def path(self) -> str:
        """How it was found, in a word."""
        return self.plan.path if self.lexical is None else f"{self.plan.path}+terms"

    @property
    def best(self) -> tuple[float, int] | None:
        """The best cosine and its row, None where nothing was found."""
        if self.nearest is not None or not len(self.rows):
            return self.nearest
        return float(self.scores[0]), int(self.rows[0])


def reranked(
    texts: Sequence[str],
    results: Sequence[Found],
    reranker: Reranker,
    k: int | Sequence[int],
    text_of: Callable[[int], str],
    weight: float = RERANK_WEIGHT,
) -> list[Found]:
    """Results in a new order, each cut to its ``k``; the scores are what they are ordered by.

    Args:
        texts: the queries.
        results: what was found for each.
        reranker: scores pairs of texts.
        k: how many items remain, for all queries or for each.
        text_of: the text of a row.
        weight: of the reranker beside the search's scores; 1 for the reranker alone.
    """
    wanted = [k] * len(results) if isinstance(k, int) else list(k)
    pairs = [
        (text, text_of(row))
        for text, result in zip(texts, results, strict=True)
        for row in result.rows.tolist()
    ]
    scores = reranking_scores(reranker, pairs, [result.scores for result in results], weight)
    out = []
    for result, own, count in zip(results, scores, wanted, strict=True):
        order = np.argsort(-own, kind="stable")[:count]
        cosines = result.scores if result.cosines is None else result.cosines
        lexical = None if result.lexical is None else result.lexical[order]
        out.append(Found(own[order], result.rows[order], result.plan, cosines[order], lexical, result.best))
    return out
