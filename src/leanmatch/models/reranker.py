"""Rerankers: models that read a query and an item together, for the first items of a search alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import DataError, MissingExtraError, ModelError, UsageError
from leanmatch.models.surface.call import CardData, at_least_1, progress
from leanmatch.models.surface.outputs import to_array, to_tensor

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

RERANK_TOP = 50
"""So many items of a search are reranked by default."""

RERANK_WEIGHT = 0.5
"""Weight of the reranker's opinion beside the search's own, by default."""

BATCH_PAIRS = 64
WINDOW_PAIRS = 4096
"""``predict`` scores so many pairs at a time, and moves its bar after each."""


class Reranker(Protocol):
    """What reorders the items of a search."""

    name: str

    def scores(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """How well each query and item go together, higher is better, shape ``(pairs,)``."""
        ...

    def logits(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """What the scores are made of by the model's activation; the scores where it has none."""
        ...


def check_reranking(top: int, weight: float) -> None:
    """Refuse a number of items below 1, or a weight outside of 0 to 1.

    Raises:
        UsageError: one of them.
    """
    if top < 1:
        raise UsageError(f"rerank_top is {top}", remedy="give 1 or more")
    if not 0 <= weight <= 1:
        raise UsageError(f"rerank_weight is {weight}", remedy="give a number from 0 to 1")


def reranking_scores(
    reranker: Reranker,
    pairs: Sequence[tuple[str, str]],
    found: Sequence[NDArray[np.floating[Any]]],
    weight: float = RERANK_WEIGHT,
) -> list[NDArray[np.float64]]:
    """What the items of each query are ordered by, best is highest.

    ``weight * z(logits) + (1 - weight) * z(found)``, where ``z`` subtracts the mean over a query's items and
    divides by their standard deviation. With weight 1: the reranker's scores as they are.

    Args:
        reranker: scores pairs.
        pairs: a query and an item each: all items of the first query, then those of the second, and so on.
        found: for each query the scores of its items in the search.
        weight: of the reranker, 0 to 1.
    """
    own = reranker.scores(pairs) if weight == 1 else reranker.logits(pairs)
    parts = np.split(own, np.cumsum([len(scores) for scores in found])[:-1]) if found else []
    if weight == 1:
        return parts
    return [
        weight * _standardized(part) + (1 - weight) * _standardized(scores)
        for part, scores in zip(parts, found, strict=True)
    ]


def _standardized(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    values = np.asarray(scores, np.float64)
    if not values.size or np.ptp(values) == 0:
        return np.zeros(len(values))
    return np.asarray((values - values.mean()) / values.std(), np.float64)


class PairModel(ABC):
    """``predict`` and ``rank`` as a ``CrossEncoder`` of sentence-transformers has them, for models of pairs.

    Attributes:
        name: the folder or name it was loaded from.
    """

    name: str

    @abstractmethod
    def scores(self, pairs: Sequence[tuple[str, str]], batch_size: int = BATCH_PAIRS) -> NDArray[np.float64]:
        """See :class:`Reranker`; ``batch_size`` is the number of pairs in a forward pass."""

    @abstractmethod
    def logits(self, pairs: Sequence[tuple[str, str]], batch_size: int = BATCH_PAIRS) -> NDArray[np.float64]:
        """What the classifier gives before the activation, shape ``(pairs,)``."""

    @cached_property
    def model_card_data(self) -> CardData:
        """Where evaluators of sentence-transformers leave their results."""
        return CardData()

    def predict(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Callable[[Any], Any] | None = None,
        apply_softmax: bool | None = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
    ) -> Any:
        """Scores of pairs, higher is better: float32 ``(pairs,)``; one number for one pair.

        Args:
            inputs: pairs of a query and an item, or one pair.
            prompt_name, prompt: must be None.
            batch_size: pairs in a forward pass.
            show_progress_bar: a bar on stderr.
            activation_fn: takes a float32 tensor of logits, and needs torch; None is the model's own.
            apply_softmax: changes nothing, since each pair has one score.
            convert_to_numpy: False gives a list of tensors.
            convert_to_tensor: one tensor.

        Raises:
            DataError: an input that is no pair of texts.
            UsageError: a prompt; ``batch_size`` below 1.
            MissingExtraError: tensors, and torch is not installed.
        """
        if prompt is not None or prompt_name is not None:
            found = prompt_name if prompt is None else prompt
            raise UsageError(
                f"rerankers put no prompt before a pair; {found!r:.80} was given",
                remedy="leave it out, or use CrossEncoder of sentence-transformers",
            )
        given = list(inputs)
        single = bool(given) and isinstance(given[0], str)
        pairs = _pairs([given] if single else given)
        size = at_least_1(batch_size, "batch_size")
        parts = []
        with progress(len(pairs), bool(show_progress_bar), "scoring", "pairs") as bar:
            for start in range(0, len(pairs), WINDOW_PAIRS):
                some = pairs[start : start + WINDOW_PAIRS]
                parts.append(self._predicted(some, size, activation_fn))
                bar.update(len(some))
        scores = np.concatenate([np.zeros(0, np.float32), *parts])
        if convert_to_numpy and not convert_to_tensor:
            return scores[0] if single else scores
        tensor = to_tensor(scores, "cpu", "predict without convert_to_numpy")
        if single:
            return tensor[0]
        return tensor if convert_to_tensor else list(tensor)

    def _predicted(
        self, pairs: list[tuple[str, str]], batch_size: int, activation_fn: Callable[[Any], Any] | None
    ) -> NDArray[np.float32]:
        if activation_fn is None:
            return np.asarray(self.scores(pairs, batch_size), np.float32)
        logits = to_tensor(np.asarray(self.logits(pairs, batch_size), np.float32), "cpu", "activation_fn")
        return np.asarray(to_array(activation_fn(logits)), np.float32)

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        **options: Any,
    ) -> list[dict[str, Any]]:
        """Documents from best to worst: their number (``corpus_id``), ``score`` and, if asked for, ``text``.

        Args:
            query: one text.
            documents: the texts to order.
            top_k: how many are returned, None for all.
            return_documents: adds the texts.
            options: of :meth:`predict`.
        """
        texts = list(documents)
        scores = self.predict([(query, text) for text in texts], **options)
        results = [
            {"corpus_id": row, "score": float(scores[row])}
            | ({"text": texts[row]} if return_documents else {})
            for row in np.argsort(-scores, kind="stable").tolist()
        ]
        return results if top_k is None else results[: at_least_1(top_k, "top_k")]


class TorchReranker(PairModel):
    """A ``CrossEncoder`` of sentence-transformers.

    Attributes:
        name: the folder or name it was loaded from.
    """

    def __init__(self, model: CrossEncoder, name: str) -> None:
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
        self._model = model

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

    def scores(self, pairs: Sequence[tuple[str, str]], batch_size: int = BATCH_PAIRS) -> NDArray[np.float64]:
        """See :class:`Reranker`.

        Raises:
            ModelError: the model gives NaN or infinite numbers.
        """
        return self._values(pairs, batch_size, None)

    def logits(self, pairs: Sequence[tuple[str, str]], batch_size: int = BATCH_PAIRS) -> NDArray[np.float64]:
        """See :class:`PairModel`."""
        return self._values(pairs, batch_size, lambda logits: logits)

    def _values(
        self, pairs: Sequence[tuple[str, str]], batch_size: int, activation_fn: Callable[[Any], Any] | None
    ) -> NDArray[np.float64]:
        if not pairs:
            return np.zeros(0)
        values = self._model.predict(
            list(pairs), batch_size=batch_size, show_progress_bar=False, activation_fn=activation_fn
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


def _pairs(inputs: Any) -> list[tuple[str, str]]:
    pairs = []
    for row, pair in enumerate(inputs, 1):
        texts = pair if isinstance(pair, list | tuple) else ()
        if len(texts) != 2 or not all(isinstance(text, str) for text in texts):
            raise DataError(
                "an input is no pair of texts", line=row, value=pair, remedy="give [query, item] for each"
            )
        pairs.append((texts[0], texts[1]))
    return pairs
