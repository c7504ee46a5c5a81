"""What a compressed model's agreement with the dense one says of the metric.

Ranks of a few hundred queries are a coarse measure: a model that keeps 99% and one that keeps 97% differ on
two or three of them. How far *vectors* moved is known very precisely, on any texts, without labels. What a
move costs in the metric is measured on the same queries with the move made larger::

    v(a) = normalized(dense + a (compressed - dense))        a in AMPLIFIED
    lost(a) = 1 - metric(v(a)) / metric(dense)
    price(a) = lost(a) / moved(a) ~ p + q log(a),   moved(a) = mean(1 - cos(v(a), dense))

A larger move costs many more ranks, and its price is that of the small one but for a slow change, which the
line in ``log a`` follows. The share that is kept is ``1 - p moved(1)``; its interval is that of the line's
start over bootstrap samples of queries. On MiniLM, with 131 queries at a time, the interval is a quarter
narrower than that of ranks alone, as with 1.8 times as many queries, and holds the share of all queries as
often (docs/LOG.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.files import atomic_file
from leanmatch.metrics.bootstrap import resample_counts
from leanmatch.metrics.encoding import SideVectors

AMPLIFIED = (1.0, 1.5, 2.0, 3.0, 4.0)
"""Factors of the move; 1 is the compressed model itself."""
OVERLAP = 10
"""Neighbours of a query that are compared."""
PAIRS = 20_000
"""Random pairs of texts whose cosines are compared by rank."""
RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Judgement:
    """A model on the held-out data.

    Attributes:
        scores: the metric of each query.
        vectors: of the texts; None where the task has none.
    """

    scores: NDArray[np.float64]
    vectors: SideVectors | None = None


def save_judgement(file: Path, judgement: Judgement) -> None:
    """Keep a judgement for the next call, as safetensors."""
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {"scores": judgement.scores}
    if judgement.vectors is not None:
        queries, documents = judgement.vectors
        arrays["queries"] = queries
        if documents is not queries:
            arrays["documents"] = documents
    with atomic_file(file) as temporary:
        temporary.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def load_judgement(file: Path) -> Judgement:
    """What :func:`save_judgement` wrote."""
    from safetensors.numpy import load_file

    arrays = load_file(file)
    vectors = None
    if "queries" in arrays:
        vectors = SideVectors(arrays["queries"], arrays.get("documents", arrays["queries"]))
    return Judgement(arrays["scores"], vectors)


def moved(dense: SideVectors, vectors: SideVectors, first: int | None = None) -> float:
    """``mean(1 - cos)`` over texts, in their roles; over the ``first`` ones, or all."""
    sides = [(dense.queries[:first], vectors.queries[:first])]
    if dense.documents is not dense.queries:
        sides.append((dense.documents[:first], vectors.documents[:first]))
    lost = [1 - np.einsum("ij,ij->i", a, b)[np.abs(a).sum(axis=1) > 0] for a, b in sides]
    return float(np.concatenate(lost).mean())


def amplify(dense: SideVectors, vectors: SideVectors, factor: float) -> SideVectors:
    """The move from ``dense`` to ``vectors``, ``factor`` times as long, normalized again."""
    queries = _further(dense.queries, vectors.queries, factor)
    if dense.documents is dense.queries:
        return SideVectors(queries, queries)
    return SideVectors(queries, _further(dense.documents, vectors.documents, factor))


def overlap(dense: NDArray[np.int64], compressed: NDArray[np.int64]) -> float:
    """Mean share of a query's neighbours that both models find; rows ``(queries, k)``, -1 for none.

    >>> overlap(np.array([[1, 2], [3, -1]]), np.array([[2, 4], [3, -1]]))
    0.75
    """
    shares = []
    for before, after in zip(dense.tolist(), compressed.tolist(), strict=True):
        known = set(before) - {-1}
        shares.append(len(known & set(after)) / len(known) if known else 1.0)
    return float(np.mean(shares))


def rank_correlation(dense: SideVectors, vectors: SideVectors, seed: int = 0) -> float:
    """Spearman's correlation of the cosines of random pairs of texts."""
    from scipy.stats import rankdata

    rng = np.random.default_rng(seed)
    count = len(dense.queries)
    left, right = rng.integers(0, count, PAIRS), rng.integers(0, count, PAIRS)
    apart = left != right
    ranks = [rankdata(model.pair_scores(left[apart], right[apart])) for model in (dense, vectors)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return 1.0
    return float(np.corrcoef(*ranks)[0, 1])


def kept_by_agreement(
    dense: NDArray[np.float64],
    amplified: Sequence[NDArray[np.float64]],
    moves: Sequence[float],
    confidence: float = CONFIDENCE,
) -> tuple[float, float, float] | None:
    """The share of the metric that is kept, with an interval; None where nothing moved.

    Args:
        dense: scores of the queries.
        amplified: scores at each of :data:`AMPLIFIED`.
        moves: :func:`moved` at each; of other texts than those of the queries, too: the outcome is the same
            where all moves are a constant times as large.
        confidence: of the interval.
    """
    if min(moves) <= 1e-9 or dense.mean() <= 0:
        return None
    table = np.stack([dense, *amplified], axis=1)
    counts = np.vstack(list(resample_counts(len(dense), RESAMPLES, seed=0)))
    sums = np.vstack([np.ones(len(dense)), counts]) @ table
    sums = sums[sums[:, 0] > 0]
    prices = (1 - sums[:, 1:] / sums[:, :1]) / np.asarray(moves)
    # what is known of a price grows with the move: its noise falls as 1 / moved^(3/4)
    weights = np.asarray(moves)[:, None] ** 1.5
    line = np.stack([np.ones(len(moves)), np.log(AMPLIFIED)], axis=1)
    start = np.linalg.solve(line.T @ (weights * line), (weights * line).T)[0]
    estimates = 1 - moves[0] * (prices @ start)
    low, high = np.quantile(estimates[1:], [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(estimates[0]), float(low), float(high)


def gather(
    dense: Judgement,
    compressed: Judgement,
    values: Callable[[SideVectors], NDArray[np.float64]],
    neighbours: Callable[[SideVectors, int], NDArray[np.int64]],
    slices: Mapping[str, NDArray[np.bool_]] | None = None,
    held_out: int | None = None,
) -> dict[str, Any] | None:
    """Agreement of two models, and the share kept that it suggests, as JSON values; None without vectors.

    Args:
        dense, compressed: the two models on the same texts.
        values: the metric of each query for vectors.
        neighbours: the best candidates of each query for vectors.
        slices: name to the queries that belong to it.
        held_out: how many texts are held out; they come first. The others are distractors. A model that was
            trained on them reproduces them better than new texts, so ``moved`` leaves them out. None: all
            are held out.

    Returns:
        ``texts`` (that are held out), ``moved`` (their mean 1 - cosine), ``overlap`` (of the 10 best),
        ``rank_correlation``, ``kept``, ``low`` and ``high``; and by slice, under ``slices``, the last three
        with an interval of :func:`confidence_of_each`.
    """
    if dense.vectors is None or compressed.vectors is None:
        return None
    further = [amplify(dense.vectors, compressed.vectors, factor) for factor in AMPLIFIED[1:]]
    scores = [compressed.scores, *map(values, further)]
    moves = [moved(dense.vectors, vectors, held_out) for vectors in (compressed.vectors, *further)]
    kept = kept_by_agreement(dense.scores, scores, moves)
    found = [neighbours(model, OVERLAP) for model in (dense.vectors, compressed.vectors)]
    share, low, high = kept or (1.0, 1.0, 1.0)
    parts = {}
    for name, queries in (slices or {}).items():
        own = kept_by_agreement(
            dense.scores[queries],
            [score[queries] for score in scores],
            moves,
            confidence_of_each(len(slices or {})),
        )
        if own is not None:
            parts[name] = dict(zip(("kept", "low", "high"), own, strict=True))
    return {
        "texts": len(dense.vectors.queries[:held_out]),
        "moved": moves[0],
        "overlap": overlap(*found),
        "rank_correlation": rank_correlation(dense.vectors, compressed.vectors),
        "kept": share,
        "low": low,
        "high": high,
        "slices": parts,
    }


def confidence_of_each(intervals: int) -> float:
    """That of each interval at which all of them hold with :data:`CONFIDENCE`, whatever they share.

    >>> confidence_of_each(1), round(confidence_of_each(10), 6)
    (0.95, 0.995)
    """
    return 1 - (1 - CONFIDENCE) / max(1, intervals)


def _further(dense: NDArray[np.float32], vectors: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    moved_far = dense + np.float32(factor) * (vectors - dense)
    norms = np.linalg.norm(moved_far, axis=1, keepdims=True)
    return np.ascontiguousarray(moved_far / np.where(norms > 0, norms, 1), dtype=np.float32)
