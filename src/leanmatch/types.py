"""Names for the shapes of things that several layers pass to one another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vectors: TypeAlias = NDArray[np.float32]
"""Embeddings, one row a text, shape ``(texts, dimension)``."""

EncodeFunction: TypeAlias = Callable[[Sequence[str]], Vectors]
"""Texts in, L2-normalized vectors out, in the same order. All that evaluation and search need of a model."""

JsonValue: TypeAlias = Any
"""What ``json.dumps`` takes."""
