"""A validation slice that differs from the training data, cut out of the training data itself.

How robust a model is cannot be seen on validation pairs of its own distribution, and the test slices must
not be looked at. So a part of the training rows that is unlike the rest is set aside and never trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from leanmatch.models import RoleEncoder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from leanmatch.data import PairTable
    from leanmatch.types import EncodeFunction

MIN_POSITIVES = 50
"""A slice with fewer positives says too little."""
MAX_SHARE = 0.25
"""A group that holds more of the training rows than this is too dear to set aside."""
TARGET_SHARE = 0.1
MAX_ROWS = 1000
CLUSTERS = 12


@dataclass(frozen=True)
class ShiftedSlice:
    """Training rows without the slice, the slice, and a sentence on how it was made."""

    train: PairTable
    shifted: PairTable | None
    how: str


def set_aside(
    train: PairTable,
    encode: EncodeFunction,
    *,
    group_columns: Sequence[str] = (),
    by_time: bool = False,
    seed: int = 0,
) -> ShiftedSlice:
    """Set aside the latest tenth (``by_time``), else a whole group, else clusters of texts far from the rest.

    Args:
        train: the training rows.
        encode: the base model, for clustering.
        group_columns: columns that the user holds groups out of.
        by_time: whether the user's test slice is a later time.
        seed: for k-means.
    """
    relevant = np.asarray(train.labels) == 1
    if relevant.sum() < 4 * MIN_POSITIVES:
        return ShiftedSlice(
            train, None, f"only {int(relevant.sum())} training pairs: no shifted slice was set aside"
        )
    if by_time and train.has("timestamp"):
        chosen, how = _latest(train), f"the latest {TARGET_SHARE:.0%} of the training rows"
    else:
        group = next((g for c in group_columns if (g := _smallest_group(train, relevant, c))), None)
        if group:
            column, value = group
            chosen = np.array([v == value for v in train.column(column)])
            how = f"the training group {column}={value}"
        else:
            chosen, count = _remote_clusters(train, encode, seed)
            how = f"{count} of {CLUSTERS} clusters of the training texts, those farthest from the rest"
    shifted = np.flatnonzero(chosen & relevant)
    if len(shifted) < MIN_POSITIVES:
        return ShiftedSlice(
            train, None, f"{how}: only {len(shifted)} pairs, so no shifted slice was set aside"
        )
    slice_table = train.take(shifted[:MAX_ROWS])
    seen = {*slice_table.anchors, *slice_table.positives}
    rest = [
        row
        for row, (anchor, positive) in enumerate(zip(train.anchors, train.positives, strict=True))
        if not chosen[row] and anchor not in seen and positive not in seen
    ]
    return ShiftedSlice(train.take(np.array(rest)), slice_table, f"{how} ({len(slice_table)} pairs)")


def _latest(train: PairTable) -> NDArray[np.bool_]:
    order = np.argsort(np.array(train.column("timestamp")), kind="stable")
    chosen = np.zeros(len(train), dtype=bool)
    chosen[order[int(len(order) * (1 - TARGET_SHARE)) :]] = True
    return chosen


def _smallest_group(train: PairTable, relevant: NDArray[np.bool_], column: str) -> tuple[str, object] | None:
    values = train.column(column)
    counts = Counter(value for value, keep in zip(values, relevant, strict=True) if keep)
    usable = {v: n for v, n in counts.items() if MIN_POSITIVES <= n <= MAX_SHARE * relevant.sum()}
    if len(counts) < 2 or not usable:
        return None
    return column, min(usable, key=lambda value: (usable[value], str(value)))


def _remote_clusters(train: PairTable, encode: EncodeFunction, seed: int) -> tuple[NDArray[np.bool_], int]:
    import faiss

    vectors = np.ascontiguousarray(RoleEncoder(encode).encode_query(train.anchors), dtype=np.float32)
    options = {
        "niter": 20,
        "seed": seed + 1,
        "spherical": True,
        "min_points_per_centroid": 1,
    }  # else it warns
    kmeans = faiss.Kmeans(vectors.shape[1], CLUSTERS, **options)
    kmeans.train(vectors)
    nearest = kmeans.index.search(vectors, 1)[1][:, 0]
    sizes = np.bincount(nearest, minlength=CLUSTERS)
    remoteness = 1 - kmeans.centroids @ vectors.mean(0)
    chosen = np.zeros(len(train), dtype=bool)
    count = 0
    for cluster in np.argsort(-remoteness, kind="stable"):
        if chosen.mean() + sizes[cluster] / len(train) > MAX_SHARE:
            continue
        chosen |= nearest == cluster
        count += 1
        if chosen.mean() >= TARGET_SHARE:
            break
    return chosen, count
