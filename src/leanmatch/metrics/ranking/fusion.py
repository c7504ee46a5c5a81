"""Rankings by more than the cosine: terms beside vectors, and a cross-encoder over the best of both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError
from leanmatch.lexical.bm25 import LexicalScorer, build_postings
from leanmatch.lexical.weight import PART_NUMBER_WEIGHT, WORD_WEIGHT, lexical_weight
from leanmatch.metrics.encoding import SideVectors
from leanmatch.metrics.ranking.search import Neighbours, top_k
from leanmatch.metrics.ranking.tasks import RetrievalTask
from leanmatch.models import RERANK_TOP, RERANK_WEIGHT, Reranker
from leanmatch.models.reranker import check_reranking, reranking_scores


@dataclass(frozen=True)
class Ranking:
    """How a matcher's candidates are ranked.

    Attributes:
        hybrid: by the weighted sum of cosine and lexical score, as a hybrid catalogue ranks.
        weight: of the lexical score; None for the default, by what the query holds.
        reranker: puts the first ``rerank_top`` candidates in a new order; None leaves them.
        rerank_top: how many.
        rerank_weight: of the reranker beside the scores of the search, 0 to 1; 1 for the reranker alone.

    Raises:
        UsageError: a weight without ``hybrid`` or outside 0..1; ``rerank_top`` below 1; ``rerank_weight``
            outside 0..1.
    """

    hybrid: bool = False
    weight: float | None = None
    reranker: Reranker | None = None
    rerank_top: int = RERANK_TOP
    rerank_weight: float = RERANK_WEIGHT

    def __post_init__(self) -> None:
        if self.weight is not None and not self.hybrid:
            raise UsageError(
                "a weight of terms goes with hybrid search alone",
                remedy="leave the weight out, or say hybrid=True",
                command="leave --lexical-weight out, or add --hybrid",
            )
        lexical_weight("", self.weight)
        check_reranking(self.rerank_top, self.rerank_weight)

    def in_words(self, name: str) -> list[str]:
        """Notes for the evaluation of the matcher ``name``."""
        notes = []
        if self.hybrid:
            weights = f"{WORD_WEIGHT}, with a part number {PART_NUMBER_WEIGHT}"
            weight = f"{weights if self.weight is None else self.weight}"
            notes.append(f"{name} ranks by cosine and terms (weight of the terms {weight})")
        if self.reranker is not None:
            by = f"{self.reranker.name} (weight {self.rerank_weight})"
            notes.append(f"the best {self.rerank_top} of {name} are reranked by {by}")
        if notes:
            notes.append(f"pair metrics of {name} are those of its cosines alone")
        return notes


class RememberingReranker:
    """A reranker that scores each pair once: slices share most of theirs."""

    def __init__(self, reranker: Reranker) -> None:
        self.name = reranker.name
        self._reranker = reranker
        self._scores: dict[tuple[str, str], float] = {}
        self._logits: dict[tuple[str, str], float] = {}

    @classmethod
    def of(cls, reranker: Reranker) -> RememberingReranker:
        """The reranker itself, if it is one already: several evaluations may share what it knows."""
        return reranker if isinstance(reranker, cls) else cls(reranker)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """See :class:`leanmatch.models.Reranker`."""
        return _remembered(pairs, self._scores, self._reranker.scores)

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """See :class:`leanmatch.models.Reranker`."""
        return _remembered(pairs, self._logits, self._reranker.logits)


def _remembered(
    pairs: Sequence[tuple[str, str]],
    known: dict[tuple[str, str], float],
    values_of: Callable[[Sequence[tuple[str, str]]], NDArray[np.float64]],
) -> NDArray[np.float64]:
    missing = list(dict.fromkeys(pair for pair in pairs if pair not in known))
    known.update(zip(missing, values_of(missing).tolist(), strict=True))
    return np.array([known[pair] for pair in pairs])


def search_ranked(
    task: RetrievalTask, vectors: SideVectors, depth: int, ranking: Ranking, texts: Sequence[str]
) -> Neighbours:
    """The best ``depth`` candidates of each query.

    Args:
        task: the slice.
        vectors: one row a distinct text of the table.
        depth: how many.
        ranking: how they are ranked.
        texts: the distinct texts of the table.
    """
    queries = [texts[row] for row in task.query_texts.tolist()]
    candidates = [texts[row] for row in task.candidate_texts.tolist()]

    def add_terms(block: NDArray[np.float32], first: int) -> None:
        for row, query in enumerate(queries[first : first + len(block)]):
            weight = np.float32(lexical_weight(query, ranking.weight))
            block[row] *= 1 - weight
            block[row] += weight * scorer(query)

    if ranking.hybrid:
        scorer = LexicalScorer([(build_postings(candidates), np.ones(len(candidates), np.bool_))])
    found = top_k(
        vectors.queries[task.query_texts],
        vectors.documents[task.candidate_texts],
        depth if ranking.reranker is None else max(depth, ranking.rerank_top),
        exclude=task.exclude,
        change=add_terms if ranking.hybrid else None,
    )
    if ranking.reranker is None:
        return found
    return _reranked(found, queries, candidates, ranking, ranking.reranker)


def _reranked(
    found: Neighbours, queries: list[str], candidates: list[str], ranking: Ranking, reranker: Reranker
) -> Neighbours:
    """The first ``rerank_top`` of each query in a new order, the others behind them as they were."""
    indices, scores = found.indices.copy(), found.scores.copy()
    for row, query in enumerate(queries):
        first = indices[row, : ranking.rerank_top]
        first = first[first >= 0]
        pairs = [(query, candidates[candidate]) for candidate in first.tolist()]
        (own,) = reranking_scores(reranker, pairs, [scores[row, : len(first)]], ranking.rerank_weight)
        order = np.argsort(-own, kind="stable")
        indices[row, : len(first)] = first[order]
        scores[row, : len(first)] = found.scores[row, : len(first)][order]
    return Neighbours(indices, scores)
