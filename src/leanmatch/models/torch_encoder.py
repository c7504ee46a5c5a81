"""Texts to vectors, with what belongs to it: order, duplicates, normalization, provenance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmatch.errors import DataError, ModelError, UsageError
from leanmatch.models.adapter import evaluation_mode
from leanmatch.models.encoding_bar import encoding_bar
from leanmatch.models.prompts import DOCUMENT, QUERY, PromptOptions, Prompts
from leanmatch.models.roles import roles_differ
from leanmatch.models.tokens import TokenCounts, TokenTally, count_model_tokens
from leanmatch.types import JsonValue, Vectors

if TYPE_CHECKING:
    from pathlib import Path

    from sentence_transformers import SentenceTransformer


class TorchEncoder:
    """A loaded matcher as a function from texts to L2-normalized float32 vectors.

    An instance is a :data:`leanmatch.types.EncodeFunction`. Make one with
    ``leanmatch.load(name, runtime="torch")``, or from a model in memory with :meth:`from_model`.

    Attributes:
        name: the folder or name it was loaded from.
        dimension: length of the vectors.
        provenance: what ``leanmatch.json`` says, None where there is none.
        folder: where its files lie, None for a model that is only in memory.
        precision: ``torch``: sentence-transformers computes in float32.
    """

    precision = "torch"

    def __init__(
        self,
        model: SentenceTransformer,
        *,
        name: str,
        provenance: dict[str, JsonValue] | None = None,
        folder: Path | None = None,
    ) -> None:
        self._model = model
        self.name = name
        self.provenance = provenance
        self.folder = folder
        self.dimension = _dimension(model)

    @property
    def model(self) -> SentenceTransformer:
        """The model underneath."""
        return self._model

    @property
    def prompts(self) -> Prompts:
        """What goes before queries, documents and other texts."""
        return Prompts.from_model(self._model)

    def set_prompts(self, options: PromptOptions) -> None:
        """Use other prompts for queries and documents than the model's own; the model keeps them.

        Raises:
            UsageError: a name that the model does not have.
        """
        set_model_prompts(self._model, options)

    @property
    def roles_differ(self) -> bool:
        """Whether a text has another vector as a query than as a document."""
        return roles_differ(self._model)

    @classmethod
    def from_model(cls, model: SentenceTransformer, *, name: str) -> TorchEncoder:
        """Wrap a model that is in memory already. It is put in evaluation mode only while it encodes."""
        return cls(model, name=name)

    def encode(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 64,
        normalize: bool = True,
        show_progress: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        tally: TokenTally | None = None,
    ) -> Vectors:
        """Encode texts; each distinct text once, in the order of length so that batches hold little padding.

        A text without any known token may give a zero vector; it stays zero.

        Args:
            texts: any number of texts, none included.
            batch_size: texts a forward pass.
            normalize: divide by the L2 norm.
            show_progress: a bar on stderr.
            prompt_name: the named prompt to put before each text; the model's default prompt where neither
                this nor ``prompt`` is given.
            prompt: the prompt itself.
            tally: gets the token counts of the distinct texts.

        Returns:
            shape ``(len(texts), dimension)``, rows in the order of ``texts``.

        Raises:
            DataError: an entry that is not text.
            ModelError: the model gives NaN or infinite numbers.
            UsageError: ``batch_size`` below 1, one string in place of a list, or no such prompt.
        """
        resolved = self.prompts.resolve(prompt_name, prompt)
        return self._encode(None, texts, resolved, batch_size, normalize, show_progress, tally)

    def _encode(
        self,
        role: str | None,
        texts: Sequence[str],
        prompt: str,
        batch_size: int = 64,
        normalize: bool = True,
        show_progress: bool = False,
        tally: TokenTally | None = None,
    ) -> Vectors:
        if isinstance(texts, str):
            raise UsageError(f"encode was given one string, {texts!r:.60}", remedy="give a list of texts")
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}", remedy="give 1 or more")
        rows: dict[str, int] = {}
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise DataError(
                    f"a text is a {type(text).__name__}", line=row + 1, value=text, remedy="give str"
                )
            rows.setdefault(text, len(rows))
        if not rows:
            return np.zeros((0, self.dimension), dtype=np.float32)
        if tally is not None:
            tally.add(count_model_tokens(self._model, [prompt + text for text in rows]))
        # The model's own methods batch by length; a Router and lengths by task see the role.
        encode = getattr(self._model, f"encode_{role}" if role else "encode", self._model.encode)
        with evaluation_mode(self._model), encoding_bar(self._model, len(rows), shown=show_progress):
            distinct = encode(
                list(rows),
                prompt=prompt,
                batch_size=batch_size,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        vectors = _checked(np.asarray(distinct, dtype=np.float32), list(rows), self.name, normalize)
        if len(rows) == len(texts):
            return vectors
        return vectors[[rows[text] for text in texts]]

    def encode_query(self, texts: Sequence[str], **options: Any) -> Vectors:
        """:meth:`encode` for queries: with their prompt, where no other is given."""
        return self._encode(QUERY, texts, **self.prompts.for_role(QUERY, options))

    def encode_document(self, texts: Sequence[str], **options: Any) -> Vectors:
        """:meth:`encode` for documents: with their prompt, where no other is given."""
        return self._encode(DOCUMENT, texts, **self.prompts.for_role(DOCUMENT, options))

    def count_tokens(
        self, texts: Sequence[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> TokenCounts:
        """How many tokens the model reads of the texts, and how many it does not because a text is too long.

        Args:
            texts: any number of texts; each counts, repeated ones too.
            prompt_name, prompt: as in :meth:`encode`.
        """
        resolved = self.prompts.resolve(prompt_name, prompt)
        return count_model_tokens(self._model, [resolved + text for text in texts])

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """:meth:`encode` with its defaults."""
        return self.encode(texts)

    def __repr__(self) -> str:
        return f"TorchEncoder({self.name!r}, dimension={self.dimension})"


def set_model_prompts(model: SentenceTransformer, options: PromptOptions) -> None:
    """Give a ``SentenceTransformer`` other prompts for queries and documents; saving it keeps them.

    Raises:
        UsageError: a name that the model does not have.
    """
    model.prompts = dict(Prompts.from_model(model).overridden(options).named)


def _checked(vectors: Vectors, texts: list[str], name: str, normalize: bool) -> Vectors:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise ModelError(
            f"{name} gives NaN or infinite numbers for {bad.size} of {len(texts)} texts, the first being "
            f"{texts[bad[0]]!r:.80}",
            remedy="use another model: this one's weights are damaged",
        )
    if not normalize:
        return np.ascontiguousarray(vectors)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(norms > 0, norms, 1.0), dtype=np.float32)


def _dimension(model: SentenceTransformer) -> int:
    newer = getattr(model, "get_embedding_dimension", None)
    dimension = newer() if newer is not None else model.get_sentence_embedding_dimension()
    if dimension is None:
        raise ModelError("the model does not say how long its vectors are", remedy="use a text encoder")
    return int(dimension)
