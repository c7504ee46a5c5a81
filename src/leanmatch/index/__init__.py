"""Item catalogues: exact search, recommendations, stored item vectors. No torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leanmatch.index.exact import ExactIndex as ExactIndex
    from leanmatch.index.recommender import Recommendation as Recommendation
    from leanmatch.index.recommender import Recommender as Recommender
    from leanmatch.index.vectors import VectorFile as VectorFile
    from leanmatch.index.vectors import read_vectors as read_vectors
    from leanmatch.index.vectors import write_vectors as write_vectors

_HOMES = {
    "ExactIndex": "exact",
    "Recommendation": "recommender",
    "Recommender": "recommender",
    "VectorFile": "vectors",
    "read_vectors": "vectors",
    "write_vectors": "vectors",
}
__all__ = [
    "ExactIndex",
    "Recommendation",
    "Recommender",
    "VectorFile",
    "read_vectors",
    "write_vectors",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
