"""Texts that make a search among held-out pairs as hard as one in a catalogue.

A few hundred held-out items are far apart, so a small error of a vector rarely changes a rank. Training texts
are further candidates; none of them may be a match that nobody labelled.
"""

from __future__ import annotations

import numpy as np

from leanmatch.data.near_duplicates import near_pairs
from leanmatch.data.table import PairTable
from leanmatch.data.text_form import text_ids


def distractors(train: PairTable, held_out: PairTable, *, symmetric: bool, most: int, seed: int) -> list[str]:
    """Distinct texts for the candidates of a search with the anchors of ``held_out``.

    They are the corpus of ``held_out`` where it has one, else the positives of ``train``, and for symmetric
    pairs its anchors, too. Left out: texts that equal a held-out text or nearly do
    (:mod:`leanmatch.data.near_duplicates`), and texts that ``train`` pairs with one.

    Args:
        train: rows with label 0 bring texts, too; they tie none to a held-out one.
        held_out: the pairs that are judged.
        symmetric: anchors and positives are things of one kind.
        most: how many at most.
        seed: of the random order; the first texts are a random sample of all.

    >>> train = PairTable.from_columns({"anchor": ["a", "b", "q"], "positive": ["one", "two", "three"]})
    >>> held_out = PairTable.from_columns({"anchor": ["q"], "positive": ["Two!"]})
    >>> distractors(train, held_out, symmetric=False, most=10, seed=0)
    ['one']
    """
    source = list(train.positives)
    if held_out.corpus is not None:
        source = list(held_out.corpus.texts)
    elif symmetric:
        source += train.anchors
    columns = [held_out.anchors, held_out.positives, train.anchors, train.positives, source]
    normalized, numbered = text_ids([list(column) for column in columns])
    anchors, positives, left, right, offered = (np.array(column, np.int64) for column in numbered)
    held = np.zeros(len(normalized), np.bool_)
    held[anchors] = held[positives] = True
    tied = held.copy()
    matching = train.labels == 1
    queries = held if symmetric else np.isin(np.arange(len(normalized)), anchors)
    tied[right[matching & queries[left]]] = True
    if symmetric:
        tied[left[matching & queries[right]]] = True
    distinct, first = np.unique(offered, return_index=True)
    first = first[~tied[distinct]]
    chosen = np.random.default_rng(seed).permutation(first)[:most]
    compared = np.concatenate([np.flatnonzero(held), offered[chosen]])
    near = near_pairs([normalized[number] for number in compared])
    judged = int(held.sum())
    beside = (near[:, 0] < judged) & (near[:, 1] >= judged)
    dropped = set((near[beside, 1] - judged).tolist())
    return [source[row] for number, row in enumerate(chosen.tolist()) if number not in dropped]
