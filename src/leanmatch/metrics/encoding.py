"""Texts to vectors, checked: evaluation trusts no encoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import ModelError
from leanmatch.models import RoleEncoder
from leanmatch.types import EncodeFunction, Vectors

NORM_TOLERANCE = 1e-2
"""How far from 1 a norm may be (half precision is off by 1e-3); a norm of 0 is a text without tokens."""


class SideVectors(NamedTuple):
    """Vectors of a table's distinct texts as queries and as documents, each ``(texts, dimension)``.

    The same array twice where the model encodes both alike; else a text that is never a query has zeros
    among the queries, and likewise for documents.
    """

    queries: Vectors
    documents: Vectors

    def pair_scores(self, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.float64]:
        """Inner products of queries ``left[i]`` and documents ``right[i]``, shape ``(pairs,)``, in blocks."""
        step = 8192
        parts = [
            np.einsum(
                "ij,ij->i",
                self.queries[left[i : i + step]],
                self.documents[right[i : i + step]],
                dtype=np.float64,
            )
            for i in range(0, len(left), step)
        ]
        return np.concatenate(parts) if parts else np.empty(0)


def encode_sides(
    encode: Any,
    texts: Sequence[str],
    queries: NDArray[np.int64],
    documents: NDArray[np.int64],
    *,
    name: str = "model",
) -> SideVectors:
    """Encode a table's distinct texts, each in the roles that it has; see :func:`encode_checked`.

    Args:
        encode: an encoder with ``encode_query`` and ``encode_document``, or a function from texts to vectors.
        texts: the distinct texts.
        queries: numbers of those that are queries.
        documents: numbers of those that are documents.
        name: what to call the model.
    """
    encoder = RoleEncoder(encode)
    if not encoder.roles_differ:
        both = encode_checked(encoder.encode_query, texts, name=name)
        return SideVectors(both, both)
    sides = []
    for function, rows in ((encoder.encode_query, queries), (encoder.encode_document, documents)):
        part = encode_checked(function, [texts[row] for row in rows.tolist()], name=name)
        vectors = np.zeros((len(texts), part.shape[1]), np.float32)
        vectors[rows] = part
        sides.append(vectors)
    return SideVectors(*sides)


def encode_checked(encode: EncodeFunction, texts: Sequence[str], *, name: str = "model") -> Vectors:
    """Encode the texts and check the answer.

    A text that the encoder knows no token of may have a vector of zeros: it scores 0 with everything. Vectors
    that are not normalized are refused, not repaired: the model would be judged by another score than it was
    made for.

    Returns:
        float32, shape ``(texts, dimension)``, contiguous.

    Raises:
        ModelError: not an array of one row a text, a value that is not finite, or a norm that is neither 1
        nor 0.
    """
    vectors = np.asarray(encode(texts))
    if vectors.ndim != 2 or len(vectors) != len(texts) or not np.issubdtype(vectors.dtype, np.floating):
        raise ModelError(
            f"{name} gave shape {vectors.shape} and type {vectors.dtype} for {len(texts):,} texts",
            remedy="an encode function returns floating-point vectors, one row a text, in their order",
        )
    vectors = np.ascontiguousarray(vectors, np.float32)
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise ModelError(
            f"{name} gave NaN or infinity for {np.count_nonzero(~finite):,} of {len(texts):,} texts, "
            f"the first is {_shortened(texts[int(np.argmin(finite))])}",
            remedy="check the model: training may have diverged, or half precision has overflowed",
        )
    norms = np.linalg.norm(vectors, axis=1)
    bad = (np.abs(norms - 1) > NORM_TOLERANCE) & (norms > 0)
    if bad.any():
        raise ModelError(
            f"{name} gave vectors that are not L2-normalized: {np.count_nonzero(bad):,} of {len(texts):,}, "
            f"norms from {norms.min():.3g} to {norms.max():.3g}",
            remedy="normalize them (sentence-transformers: encode(..., normalize_embeddings=True))",
        )
    return vectors


def _shortened(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 80 else shown[:77] + "..."
