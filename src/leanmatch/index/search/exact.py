"""Exact maximum-inner-product search by identifier, with ties in a fixed order."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leanmatch.errors import DataError, UsageError
from leanmatch.index.search.scan import Scan
from leanmatch.types import Vectors

_QUERIES_AT_ONCE = 64


class ExactIndex:
    """Every item is compared with every query: score ``q . v``, the cosine where both are normalized.

    Build it with :meth:`build`. Scores are float64, so that order does not hang on the processor's summation
    order: higher score first, equal scores in the order of the catalogue. How it stays fast without missing
    an item: :mod:`leanmatch.index.search.scan`.

    >>> index = ExactIndex.build([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], ["a", "b", "c"])
    >>> scores, ids = index.search([[1.0, 0.0]], k=2)
    >>> scores.tolist(), ids.tolist()
    ([[1.0, 1.0]], [['a', 'c']])
    """

    def __init__(self, vectors: Vectors, ids: list[str], scan: Scan) -> None:
        """Use :meth:`build`, which checks its input."""
        self._vectors, self._ids, self._scan = vectors, ids, scan
        self._row = {name: row for row, name in enumerate(ids)}

    @classmethod
    def build(cls, vectors: ArrayLike, ids: Sequence[str]) -> ExactIndex:
        """Take a catalogue.

        Args:
            vectors: shape ``(items, dimension)``.
            ids: one identifier an item, no two the same.

        Raises:
            DataError: no items, another shape, numbers that are not finite, identifiers that do not fit.
            MissingExtraError: faiss is not installed.
        """
        matrix = checked_matrix(vectors, "item vectors")
        names = list(ids)
        if not len(matrix):
            raise DataError("there are no items to search", remedy="give at least one item")
        if len(names) != len(matrix):
            raise DataError(
                f"{len(names)} identifiers for {len(matrix)} vectors", remedy="give each vector one"
            )
        seen: dict[str, int] = {}
        for row, name in enumerate(names):
            if seen.setdefault(name, row) != row:
                raise DataError(
                    f"the identifier stands on rows {seen[name] + 1} and {row + 1}",
                    value=name,
                    remedy="give each item its own",
                )
        return cls(matrix, names, Scan.build(matrix))

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return int(self._vectors.shape[1])

    def search(
        self, queries: ArrayLike, k: int, *, exclude: Sequence[Collection[str]] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
        """The ``k`` best items for each query.

        Args:
            queries: shape ``(queries, dimension)``.
            k: how many; more than there are items gives all items.
            exclude: for each query, identifiers to leave out; unknown ones have no effect.

        Returns:
            scores and identifiers, both ``(queries, min(k, items))``. Where exclusions leave too few items, a
            row ends in score ``-inf`` and identifier None.

        Raises:
            DataError: another dimension, NaN or infinite numbers, ``exclude`` of another length.
            UsageError: ``k`` below 1.
        """
        if k < 1:
            raise UsageError(f"k is {k}", remedy="ask for 1 item or more")
        matrix = checked_matrix(queries, "queries", self.dimension)
        if exclude is not None and len(exclude) != len(matrix):
            raise DataError(
                f"exclude has {len(exclude)} entries for {len(matrix)} queries", remedy="one a query"
            )
        width = min(k, len(self))
        scores = np.full((len(matrix), width), -np.inf)
        ids = np.full((len(matrix), width), None, dtype=object)
        for start in range(0, len(matrix), _QUERIES_AT_ONCE):
            block = matrix[start : start + _QUERIES_AT_ONCE]
            banned = [
                {self._row[name] for name in names if name in self._row}
                for names in (exclude[start : start + len(block)] if exclude is not None else ())
            ] or [set() for _ in block]
            wanted = [min(len(self), width + len(out)) for out in banned]
            for offset, (row_scores, rows) in enumerate(self._scan.search(block, wanted)):
                kept = [i for i, row in enumerate(rows.tolist()) if row not in banned[offset]][:width]
                scores[start + offset, : len(kept)] = row_scores[kept]
                ids[start + offset, : len(kept)] = [self._ids[rows[i]] for i in kept]
        return scores, ids


def checked_matrix(values: ArrayLike, what: str, dimension: int | None = None) -> Vectors:
    """Values as finite float32 rows of one length.

    Raises:
        DataError: they are not.
    """
    matrix = np.ascontiguousarray(values, dtype=np.float32)
    if matrix.ndim != 2 or (dimension is not None and matrix.shape[1] != dimension) or not matrix.shape[1]:
        wanted = "(rows, dimension)" if dimension is None else f"(rows, {dimension})"
        raise DataError(
            f"{what} have shape {matrix.shape}, not {wanted}", remedy="encode with the same model"
        )
    bad = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if bad.size:
        raise DataError(
            f"{what}: {bad.size} of {len(matrix)} rows hold NaN or infinite numbers",
            line=int(bad[0]) + 1,
            remedy="look at the model that made them",
        )
    return matrix
