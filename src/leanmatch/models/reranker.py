"""Rerankers: models that read a query and an item together, for the first items of a search alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

RERANK_TOP = 50
"""So many items of a search are reranked by default."""


class Reranker(Protocol):
    """What reorders the items of a search."""

    name: str

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """How well each query and item go together, higher is better, shape ``(pairs,)``."""
        ...


class TorchReranker:
    """A ``CrossEncoder`` of sentence-transformers.

    Attributes:
        name: the folder or name it was loaded from.
    """

    def __init__(self, model: CrossEncoder, name: str, batch_size: int = 32) -> None:
        """Take a model that is in memory; :func:`leanmatch.runtime.load_reranker` loads one.

        Raises:
            ModelError: it has more than one label, as classifiers of pairs have.
        """
        labels = getattr(model, "num_labels", 1)
        if labels != 1:
            raise ModelError(
                f"{name} gives {labels} scores a pair, a reranker gives one",
                remedy="name a cross-encoder with one label",
            )
        self.name = name
        self._model, self._batch_size = model, batch_size

    @classmethod
    def load(cls, name_or_folder: str, device: str = "auto") -> TorchReranker:
        """Load a model.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            ModelError: there is no such model.
        """
        try:
            from sentence_transformers import CrossEncoder
        except ModuleNotFoundError as error:
            raise MissingExtraError("sentence-transformers", "train", "this reranker") from error
        try:
            model = CrossEncoder(name_or_folder, device=None if device == "auto" else device)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ModelError(
                f"the reranker {name_or_folder} cannot be loaded: {error}"[:400],
                remedy="name a cross-encoder of sentence-transformers, or its folder",
            ) from error
        return cls(model, name_or_folder)

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """See :class:`Reranker`.

        Raises:
            ModelError: the model gives NaN or infinite numbers.
        """
        if not pairs:
            return np.zeros(0)
        values = self._model.predict(
            list(pairs), batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True
        )
        return checked_scores(values, len(pairs), self.name)


def checked_scores(values: Any, pairs: int, name: str) -> NDArray[np.float64]:
    """Scores of a reranker as float64, shape ``(pairs,)``.

    Raises:
        ModelError: another shape, or NaN or infinite numbers.
    """
    scores = np.asarray(values, np.float64)
    if scores.shape != (pairs,):
        raise ModelError(f"{name} gave scores of shape {scores.shape} for {pairs} pairs", remedy="one a pair")
    if not np.isfinite(scores).all():
        raise ModelError(f"{name} gave NaN or infinite scores", remedy="use another reranker")
    return scores
