"""Random splits that keep together what shares a text."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.splitting.leakage import TextRows
from leanmatch.errors import MissingExtraError

Rows = NDArray[np.int64]


def components(data: TextRows, rows: Rows, linking: NDArray[np.bool_]) -> Rows:
    """The connected component of each text, where pairs and near-duplicates are edges.

    Args:
        data: texts of all rows.
        rows: the rows whose pairs are looked at.
        linking: shape ``(rows of the table,)``: whether a row's two texts are to stay together.

    Returns:
        a component number for each text, shape ``(texts,)``.
    """
    try:
        from scipy import sparse
        from scipy.sparse.csgraph import connected_components
    except ModuleNotFoundError as error:
        raise MissingExtraError("scipy", "data", "a random split") from error
    edges = rows[linking[rows]]
    left, right = data.near[:, 0], data.near[:, 1]
    if not data.shared_positives:
        left = np.concatenate([left, data.anchors[edges]])
        right = np.concatenate([right, data.positives[edges]])
    graph = sparse.coo_array((np.ones(len(left), np.int8), (left, right)), shape=(data.texts, data.texts))
    labels: Rows = connected_components(graph.tocsr(), directed=False)[1].astype(np.int64)
    return labels


def random_parts(
    data: TextRows, rows: Rows, labels: NDArray[np.int8], fractions: dict[str, float], seed: int
) -> tuple[dict[str, Rows], Rows, list[str]]:
    """Draw parts of the given shares at random; the rest is train.

    Components go to a part while they fit its share. Where the labelled-0 rows tie nearly everything together
    (negatives drawn at random do), only the matching rows tie, and a row with label 0 whose texts came apart
    is left out.

    Returns:
        the rows of each part, sorted, with ``"train"``; the rows left out; and remarks.
    """
    together = components(data, rows, np.ones(len(labels), np.bool_))
    sizes = np.bincount(together[data.anchors[rows]], minlength=1)
    if sizes.max() > max(fractions.values(), default=0.0) * len(rows) and (labels[rows] == 0).any():
        parts, left_out, notes = _draw(data, rows, components(data, rows, labels == 1), fractions, seed)
        if len(left_out) and len(parts["train"]):
            notes.insert(
                0,
                f"rows with label 0 tie {sizes.max():,} of {len(rows):,} rows together by shared texts; only "
                f"matching rows were kept together, and {len(left_out):,} rows with label 0 whose texts came "
                "apart were left out",
            )
            return parts, left_out, notes
    return _draw(data, rows, together, fractions, seed)


def _draw(
    data: TextRows, rows: Rows, of_text: Rows, fractions: dict[str, float], seed: int
) -> tuple[dict[str, Rows], Rows, list[str]]:
    notes: list[str] = []
    home = of_text[data.anchors[rows]]
    sizes = np.bincount(home, minlength=int(of_text.max(initial=0)) + 1)
    part_of = np.zeros(len(sizes), np.int64)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(sizes)).tolist()
    for number, (name, fraction) in enumerate(fractions.items(), start=1):
        wanted = left = round(fraction * len(rows))
        for component in order:
            if left > 0 and part_of[component] == 0 and sizes[component] <= left:
                part_of[component] = number
                left -= int(sizes[component])
        if left > 0.1 * wanted:
            notes.append(
                f"{name} has {wanted - left:,} rows instead of {wanted:,}: rows that share texts stay "
                f"together, and the largest such group has {sizes.max():,} rows"
            )
    chosen = part_of[home]
    kept = np.ones(len(rows), np.bool_)
    if not data.shared_positives:
        kept = chosen == part_of[of_text[data.positives[rows]]]
    parts = {name: rows[kept & (chosen == number)] for number, name in enumerate(["train", *fractions])}
    return parts, rows[~kept], notes
