"""BM25 over parts that change: bm25s builds and scores each part, the statistics are those of the whole.

The score of a document ``d`` for a query's distinct terms ``t``, in the form of Lucene and without a
correction for length (items are titles, of much the same length)::

    score(q, d) = sum_t idf(t) tf(t, d) / (K1 + tf(t, d))  /  sum_t idf(t) / (K1 + 1)
    idf(t)      = ln(1 + (N - df(t) + 1/2) / (df(t) + 1/2))

so 1 is an item that holds every term of the query once, 0 one that shares no term. A part keeps the products
``idf tf / (K1 + tf)`` with its own ``idf``; where there are several parts, or documents that are gone,
:class:`LexicalScorer` rescales each term's by the ``idf`` over all documents that are there. So a document's
score does not depend on which part it came in, and a changed catalogue ranks as one that was made anew.

Reference: Robertson, Zaragoza: The Probabilistic Relevance Framework: BM25 and Beyond, 2009; Lù: BM25S, 2024
(arXiv 2407.03618).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import MissingExtraError
from leanmatch.lexical.terms import terms

K1 = 1.2


@dataclass(frozen=True)
class Postings:
    """Which documents hold which terms.

    Attributes:
        keys: :func:`term_key` of each term, int64, rising, shape ``(terms,)``.
        ends: where each term's postings end, int64, shape ``(terms,)``.
        rows: numbers of documents, rising within a term, int32, shape ``(postings,)``.
        weights: ``idf tf / (K1 + tf)``, float32, shape ``(postings,)``.
        documents: number of documents.
    """

    keys: NDArray[np.int64]
    ends: NDArray[np.int64]
    rows: NDArray[np.int32]
    weights: NDArray[np.float32]
    documents: int

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each term's postings start and the last one's end, shape ``(terms + 1,)``."""
        return np.concatenate([np.zeros(1, np.int64), self.ends])


@lru_cache(200_000)
def term_key(term: str) -> int:
    """What a term is kept under: 64 bits of its BLAKE2b."""
    return int.from_bytes(
        hashlib.blake2b(term.encode("utf-8", "replace"), digest_size=8).digest(), "little", signed=True
    )


def build_postings(texts: Sequence[str]) -> Postings:
    """The postings of some texts.

    Raises:
        MissingExtraError: bm25s is not installed.
    """
    library = bm25s_module("indexing items for hybrid search")
    numbers: dict[int, int] = {}
    documents = [[numbers.setdefault(term_key(term), len(numbers)) for term in terms(text)] for text in texts]
    keys = np.array(list(numbers), np.int64)
    if not len(keys):
        nothing = np.zeros(0, np.int64)
        return Postings(nothing, nothing, np.zeros(0, np.int32), np.zeros(0, np.float32), len(texts))
    order = np.argsort(keys)
    rank = np.empty(len(keys), np.int64)
    rank[order] = np.arange(len(keys))
    placed = rank.tolist()
    index = library.BM25(method="lucene", k1=K1, b=0.0, backend="numpy", csc_backend="numpy")
    index.index(
        ([[placed[number] for number in document] for document in documents], {at: at for at in placed}),
        create_empty_token=False,
        show_progress=False,
    )
    scores = index.scores
    return Postings(
        keys[order],
        np.asarray(scores["indptr"][1:], np.int64),
        np.asarray(scores["indices"], np.int32),
        np.asarray(scores["data"], np.float32),
        len(texts),
    )


class LexicalScorer:
    """Scores all documents of some parts for a query. It is safe to use from threads."""

    def __init__(self, parts: Sequence[tuple[Postings, NDArray[np.bool_]]]) -> None:
        """Take parts.

        Args:
            parts: postings, and which of their documents are there; documents that are not have no score.

        Raises:
            MissingExtraError: bm25s is not installed.
        """
        library = bm25s_module("hybrid search")
        self.documents = sum(int(alive.sum()) for _, alive in parts)
        whole = len(parts) == 1 and bool(parts[0][1].all())
        self._keys: NDArray[np.int64] = parts[0][0].keys if whole else np.zeros(0, np.int64)
        self._counts: NDArray[np.int64] = np.diff(parts[0][0].starts) if whole else self._keys
        if not whole:
            self._keys, self._counts = _statistics(parts)
        self._parts: list[tuple[Postings, NDArray[np.bool_], Any]] = []
        for postings, alive in parts:
            weights = postings.weights if whole else self._rescaled(postings)
            index = library.BM25(method="lucene", k1=K1, b=0.0, backend="numpy")
            index.nonoccurrence_array = None
            index.scores = {
                "data": weights,
                "indices": postings.rows,
                "indptr": postings.starts,
                "num_docs": postings.documents,
            }
            self._parts.append((postings, alive, index))

    def __call__(self, query: str) -> NDArray[np.float32]:
        """The score of each document that is there, in the order of the parts, shape ``(documents,)``."""
        keys = _distinct(query)
        attainable = float(_idf(self.documents, self._frequencies(keys)).sum()) / (K1 + 1)
        out = []
        for postings, alive, index in self._parts:
            held, present = _find(postings.keys, keys)
            if present.any():
                scores = index.get_scores_from_ids(held[present]) / np.float32(attainable)
            else:
                scores = np.zeros(postings.documents, np.float32)
            out.append(scores if alive.all() else scores[alive])
        return np.concatenate([*out, np.zeros(0, np.float32)])

    def shared(self, query: str, text: str) -> list[str]:
        """The terms that a text shares with a query, those that fewest documents hold first."""
        common = list(dict.fromkeys(term for term in terms(query) if term in set(terms(text))))
        counts = self._frequencies(np.array([term_key(term) for term in common], np.int64))
        return [common[number] for number in np.argsort(counts, kind="stable").tolist()]

    def _frequencies(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        places, present = _find(self._keys, keys)
        counts = np.zeros(len(keys), np.int64)
        counts[present] = self._counts[places[present]]
        return counts

    def _rescaled(self, postings: Postings) -> NDArray[np.float32]:
        inside = np.diff(postings.starts)
        whole = _idf(self.documents, self._frequencies(postings.keys))
        ratio = whole / _idf(postings.documents, inside)
        return (postings.weights * np.repeat(ratio, inside)).astype(np.float32)


def _statistics(
    parts: Sequence[tuple[Postings, NDArray[np.bool_]]],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The terms of all parts, and how many of the documents that are there hold each."""
    nothing = np.zeros(0, np.int64)
    keys, number_of = np.unique(
        np.concatenate([nothing, *(postings.keys for postings, _ in parts)]), return_inverse=True
    )
    counts = np.zeros(len(keys), np.int64)
    start = 0
    for postings, alive in parts:
        there = np.concatenate([np.zeros(1, np.int64), np.cumsum(alive[postings.rows])])
        inside = there[postings.ends] - there[postings.starts[:-1]]
        counts[number_of[start : start + len(inside)]] += inside
        start += len(inside)
    return keys, counts


def _idf(documents: int, counts: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.log1p((documents - counts + 0.5) / (counts + 0.5))


def _distinct(text: str) -> NDArray[np.int64]:
    return np.array(sorted({term_key(term) for term in terms(text)}), np.int64)


def _find(keys: NDArray[np.int64], wanted: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Where each wanted key stands among rising keys, and whether it does."""
    places = np.searchsorted(keys, wanted)
    inside = places < len(keys)
    present = inside.copy()
    present[inside] = keys[places[inside]] == wanted[inside]
    return places, present


def bm25s_module(purpose: str) -> Any:
    """bm25s, or the error that says how to get it."""
    try:
        import bm25s
    except ModuleNotFoundError as error:
        raise MissingExtraError("bm25s", "hybrid", purpose) from error
    logging.getLogger("bm25s").setLevel(logging.NOTSET)  # importing it asks for lines of debugging
    return bm25s
