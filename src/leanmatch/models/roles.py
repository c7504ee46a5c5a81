"""Queries and documents: which function gives a text its vector on which side of a pair.

Anchors are queries; positives, negatives and items are documents. Most models treat both alike; those with
prompts for one of them do not, and then a text that stands on both sides has two vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from leanmatch.errors import UsageError
from leanmatch.models.prompts import DOCUMENT, QUERY, Prompts
from leanmatch.models.surface.call import normalized
from leanmatch.models.surface.encoder import SentenceEncoder
from leanmatch.types import EncodeFunction, Vectors


class ByRole(Protocol):
    """Two functions from texts to vectors of length 1 (or 0, for a text without a known token)."""

    @property
    def roles_differ(self) -> bool:
        """Whether a text has another vector as a query than as a document."""

    def encode_query(self, texts: Sequence[str]) -> Vectors:
        """Vectors of queries, float32 ``(texts, dimension)``."""

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Vectors of documents, likewise."""


class RoleEncoder:
    """An encoder, or any function from texts to vectors, with fixed options and one vector a distinct text.

    Args:
        encode: a :class:`SentenceEncoder`, a ``SentenceTransformer``, or a function from texts to vectors,
            which treats queries and documents alike.
        options: of each call of the encoder's methods.
    """

    def __init__(self, encode: Any, **options: Any) -> None:
        self._encode, self._options = encode, options
        if isinstance(encode, RoleEncoder):
            self._encode, self._options = encode._encode, {**encode._options, **options}
        self._has_roles = hasattr(self._encode, "encode_query") and hasattr(self._encode, "encode_document")
        self._options = {**unit_length(self._encode), **self._options}

    @property
    def roles_differ(self) -> bool:
        """Whether a text has another vector as a query than as a document."""
        return self._has_roles and roles_differ(self._encode)

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Vectors of texts that are neither queries nor documents."""
        return self._run(getattr(self._encode, "encode", None) if self._has_roles else self._encode, texts)

    def encode_query(self, texts: Sequence[str]) -> Vectors:
        """Vectors of queries."""
        return self._run(self._encode.encode_query if self._has_roles else self._encode, texts)

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Vectors of documents."""
        return self._run(self._encode.encode_document if self._has_roles else self._encode, texts)

    def of_role(self, role: str) -> EncodeFunction:
        """The function of one role."""
        return {QUERY: self.encode_query, DOCUMENT: self.encode_document}[role]

    def _run(self, method: Any, texts: Sequence[str]) -> Vectors:
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        vectors: Vectors = np.asarray(method(list(rows), **self._options))
        return vectors if len(rows) == len(texts) else vectors[[rows[text] for text in texts]]


class Prefix:
    """An encoder's first dimensions, normalized again: what its model gives with ``truncate_dim``."""

    def __init__(self, encoder: ByRole, dimensions: int) -> None:
        self._encoder, self.dimensions = encoder, dimensions

    @property
    def roles_differ(self) -> bool:
        """Whether a text has another vector as a query than as a document."""
        return self._encoder.roles_differ

    def encode_query(self, texts: Sequence[str]) -> Vectors:
        """Vectors of queries."""
        return normalized(self._encoder.encode_query(texts)[:, : self.dimensions])

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Vectors of documents."""
        return normalized(self._encoder.encode_document(texts)[:, : self.dimensions])


def keep_dimensions(encoder: Any, dimensions: int | None) -> Any:
    """The encoder, which keeps so many dimensions of its vectors from now on; None changes nothing.

    Raises:
        UsageError: fewer than 1, or more than the model has.
    """
    if dimensions is not None:
        check_dimensions(encoder, (dimensions,))
        encoder.truncate_dim = dimensions
    return encoder


def check_dimensions(encoder: Any, dimensions: Sequence[int]) -> None:
    """Refuse numbers of dimensions that a model does not have.

    Raises:
        UsageError: fewer than 1, or more than the model has.
    """
    whole = int(encoder.whole_dimension)
    for number in dimensions:
        if not 1 <= number <= whole:
            raise UsageError(
                f"dimensions is {number}, and the vectors of {encoder.name} have {whole} dimensions",
                remedy=f"give 1 to {whole}",
            )


def unit_length(model: Any) -> dict[str, Any]:
    """Options of a model's ``encode`` with which it gives vectors of length 1 and shows no bar."""
    if isinstance(model, SentenceEncoder) or is_sentence_transformer(model):
        return {"normalize_embeddings": True, "show_progress_bar": False}
    return {}


def is_sentence_transformer(model: Any) -> bool:
    """Whether this is a live ``SentenceTransformer`` (asked without loading torch)."""
    return hasattr(model, "modules") and hasattr(model, "encode") and hasattr(model, "tokenizer")


def roles_differ(model: Any) -> bool:
    """Whether a model gives a text another vector as a query than as a document.

    Args:
        model: a :class:`SentenceEncoder`, a ``SentenceTransformer``, or any other object: one with
            ``encode_query`` that does not say is taken to differ, a plain function is not.
    """
    if not is_sentence_transformer(model):
        return bool(getattr(model, "roles_differ", hasattr(model, "encode_query")))
    prompts = Prompts.from_model(model)
    lengths = [
        getattr(model[0], name, None) for name in ("query_length", "document_length", "query_expansion")
    ]
    routed = any(type(module).__name__ in ("Router", "Asym") for module in model)
    return prompts.query != prompts.document or routed or any(length is not None for length in lengths)
