"""The encoder on sentence-transformers and torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmatch.errors import ModelError
from leanmatch.models.adapter import evaluation_mode, tokenize
from leanmatch.models.encoding_bar import encoding_bar
from leanmatch.models.prompts import PromptOptions, Prompts
from leanmatch.models.roles import roles_differ
from leanmatch.models.surface.call import EncodeCall, checked_dimensions, checked_similarity, normalized
from leanmatch.models.surface.encoder import SentenceEncoder
from leanmatch.models.tokens import TokenCounts, count_model_tokens
from leanmatch.types import JsonValue, Vectors

if TYPE_CHECKING:
    from pathlib import Path

    from sentence_transformers import SentenceTransformer


class TorchEncoder(SentenceEncoder):
    """A ``SentenceTransformer`` as :func:`leanmatch.load` returns it. Settings are those of the model itself.

    An instance is a :data:`leanmatch.types.EncodeFunction`. Make one with
    ``leanmatch.load(name, runtime="torch")``, or from a model in memory with :meth:`from_model`.
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
        self._whole_dimension = _whole_dimension(model)

    @classmethod
    def from_model(cls, model: SentenceTransformer, *, name: str) -> TorchEncoder:
        """Wrap a model that is in memory already. It is put in evaluation mode only while it encodes."""
        return cls(model, name=name)

    @property
    def model(self) -> SentenceTransformer:
        """The model underneath."""
        return self._model

    @property
    def whole_dimension(self) -> int:
        """See :class:`SentenceEncoder`."""
        return self._whole_dimension

    @property
    def truncate_dim(self) -> int | None:
        """Leading dimensions of the vectors that are kept; None for all. Can be set."""
        return getattr(self._model, "truncate_dim", None)

    @truncate_dim.setter
    def truncate_dim(self, value: int | None) -> None:
        self._model.truncate_dim = checked_dimensions(value)

    @property
    def prompts(self) -> Prompts:
        """What goes before queries, documents and other texts, by name. A mapping sets it."""
        return Prompts.from_model(self._model)

    @prompts.setter
    def prompts(self, value: Mapping[str, str | None]) -> None:
        prompts = self.prompts.replaced(value)
        self._model.prompts, self._model.default_prompt_name = dict(prompts), prompts.default_name

    @property
    def similarity_fn_name(self) -> str:
        """How :meth:`similarity` compares vectors. Can be set."""
        return str(self._model.similarity_fn_name)

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: Any) -> None:
        self._model.similarity_fn_name = checked_similarity(value)  # type: ignore[assignment]

    @property
    def max_seq_length(self) -> Any:
        """Longest text in tokens, special ones included; longer texts are cut. Can be set."""
        return self._model.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._model.max_seq_length = value

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the sentence-transformers model."""
        return self._model.tokenizer

    @property
    def device(self) -> Any:
        """The ``torch.device`` of the model."""
        return self._model.device

    @property
    def model_card_data(self) -> Any:
        """That of the model."""
        return self._model.model_card_data

    @property
    def roles_differ(self) -> bool:
        """Whether a text has another vector as a query than as a document."""
        return roles_differ(self._model)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        """Features of texts, as the model's forward pass takes them."""
        return tokenize(self._model, texts)

    def to(self, device: Any) -> TorchEncoder:
        """Move the model."""
        self._model.to(device)
        return self

    def count_tokens(
        self, texts: Sequence[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> TokenCounts:
        """See :class:`SentenceEncoder`."""
        resolved = self.prompts.resolve(prompt_name, prompt)
        return count_model_tokens(self._model, [resolved + text for text in texts])

    def _encode_texts(self, texts: list[str], call: EncodeCall) -> Vectors:
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        if not rows:
            return np.zeros(
                (0, min(call.dimensions or self._whole_dimension, self._whole_dimension)), np.float32
            )
        if call.tally is not None:
            call.tally.add(count_model_tokens(self._model, [call.prompt + text for text in rows]))
        with encoding_bar(self._model, len(rows), shown=call.show_progress_bar):
            distinct = self._forward(list(rows), call, truncate_dim=call.dimensions, convert_to_numpy=True)
        vectors = _checked(np.asarray(distinct, dtype=np.float32), list(rows), self.name)
        if call.normalize:
            vectors = normalized(vectors)
        return vectors if len(rows) == len(texts) else vectors[[rows[text] for text in texts]]

    def _encode_other(self, texts: list[str], output_value: str | None, call: EncodeCall) -> Any:
        return self._forward(texts, call, output_value=output_value, truncate_dim=call.dimensions)

    def _forward(self, texts: list[str], call: EncodeCall, **options: Any) -> Any:
        # The model's own methods batch by length; a Router and lengths by task see the role.
        encode = getattr(self._model, f"encode_{call.role}" if call.role else "encode", self._model.encode)
        options |= {name: value for name, value in call.placement.items() if value is not None}
        with evaluation_mode(self._model), _torch_threads(call.threads):
            return encode(
                texts, prompt=call.prompt, batch_size=call.batch_size, show_progress_bar=False, **options
            )


def set_model_prompts(model: SentenceTransformer, options: PromptOptions) -> None:
    """Give a ``SentenceTransformer`` other prompts for queries and documents; saving it keeps them.

    Raises:
        UsageError: a name that the model does not have.
    """
    model.prompts = dict(Prompts.from_model(model).overridden(options))


def _checked(vectors: Vectors, texts: list[str], name: str) -> Vectors:
    bad = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if bad.size:
        raise ModelError(
            f"{name} gives NaN or infinite numbers for {bad.size} of {len(texts)} texts, the first being "
            f"{texts[bad[0]]!r:.80}",
            remedy="use another model: this one's weights are damaged",
        )
    return np.ascontiguousarray(vectors)


def model_dimension(model: SentenceTransformer) -> int:
    """Length of a model's vectors, ``truncate_dim`` observed.

    Raises:
        ModelError: the model does not say.
    """
    newer = getattr(model, "get_embedding_dimension", None)
    dimension = newer() if newer is not None else model.get_sentence_embedding_dimension()
    if dimension is None:
        raise ModelError("the model does not say how long its vectors are", remedy="use a text encoder")
    return int(dimension)


def _whole_dimension(model: SentenceTransformer) -> int:
    """Length of the vectors before ``truncate_dim``."""
    kept = getattr(model, "truncate_dim", None)
    model.truncate_dim = None
    try:
        return model_dimension(model)
    finally:
        model.truncate_dim = kept


@contextmanager
def _torch_threads(threads: int | None) -> Iterator[None]:
    if threads is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
