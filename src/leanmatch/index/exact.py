"""Exact maximum-inner-product search (FAISS ``IndexFlatIP``), with ties in a fixed order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leanmatch.errors import DataError, MissingExtraError, UsageError
from leanmatch.types import Vectors

SCORE_DECIMALS = 9
"""Scores that agree to this many decimals are a tie."""

_MARGIN = 16
_FLOAT32_SLACK = 1e-5
_QUERIES_AT_ONCE = 64


class ExactIndex:
    """Every item is compared with every query: score ``q . v``, the cosine where both are normalized.

    Build it with :meth:`build`. FAISS finds candidates in float32; their scores are then recomputed in
    float64, so that order does not hang on the processor's summation order: higher score first, equal
    scores in the order of the catalogue.

    >>> index = ExactIndex.build([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], ["a", "b", "c"])
    >>> scores, ids = index.search([[1.0, 0.0]], k=2)
    >>> scores.tolist(), ids.tolist()
    ([[1.0, 1.0]], [['a', 'c']])
    """

    def __init__(self, vectors: Vectors, ids: list[str], flat: Any) -> None:
        """Use :meth:`build`, which checks its input."""
        self._vectors, self._ids, self._flat = vectors, ids, flat
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
        matrix = _matrix(vectors, "item vectors")
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
        try:
            import faiss
        except ModuleNotFoundError as error:
            raise MissingExtraError("faiss-cpu", "serve", "searching a catalogue") from error
        flat = faiss.IndexFlatIP(matrix.shape[1])
        flat.add(matrix)
        return cls(matrix, names, flat)

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
        matrix = _matrix(queries, "queries", self.dimension)
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
            for offset, rows in enumerate(self._candidates(block, width, banned)):
                exact = self._vectors[rows].astype(np.float64) @ block[offset].astype(np.float64)
                order = np.lexsort((rows, -np.round(exact, SCORE_DECIMALS)))[:width]
                scores[start + offset, : len(order)] = exact[order]
                ids[start + offset, : len(order)] = [self._ids[rows[one]] for one in order]
        return scores, ids

    def _candidates(self, block: Vectors, width: int, banned: list[set[int]]) -> list[NDArray[np.int64]]:
        """Rows that surely hold each query's best ``width``: fetched until the tail is clearly worse."""
        wanted = width + max(len(rows) for rows in banned)
        fetch = min(len(self), wanted + _MARGIN)
        while True:
            scores, rows = self._flat.search(block, fetch)
            # ties at the end of what is wanted: fetch more, to order them by the catalogue
            slack = _FLOAT32_SLACK * np.maximum(1.0, np.abs(scores[:, 0]))
            settled = scores[:, min(wanted, fetch) - 1] - scores[:, -1] > slack
            if fetch == len(self) or settled.all():
                break
            fetch = min(len(self), 4 * fetch)
        return [
            row if not out else row[~np.isin(row, list(out))] for row, out in zip(rows, banned, strict=True)
        ]


def _matrix(values: ArrayLike, what: str, dimension: int | None = None) -> Vectors:
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
