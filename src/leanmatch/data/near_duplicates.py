"""Near-duplicate texts: all pairs whose character trigrams have a Jaccard similarity of at least 0.9.

``J(x, y) = |X & Y| / |X | Y|``, with X and Y the sets of character trigrams of the normalized texts, a space
added on both sides. The join is exact. A pair at threshold t overlaps in ``o >= ceil(t max(|X|, |Y|))``
trigrams; with one order for all (rarest first), the first ``|X| - ceil(t |X|) + l`` of both then share at
least ``min(l, o)``, so a sparse product of these prefixes finds the candidates, and only they are counted in
full.

Source: Bayardo, Ma, Srikant, "Scaling up all pairs similarity search", WWW 2007 (prefixes); Wang, Li, Feng,
"Can we beat the prefix filtering?", SIGMOD 2012 (several shared tokens, here l = 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from leanmatch.errors import DataError, MissingExtraError

try:
    from scipy import sparse
except ModuleNotFoundError as error:
    raise MissingExtraError("scipy", "data", "looking for near-duplicates") from error

THRESHOLD = 0.9
SHARED_TOKENS = 3
MAX_PAIRS = 20_000_000
BLOCK_ROWS = 4_096
PRODUCT_WORK = 20_000_000  # multiplications in one block of the product: bounds its memory
_EXACT = 1e-9


def near_pairs(texts: Sequence[str], threshold: float = THRESHOLD) -> NDArray[np.int64]:
    """Find the pairs of near-duplicate texts.

    Args:
        texts: distinct normalized texts.
        threshold: the least Jaccard similarity, in (0.5, 1].

    Returns:
        positions ``(i, j)`` with ``i < j``, sorted, shape ``(pairs, 2)``.

    Raises:
        DataError: there are more than 20 million pairs.

    >>> near_pairs(["how to install the latest kernel on ubuntu server", "usb",
    ...             "how to install the latest kernels on ubuntu server"]).tolist()
    [[0, 2]]
    """
    if not texts:
        return np.empty((0, 2), np.int64)
    sets, sizes, order = _trigram_sets(texts)
    needed = np.ceil(threshold * sizes - _EXACT).astype(np.int64)
    prefixes = _prefixes(sets, np.minimum(sizes, sizes - needed + SHARED_TOKENS))
    frequency = np.bincount(prefixes.indices, minlength=sets.shape[1])
    pair_blocks: list[NDArray[np.int64]] = []
    total = 0
    blocks = _blocks(prefixes @ frequency)
    for start, stop in tqdm(blocks, desc="near duplicates", unit=" blocks", delay=3.0, leave=False):
        # in the order of size, only what follows and is not too large can match: needed <= the smaller size
        end = int(np.searchsorted(needed, sizes[stop - 1], "right"))
        shared = (prefixes[start:stop] @ prefixes[start:end].T).tocoo()
        left, right = shared.row.astype(np.int64) + start, shared.col.astype(np.int64) + start
        keep = (left < right) & (shared.data >= np.minimum(SHARED_TOKENS, needed[right]))
        keep &= sizes[left] >= needed[right]
        left, right = left[keep], right[keep]
        overlap = _overlaps(sets, left, right)
        near = overlap >= threshold * (sizes[left] + sizes[right] - overlap) - _EXACT
        pair_blocks.append(np.sort(np.stack([order[left[near]], order[right[near]]], axis=1), axis=1))
        total += int(near.sum())
        if total > MAX_PAIRS:
            raise DataError(
                f"more than {MAX_PAIRS:,} pairs of the {len(texts):,} distinct texts are near-duplicates",
                remedy="the texts come from a template; compare whole texts only: near_duplicates=False",
                command="the texts come from a template; compare whole texts only: --no-near-duplicates",
            )
    pairs = np.concatenate(pair_blocks)
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _blocks(work: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Spans of rows, each of bounded work and length."""
    spans, start, spent = [], 0, 0
    for i, cost in enumerate(work.tolist()):
        if i > start and (spent + cost > PRODUCT_WORK or i - start >= BLOCK_ROWS):
            spans.append((start, i))
            start, spent = i, 0
        spent += cost
    return [*spans, (start, len(work))]


def _trigram_sets(
    texts: Sequence[str],
) -> tuple[sparse.csr_array, NDArray[np.int64], NDArray[np.int64]]:
    """Texts by trigrams, ``(texts, trigrams)``: rows in the order of size, columns in the order of rarity.

    Returns:
        the matrix of ones, the size of each row, and the position of each row's text.
    """
    joined = "".join(f" {text} " for text in texts)
    codes = np.frombuffer(joined.encode("utf-32-le"), "<u4").astype(np.int64)
    lengths = np.array([len(text) + 2 for text in texts], np.int64)
    owner = np.repeat(np.arange(len(texts)), lengths)
    inside = owner[:-2] == owner[2:]
    keys = (codes[:-2] << 42 | codes[1:-1] << 21 | codes[2:])[inside]  # a code point has 21 bits: no hashing
    _, tokens, frequency = np.unique(keys, return_inverse=True, return_counts=True)
    rarity = np.empty(len(frequency), np.int64)
    rarity[np.argsort(frequency, kind="stable")] = np.arange(len(frequency))
    rows, columns = np.divmod(np.unique(owner[:-2][inside] * len(rarity) + rarity[tokens]), len(rarity))
    sizes = np.bincount(rows, minlength=len(texts)).astype(np.int64)
    order = np.argsort(sizes, kind="stable")
    bounds = np.concatenate([[0], np.cumsum(sizes)])
    sets = _ones(columns, bounds, (len(texts), len(rarity)))[order]
    return sets, sizes[order], order


def _prefixes(sets: sparse.csr_array, lengths: NDArray[np.int64]) -> sparse.csr_array:
    """The first ``lengths[i]`` columns of each row."""
    position = np.arange(sets.nnz) - np.repeat(sets.indptr[:-1], np.diff(sets.indptr))
    kept = position < np.repeat(lengths, np.diff(sets.indptr))
    return _ones(sets.indices[kept], np.concatenate([[0], np.cumsum(lengths)]), sets.shape)


def _ones(columns: NDArray[np.int64], bounds: NDArray[np.int64], shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.csr_array((np.ones(len(columns), np.int32), columns, bounds), shape=shape)


def _overlaps(sets: sparse.csr_array, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    chunk = 100_000
    parts = [
        np.asarray(sets[left[i : i + chunk]].multiply(sets[right[i : i + chunk]]).sum(axis=1)).ravel()
        for i in range(0, len(left), chunk)
    ]
    return np.concatenate(parts).astype(np.int64) if parts else np.empty(0, np.int64)
