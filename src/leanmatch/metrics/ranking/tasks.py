"""Retrieval tasks: the queries, candidates and judgements of one slice."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leanmatch.metrics.encoding import SideVectors
from leanmatch.metrics.ranking.candidates import Identities, distinct_in_order
from leanmatch.metrics.ranking.retrieval import Judgements
from leanmatch.metrics.ranking.search import Exclusions, Neighbours, top_k


@dataclass(frozen=True)
class RetrievalTask:
    """One slice, ready to be searched.

    ``query_texts`` and ``candidate_texts``: numbers of texts, int64, shapes ``(queries,)`` and
    ``(candidates,)``. ``items``: identity of each item number that the judgements use: the candidates first,
    then relevant items that are no candidates. ``self_pairs``: pairs left out because both texts are the
    same. ``lost``: judgements whose item is no candidate.
    """

    query_texts: NDArray[np.int64]
    candidate_texts: NDArray[np.int64]
    judgements: Judgements
    exclude: Exclusions | None
    items: NDArray[np.int64]
    self_pairs: int
    lost: int

    def search(self, vectors: SideVectors, depth: int) -> Neighbours:
        """The best ``depth`` candidates of each query; ``vectors``: one row a distinct text of the table."""
        queries, candidates = vectors.queries[self.query_texts], vectors.documents[self.candidate_texts]
        return top_k(queries, candidates, depth, exclude=self.exclude)


def make_task(
    identified: Identities,
    rows: NDArray[np.int64],
    labels: NDArray[np.int8],
    grades: NDArray[np.int64],
    *,
    symmetric: bool,
) -> RetrievalTask:
    """The retrieval task of some rows.

    Candidates: the corpus where there is one; else, for symmetric pairs, all texts of the rows on either
    side; else all their positives (label 0 too). Items with one text are one candidate. For symmetric pairs
    a query never finds itself nor another item with its very text, and pairs of one text with itself are no
    judgements.
    """
    candidates = _candidates(identified, rows, symmetric)
    relevant = rows[labels[rows] == 1]
    same = identified.text_of[identified.queries[relevant]] == identified.text_of[identified.items[relevant]]
    self_pairs = int(np.count_nonzero(same)) if symmetric else 0
    if symmetric:
        relevant = relevant[~same]
    query_ids = distinct_in_order(identified.queries[relevant])
    missing = np.setdiff1d(identified.items[relevant], candidates)
    items = np.concatenate([candidates, missing])
    query_place = _places(query_ids, len(identified.text_of))
    item_place = _places(items, len(identified.text_of))
    pairs, first = np.unique(
        np.stack([query_place[identified.queries[relevant]], item_place[identified.items[relevant]]]),
        axis=1,
        return_index=True,
    )
    best = np.zeros(len(first), np.int64)
    width = max(1, len(items))
    slots = np.searchsorted(
        pairs[0] * width + pairs[1],
        query_place[identified.queries[relevant]] * width + item_place[identified.items[relevant]],
    )
    np.maximum.at(best, slots, grades[relevant])
    query_texts, candidate_texts = identified.text_of[query_ids], identified.text_of[candidates]
    return RetrievalTask(
        query_texts,
        candidate_texts,
        Judgements(len(query_ids), pairs[0], pairs[1], best),
        _same_text(query_texts, candidate_texts) if symmetric else None,
        items,
        self_pairs,
        int(np.count_nonzero(pairs[1] >= len(candidates))),
    )


def _candidates(identities: Identities, rows: NDArray[np.int64], symmetric: bool) -> NDArray[np.int64]:
    if identities.corpus is not None:
        return identities.corpus
    if symmetric:
        both = distinct_in_order(np.stack([identities.queries[rows], identities.items[rows]], axis=1).ravel())
        return _one_a_text(both, identities, rows)
    return distinct_in_order(identities.items[rows])


def _one_a_text(
    identities: NDArray[np.int64], identified: Identities, rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """One identity for each text: that of an item, which judgements name, where there is one."""
    chosen = dict(zip(identified.text_of[identities].tolist(), identities.tolist(), strict=True))
    chosen |= dict(
        zip(identified.text_of[identified.items[rows]].tolist(), identified.items[rows].tolist(), strict=True)
    )
    return np.array(list(chosen.values()), np.int64)


def _places(identities: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    places = np.full(size, -1, np.int64)
    places[identities] = np.arange(len(identities))
    return places


def _same_text(queries: NDArray[np.int64], candidates: NDArray[np.int64]) -> Exclusions:
    """All pairs of a query and a candidate with the same text."""
    order = np.argsort(candidates, kind="stable")
    ordered = candidates[order]
    first, last = np.searchsorted(ordered, queries, "left"), np.searchsorted(ordered, queries, "right")
    counts = last - first
    rows = np.repeat(np.arange(len(queries)), counts)
    offsets = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Exclusions(rows, order[np.repeat(first, counts) + offsets])
