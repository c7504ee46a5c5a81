"""The four similarities of sentence-transformers, on numpy arrays or torch tensors, without importing either
more than is there.

For rows ``a`` and ``b``: ``cosine`` is ``a b / (|a| |b|)``, ``dot`` is ``a b``, ``euclidean`` is
``-|a - b|_2`` and ``manhattan`` is ``-|a - b|_1``. Higher is more alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import UsageError
from leanmatch.models.surface.outputs import is_tensor, to_array

Floats = NDArray[np.floating[Any]]


def similarity(name: str, first: Any, second: Any) -> Any:
    """Score every row of ``first`` against every row of ``second``.

    Args:
        name: a key of :data:`SIMILARITIES`.
        first, second: arrays, tensors or lists of them, shape ``(rows, dimension)`` or ``(dimension,)``.

    Returns:
        shape ``(rows of first, rows of second)``: a ``torch.Tensor``, as sentence-transformers gives; a numpy
        array where torch is not installed.

    Raises:
        UsageError: vectors of different lengths, or no such similarity.
    """
    left, right = np.atleast_2d(to_array(first)), np.atleast_2d(to_array(second))
    _check_lengths(left, right)
    return _returned(_ALL[_known(name)](left, right), first)


def similarity_pairwise(name: str, first: Any, second: Any) -> Any:
    """Score each row of ``first`` against the same row of ``second``; otherwise as :func:`similarity`.

    Returns:
        shape ``(rows,)``.
    """
    left, right = to_array(first), to_array(second)
    _check_lengths(left, right)
    if left.shape != right.shape:
        raise UsageError(
            f"pairs of {left.shape[0]} and {right.shape[0]} vectors", remedy="give as many of each"
        )
    return _returned(np.asarray(_PAIRS[_known(name)](left, right)), first)


def _known(name: str) -> str:
    if name not in _ALL:
        raise UsageError(f"there is no similarity {name!r}", remedy=f"one of {', '.join(_ALL)}")
    return name


def _check_lengths(left: Floats, right: Floats) -> None:
    if left.shape[-1] != right.shape[-1]:
        raise UsageError(
            f"vectors of {left.shape[-1]} and {right.shape[-1]} dimensions",
            remedy="encode both sides with the same model and truncate_dim",
        )


def _returned(scores: Floats, like: Any) -> Any:
    try:
        import torch
    except ModuleNotFoundError:
        return scores
    tensor = torch.from_numpy(np.ascontiguousarray(scores))
    return tensor.to(like.device) if is_tensor(like) else tensor


def _unit(rows: Floats) -> Floats:
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12))


def _euclidean(left: Floats, right: Floats) -> Floats:
    a, b = left.astype(np.float64), right.astype(np.float64)
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
    return np.asarray(-np.sqrt(np.maximum(squares, 0))).astype(left.dtype)


def _manhattan(left: Floats, right: Floats) -> Floats:
    scores = np.empty((len(left), len(right)), left.dtype)
    for row, vector in enumerate(left):
        scores[row] = -np.abs(right - vector).sum(axis=1)
    return scores


_ALL: Mapping[str, Callable[[Floats, Floats], Any]] = MappingProxyType(
    {
        "cosine": lambda a, b: _unit(a) @ _unit(b).T,
        "dot": lambda a, b: a @ b.T,
        "euclidean": _euclidean,
        "manhattan": _manhattan,
    }
)
_PAIRS: Mapping[str, Callable[[Floats, Floats], Any]] = MappingProxyType(
    {
        "cosine": lambda a, b: (_unit(a) * _unit(b)).sum(axis=-1),
        "dot": lambda a, b: (a * b).sum(axis=-1),
        "euclidean": lambda a, b: -np.sqrt(((a - b) ** 2).sum(axis=-1)),
        "manhattan": lambda a, b: -np.abs(a - b).sum(axis=-1),
    }
)
SIMILARITIES = tuple(_ALL)
"""Names of the similarities."""
