"""What :func:`leanmatch.load` returns, with the surface of sentence-transformers' ``SentenceTransformer``.

A runtime gives one method that encodes a list of texts; prompts, output forms, similarities and settings are
here, for all runtimes alike. Programs that were written for a ``SentenceTransformer`` in evaluation (its
evaluators, MTEB, topic models, search) run on it unchanged.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from leanmatch.errors import UsageError
from leanmatch.models.prompts import DOCUMENT, QUERY, PromptOptions, Prompts
from leanmatch.models.surface.call import BATCH_TEXTS, EncodeCall, at_least_1, checked_dimensions, progress
from leanmatch.models.surface.inputs import as_list, is_single, is_stream, windows
from leanmatch.models.surface.outputs import CALIBRATED, check_output_precision, quantized, to_tensor
from leanmatch.models.surface.similarity import similarity, similarity_pairwise
from leanmatch.models.tokens import TokenCounts, TokenTally
from leanmatch.types import JsonValue, Vectors

WINDOW_TEXTS = 8192
"""Texts that are read from a stream at a time."""
SENTENCE = "sentence_embedding"
_logger = logging.getLogger("leanmatch")


class SentenceEncoder(ABC):
    """Texts to vectors, called as a ``SentenceTransformer`` is. Make one with :func:`leanmatch.load`.

    ``encode`` and its relatives give what sentence-transformers gives for the same folder. Calling the
    object, ``encoder(texts)``, gives L2-normalized vectors.

    Attributes:
        name: the folder or name it was loaded from.
        folder: where its files lie, None for a model that is only in memory.
        precision: in which it computes.
        provenance: what ``leanmatch.json`` says, None where there is none.
    """

    name: str
    folder: Path | None
    precision: str
    provenance: dict[str, JsonValue] | None

    # What a runtime gives.

    @abstractmethod
    def _encode_texts(self, texts: list[str], call: EncodeCall) -> Vectors:
        """Vectors of checked texts, float32 ``(texts, dimensions)``."""

    @property
    @abstractmethod
    def whole_dimension(self) -> int:
        """Length of the vectors that the model's modules make, before ``truncate_dim``."""

    @property
    @abstractmethod
    def truncate_dim(self) -> int | None:
        """Leading dimensions of the vectors that are kept; None for all. Can be set."""

    @truncate_dim.setter
    @abstractmethod
    def truncate_dim(self, value: int | None) -> None: ...

    @property
    @abstractmethod
    def prompts(self) -> Prompts:
        """What goes before queries, documents and other texts, by name. A mapping sets it."""

    @prompts.setter
    @abstractmethod
    def prompts(self, value: Mapping[str, str | None]) -> None: ...

    @property
    @abstractmethod
    def similarity_fn_name(self) -> str:
        """How :meth:`similarity` compares vectors: one of cosine, dot, euclidean, manhattan. Can be set."""

    @similarity_fn_name.setter
    @abstractmethod
    def similarity_fn_name(self, value: Any) -> None: ...

    @property
    @abstractmethod
    def max_seq_length(self) -> Any:
        """Longest text in tokens, special ones included; longer texts are cut. Can be set."""

    @property
    @abstractmethod
    def tokenizer(self) -> Any:
        """What cuts texts into tokens."""

    @property
    @abstractmethod
    def device(self) -> Any:
        """Where it computes."""

    @property
    @abstractmethod
    def model_card_data(self) -> Any:
        """Where evaluators of sentence-transformers leave their results."""

    @property
    @abstractmethod
    def roles_differ(self) -> bool:
        """Whether a text has another vector as a query than as a document."""

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        """Features of texts as sentence-transformers gives them: ``input_ids``, ``attention_mask``, ..."""

    @abstractmethod
    def count_tokens(
        self, texts: Sequence[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> TokenCounts:
        """How many tokens the model reads of the texts, and how many it does not because a text is too long.

        Args:
            texts: any number of texts; each counts, repeated ones too.
            prompt_name, prompt: as in :meth:`encode`.
        """

    @abstractmethod
    def to(self, device: Any) -> SentenceEncoder:
        """Move the model; raises UsageError where the runtime has no such device."""

    def _encode_other(self, inputs: Any, output_value: str | None, call: EncodeCall) -> Any:
        """Outputs other than one vector a text.

        Raises:
            UsageError: the runtime has none.
        """
        raise UsageError(
            f"output_value {output_value!r}: this runtime gives {SENTENCE!r} only",
            remedy='load(..., runtime="torch") gives the vectors of tokens too',
        )

    # The surface.

    def encode(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = BATCH_TEXTS,
        show_progress_bar: bool | None = None,
        output_value: str | None = SENTENCE,
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        task: str | None = None,
        threads: int | None = None,
        tally: TokenTally | None = None,
        sentences: Any = None,
    ) -> Any:
        """Vectors of texts, as ``SentenceTransformer.encode`` gives them. Each distinct text is encoded once.

        Args:
            inputs: one text; a list, tuple, array or column of texts; or an iterator of texts, of which
                :data:`WINDOW_TEXTS` at a time are in memory (:meth:`encode_batches` does not keep the vectors
                either).
            prompt_name: the named prompt to put before each text; the model's default prompt where neither
                this nor ``prompt`` is given.
            prompt: the prompt itself. It goes before ``prompt_name``.
            batch_size: texts a forward pass; bounds the memory.
            show_progress_bar: a bar on stderr. None shows one where the logger ``leanmatch`` is at level INFO
                or DEBUG.
            output_value: ``sentence_embedding``; with ``runtime="torch"`` also ``token_embeddings``, or None
                for all outputs.
            precision: ``int8``, ``uint8``, ``binary`` or ``ubinary`` codes in place of float32 numbers.
            convert_to_numpy: an array; a list of tensors where neither this nor ``convert_to_tensor`` is set.
            convert_to_tensor: a ``torch.Tensor``. It goes before ``convert_to_numpy``.
            device, pool, chunk_size: as in sentence-transformers; the native runtime takes device ``cpu``.
            normalize_embeddings: divide by the L2 norm. A zero vector (no known token) stays zero.
            truncate_dim: leading dimensions to keep, in place of the model's :attr:`truncate_dim`. They are
                cut off before normalization. A number above the model's keeps all.
            task: ``query`` or ``document``, for models that treat the two differently beyond the prompt.
            threads: threads of the computation, None for all CPUs that this process may use.
            tally: gets the token counts of the distinct texts.
            sentences: what ``inputs`` was called before.

        Returns:
            shape ``(texts, dimensions)``, rows in the order of the texts; ``(dimensions,)`` for one text.

        Raises:
            DataError: an entry that is not text.
            ModelError: the model gives NaN or infinite numbers.
            UsageError: an option out of its range, or one that this runtime does not have.
            MissingExtraError: tensors are asked for, and torch is not installed.
        """
        given = inputs if sentences is None else sentences
        single = is_single(given)
        call = EncodeCall(
            role=task,
            prompt=self.prompts.resolve(prompt_name, prompt),
            batch_size=at_least_1(batch_size, "batch_size"),
            normalize=normalize_embeddings,
            dimensions=self.truncate_dim if truncate_dim is None else checked_dimensions(truncate_dim),
            show_progress_bar=_is_shown(show_progress_bar),
            threads=None if threads is None else at_least_1(threads, "threads"),
            tally=tally,
            placement={"device": device, "pool": pool, "chunk_size": chunk_size},
        )
        form = check_output_precision(precision)
        if output_value != SENTENCE:
            outputs = self._encode_other([given] if single else as_list(given), output_value, call)
            return outputs[0] if single else outputs
        if single or not is_stream(given):
            vectors = self._encode_texts([given] if single else as_list(given), call)
        else:
            parts = list(self._encode_stream(given, call)) or [self._encode_texts([], call)]
            vectors = np.concatenate(parts)
        codes = quantized(vectors, form)
        if convert_to_numpy and not convert_to_tensor:
            return codes[0] if single else codes
        tensor = to_tensor(codes, self.device, "encode without convert_to_numpy")
        if single:
            return tensor[0]
        return tensor if convert_to_tensor else list(tensor)

    def encode_query(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        """:meth:`encode` for queries: with their prompt, where no other is given."""
        if prompt_name is None and prompt is None:
            prompt = self.prompts.query
        return self.encode(inputs, prompt_name, prompt, *more, task=QUERY, **options)

    def encode_document(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        *more: Any,
        **options: Any,
    ) -> Any:
        """:meth:`encode` for documents: with their prompt, where no other is given."""
        if prompt_name is None and prompt is None:
            prompt = self.prompts.document
        return self.encode(inputs, prompt_name, prompt, *more, task=DOCUMENT, **options)

    def encode_batches(
        self, inputs: Iterable[str], *, window: int = WINDOW_TEXTS, **options: Any
    ) -> Iterator[Any]:
        """Vectors of a stream of texts, which is read and encoded ``window`` texts at a time.

        Neither the texts nor the vectors of earlier windows stay in memory. Within a window texts are batched
        by length and each distinct one is encoded once.

        Args:
            inputs: texts, from a file or a database, for example.
            window: texts that are read before they are encoded.
            options: of :meth:`encode`.

        Yields:
            what :meth:`encode` returns for each window, in the order of the texts.

        Raises:
            UsageError: a precision whose codes depend on all vectors; else as :meth:`encode`.
        """
        if options.get("precision") in CALIBRATED:
            raise UsageError(
                f"precision {options['precision']!r} needs the ranges of all vectors, and encode_batches "
                "never has them all",
                remedy="use encode, or precision='binary'",
            )
        for texts in windows(inputs, window):
            yield self.encode(texts, **options)

    def _encode_stream(self, inputs: Iterable[str], call: EncodeCall) -> Iterator[Vectors]:
        with progress(None, call.show_progress_bar) as bar:
            for texts in windows(inputs, WINDOW_TEXTS):
                yield self._encode_texts(texts, replace(call, show_progress_bar=False))
                bar.update(len(texts))

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """L2-normalized vectors of a list of texts."""
        vectors: Vectors = self.encode(texts, normalize_embeddings=True, show_progress_bar=False)
        return vectors

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Score all of the first vectors against all of the second, by :attr:`similarity_fn_name`.

        Returns:
            a ``torch.Tensor``, shape ``(rows of the first, rows of the second)``; a numpy array where torch
            is not installed.
        """
        return similarity(self.similarity_fn_name, embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Score each of the first vectors against the same row of the second: shape ``(rows,)``."""
        return similarity_pairwise(self.similarity_fn_name, embeddings1, embeddings2)

    @property
    def dimension(self) -> int:
        """Length of the vectors of :meth:`encode`."""
        return (
            self.whole_dimension
            if self.truncate_dim is None
            else min(self.whole_dimension, self.truncate_dim)
        )

    def get_embedding_dimension(self) -> int:
        """:attr:`dimension`."""
        return self.dimension

    get_sentence_embedding_dimension = get_embedding_dimension

    def get_max_seq_length(self) -> Any:
        """:attr:`max_seq_length`."""
        return self.max_seq_length

    @contextmanager
    def truncate_embeddings(self, truncate_dim: int | None) -> Iterator[None]:
        """Give vectors of these dimensions while the block runs."""
        before, self.truncate_dim = self.truncate_dim, truncate_dim
        try:
            yield
        finally:
            self.truncate_dim = before

    truncate_sentence_embeddings = truncate_embeddings

    def set_prompts(self, options: PromptOptions) -> None:
        """Use other prompts for queries and documents than the model's own.

        Raises:
            UsageError: a name that the model does not have, or prompts that the runtime cannot honour.
        """
        self.prompts = self.prompts.overridden(options)

    @property
    def default_prompt_name(self) -> str | None:
        """The named prompt of :meth:`encode` where none is asked for. Can be set."""
        return self.prompts.default_name

    @default_prompt_name.setter
    def default_prompt_name(self, value: str | None) -> None:
        self.prompts = self.prompts.with_default(value)

    def eval(self) -> SentenceEncoder:
        """Itself: it never trains."""
        return self

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.name!r}, dimension={self.dimension}, precision={self.precision!r})"
        )


def _is_shown(asked: bool | None) -> bool:
    return _logger.getEffectiveLevel() in (logging.INFO, logging.DEBUG) if asked is None else asked
