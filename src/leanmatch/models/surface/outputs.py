"""Vectors in the form that a caller of ``encode`` asks for: 8-bit or binary codes, torch tensors, one row."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import MissingExtraError, UsageError
from leanmatch.types import Vectors

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")
"""Of the vectors that ``encode`` returns, as sentence-transformers names them."""
CALIBRATED = ("int8", "uint8")
"""Those whose codes depend on the smallest and largest number of each dimension over all vectors."""
_FEW = 100


def check_output_precision(precision: str | None) -> str:
    """The precision; ``float32`` for None.

    Raises:
        UsageError: no such precision.
    """
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(
            f"there is no precision {precision!r} of vectors",
            remedy=f"one of {', '.join(PRECISIONS)}; load(..., precision=) sets that of the model",
        )
    return precision or "float32"


def quantized(vectors: Vectors, precision: str) -> NDArray[Any]:
    """Vectors as codes, by the rules of ``sentence_transformers.util.quantize_embeddings``.

    - ``int8``, ``uint8``: ``floor((x - low) / step)`` with ``step = (high - low) / 255``, where ``low`` and
      ``high`` are the extremes of the dimension over these vectors; int8 less 128.
    - ``binary``, ``ubinary``: one bit a dimension, set where ``x > 0``, eight to a byte; binary less 128.

    Args:
        vectors: float32 ``(texts, dimension)``.
        precision: one of :data:`PRECISIONS`.

    Raises:
        UsageError: int8 or uint8 of a single vector, whose dimensions have no range.
    """
    if precision == "float32":
        return vectors
    if precision == "binary":
        return (np.packbits(vectors > 0, axis=-1).astype(np.int16) - 128).astype(np.int8)
    if precision == "ubinary":
        return np.packbits(vectors > 0, axis=-1)
    kind = np.int8 if precision == "int8" else np.uint8
    if not len(vectors):
        return vectors.astype(kind)
    if len(vectors) == 1:
        raise UsageError(
            f"{precision} needs the range of each dimension, and one text has none",
            remedy="encode many texts at once, or use precision='binary'",
        )
    if len(vectors) < _FEW:
        warnings.warn(
            f"the ranges of {precision} come from {len(vectors)} vectors only; they are more stable over "
            f"{_FEW} and more",
            stacklevel=4,
        )
    low = vectors.min(axis=0)
    step = (vectors.max(axis=0) - low) / 255
    codes = np.clip(np.floor((vectors - low) / np.where(step == 0, 1, step)), 0, 255)
    return np.asarray(codes - 128 if precision == "int8" else codes, kind)


def to_tensor(array: NDArray[Any], device: Any, purpose: str) -> Any:
    """A torch tensor.

    Raises:
        MissingExtraError: torch is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingExtraError("torch", "train", purpose) from error
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def is_tensor(value: Any) -> bool:
    """Whether this is a ``torch.Tensor`` (asked without loading torch)."""
    return hasattr(value, "detach") and hasattr(value, "cpu")


def to_array(vectors: Any) -> NDArray[np.floating[Any]]:
    """Arrays, tensors or lists of them as one floating-point array, at least float32."""
    if isinstance(vectors, list | tuple) and vectors and is_tensor(vectors[0]):
        array = np.stack([to_array(vector) for vector in vectors])
    elif is_tensor(vectors):
        tensor = vectors.detach().cpu()
        half = tensor.is_floating_point() and tensor.element_size() < 4  # numpy has no bfloat16
        array = np.asarray((tensor.float() if half else tensor).numpy())
    else:
        array = np.asarray(vectors)
    if np.issubdtype(array.dtype, np.floating) and array.dtype.itemsize >= 4:
        return array
    return array.astype(np.float32)
