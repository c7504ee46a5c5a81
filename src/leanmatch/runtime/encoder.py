"""The runtime's encoder: texts or token ids to vectors, on the native kernels, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmatch.cpus import usable_cpus
from leanmatch.errors import ModelError, UsageError
from leanmatch.models import Prompts, SentenceEncoder, SentenceSettings, TokenCounts
from leanmatch.models.surface.call import (
    BATCH_TEXTS,
    CardData,
    EncodeCall,
    at_least_1,
    checked_dimensions,
    checked_similarity,
    normalized,
    progress,
)
from leanmatch.runtime.tokenization import TextTokenizer, checked_ids, pack
from leanmatch.types import JsonValue, Vectors

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

    from leanmatch.runtime.kernels.choice import LayerChoice


class NativeEncoder(SentenceEncoder):
    """A loaded model as a function from texts to float32 vectors. Make one with :func:`leanmatch.load`.

    Safe to call from several threads at once and after a fork. A call holds memory for one batch of token
    ids and, per thread, for the activations of about 64 tokens (or of the longest text).

    Attributes:
        precision: of the layers: float32, bfloat16, int8, or compressed.
        choices: how each linear layer runs.
        model_card_data: where sentence-transformers' evaluators leave their results.
    """

    def __init__(
        self,
        native: Any,
        tokenizer: TextTokenizer,
        *,
        settings: SentenceSettings,
        pools_prompt: bool,
        name: str,
        folder: Path,
        precision: str,
        provenance: dict[str, JsonValue] | None,
        choices: Sequence[LayerChoice],
        vocabulary: int,
    ) -> None:
        self._native = native
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._pools_prompt = pools_prompt
        self._prompts = settings.prompts
        self._truncate_dim = settings.truncate_dim
        self._similarity = settings.similarity
        self._card_data = CardData()
        self.name = name
        self.folder = folder
        self.precision = precision
        self.provenance = provenance
        self.choices = tuple(choices)

    @property
    def whole_dimension(self) -> int:
        """Length of the vectors that the model's modules make, before ``truncate_dim``."""
        return int(self._native.dimension)

    @property
    def truncate_dim(self) -> int | None:
        """Leading dimensions of the vectors that are kept; None for all. Can be set."""
        return self._truncate_dim

    @truncate_dim.setter
    def truncate_dim(self, value: int | None) -> None:
        self._truncate_dim = checked_dimensions(value)

    @property
    def prompts(self) -> Prompts:
        """What goes before queries, documents and other texts, by name. A mapping sets it.

        Setting it raises UsageError for prompts of a model that leaves the prompt out of pooling, which this
        runtime cannot do.
        """
        return self._prompts

    @prompts.setter
    def prompts(self, value: Mapping[str, str | None]) -> None:
        prompts = self._prompts.replaced(value)
        for text in prompts.values():
            self._checked_prompt(text)
        self._prompts = prompts

    @property
    def similarity_fn_name(self) -> str:
        """How :meth:`similarity` compares vectors. Can be set."""
        return self._similarity

    @similarity_fn_name.setter
    def similarity_fn_name(self, value: Any) -> None:
        self._similarity = checked_similarity(value)

    @property
    def max_tokens(self) -> int | None:
        """Longest text in tokens, special ones included; longer texts are cut. None for no limit."""
        return self._tokenizer.max_tokens

    @property
    def max_seq_length(self) -> Any:
        """:attr:`max_tokens`; infinite for no limit. Can be set, up to the positions that the model has."""
        return float("inf") if self.max_tokens is None else self.max_tokens

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        most = int(self._native.most_tokens)
        if at_least_1(value, "max_seq_length") > most > 0:
            raise UsageError(
                f"max_seq_length is {value}, and the model has {most} positions", remedy="give less"
            )
        self._tokenizer.set_max_tokens(int(value))

    @property
    def tokenizer(self) -> Tokenizer:
        """The ``tokenizers.Tokenizer`` that cuts the texts."""
        return self._tokenizer.tokenizer

    @property
    def device(self) -> str:
        """Always ``cpu``."""
        return "cpu"

    @property
    def model_card_data(self) -> CardData:
        """Where sentence-transformers' evaluators leave their results."""
        return self._card_data

    @property
    def roles_differ(self) -> bool:
        """Whether a text has another vector as a query than as a document."""
        return self.prompts.query != self.prompts.document

    @property
    def prompt(self) -> str:
        """What goes before every text where no prompt is asked for."""
        return self.prompts.resolve()

    @property
    def bytes(self) -> int:
        """Bytes of the weights as they lie in memory."""
        return int(self._native.bytes)

    def to(self, device: Any) -> NativeEncoder:
        """Itself.

        Raises:
            UsageError: a device other than the CPU.
        """
        _check_device(device)
        return self

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        """``input_ids`` and ``attention_mask`` of texts as sentence-transformers pads them.

        Returns:
            int64 ``(texts, tokens)``, torch tensors where torch is installed and numpy arrays where not. For
            static embeddings ``input_ids`` is flat, and ``offsets`` says where each text begins.
        """
        return self._tokenizer.features(texts)

    def encodings(self, texts: Sequence[str], prompt: str | None = None) -> list[Encoding]:
        """What the model reads of each text, prompt and special tokens included, with offsets.

        Args:
            texts: the texts.
            prompt: what goes before each of them; the model's default prompt for None.
        """
        return self._tokenizer.encodings(texts, self.prompts.resolve(prompt=prompt))

    def count_tokens(
        self, texts: Sequence[str], *, prompt_name: str | None = None, prompt: str | None = None
    ) -> TokenCounts:
        """How many tokens the model reads of the texts, and how many it does not because a text is too long.

        Args:
            texts: any number of texts; each counts, repeated ones too.
            prompt_name, prompt: as in :meth:`encode`.
        """
        resolved = self.prompts.resolve(prompt_name, prompt)
        return self._tokenizer.count(self._tokenizer.encodings(texts, resolved))

    @property
    def graph(self) -> Any:
        """The native graph: token ids to vectors that are not normalized yet."""
        return self._native

    def encode_tokens(
        self,
        token_ids: Sequence[Sequence[int]],
        batch_size: int = BATCH_TEXTS,
        normalize_embeddings: bool = False,
        threads: int | None = None,
        add_special_tokens: bool = True,
        truncate_dim: int | None = None,
    ) -> Vectors:
        """Encode texts that are token ids already (of this model's own tokenizer).

        Args:
            token_ids: one list of ids a text; cut to the model's length.
            batch_size, normalize_embeddings, threads, truncate_dim: as in :meth:`encode`.
            add_special_tokens: put the model's special tokens around each list.

        Returns:
            shape ``(len(token_ids), dimension)``.

        Raises:
            DataError: ids that are no whole numbers of the vocabulary.
            UsageError: ``batch_size`` or ``threads`` below 1.
        """
        lists = checked_ids(token_ids, self._vocabulary)
        if add_special_tokens:
            lists = [self._tokenizer.with_special(ids) for ids in lists]
        else:
            lists = [list(self._tokenizer.cut(ids)) for ids in lists]
        kept = self._kept(self.truncate_dim if truncate_dim is None else checked_dimensions(truncate_dim))
        vectors = np.empty((len(lists), kept), dtype=np.float32)
        order = sorted(range(len(lists)), key=lambda row: len(lists[row]), reverse=True)
        count = usable_threads(threads)
        for chunk in _chunks(order, at_least_1(batch_size, "batch_size")):
            packed = pack([lists[row] for row in chunk])
            shown = [str(lists[row]) for row in chunk]
            vectors[chunk] = self._run(*packed, count, normalize_embeddings, kept, shown)
        return vectors

    def _encode_texts(self, texts: list[str], call: EncodeCall) -> Vectors:
        """Each distinct text once, in order of length, without padding."""
        _check_device(call.placement.get("device"))
        for option in ("pool", "chunk_size"):
            if call.placement.get(option) is not None:
                raise UsageError(
                    f"{option} is for several processes, and the native runtime encodes with threads of one",
                    remedy="leave it out; threads= sets their number",
                )
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        prompt, kept = self._checked_prompt(call.prompt), self._kept(call.dimensions)
        order = sorted(rows, key=len, reverse=True)
        vectors = np.empty((len(rows), kept), dtype=np.float32)
        count = usable_threads(call.threads)
        with progress(len(rows), call.show_progress_bar) as bar:
            for chunk in _chunks(order, call.batch_size):
                if call.tally is None:
                    ids, offsets = self._tokenizer.packed(chunk, prompt)
                else:
                    encodings = self._tokenizer.encodings(chunk, prompt)
                    call.tally.add(self._tokenizer.count(encodings))
                    ids, offsets = pack([encoding.ids for encoding in encodings])
                vectors[[rows[text] for text in chunk]] = self._run(
                    ids, offsets, count, call.normalize, kept, chunk
                )
                bar.update(len(chunk))
        return vectors if len(rows) == len(texts) else vectors[[rows[text] for text in texts]]

    def _kept(self, dimensions: int | None) -> int:
        return self.whole_dimension if dimensions is None else min(self.whole_dimension, dimensions)

    def _checked_prompt(self, prompt: str) -> str:
        """The prompt, unless it should be left out of pooling."""
        if prompt and not self._pools_prompt:
            raise UsageError(
                f"the prompt {prompt!r} goes to a model with include_prompt = false in its pooling, and "
                "the native runtime cannot leave the prompt out",
                remedy='encode with sentence-transformers: load(..., runtime="torch")',
                command="encode with sentence-transformers: --device cpu",
            )
        return prompt

    def _run(
        self, ids: Any, offsets: Any, threads: int, normalize: bool, kept: int, shown: Sequence[str]
    ) -> Vectors:
        try:
            vectors: Vectors = self._native.encode(ids, offsets, threads)
        except ValueError as error:  # an id without a row, more tokens than positions
            raise ModelError(
                f"{self.name}: {error}",
                remedy="its tokenizer and its weights do not belong together: save or copy the folder again",
            ) from error
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise ModelError(
                f"{self.name} gives NaN or infinite numbers for {np.count_nonzero(~finite)} of {len(shown)} "
                f"texts, the first being {shown[int(np.argmin(finite))]!r:.80}",
                remedy="use another model: this one's weights are damaged",
            )
        vectors = vectors[:, :kept]
        return normalized(vectors) if normalize else vectors


def usable_threads(threads: int | None) -> int:
    """``threads``, or the number of CPUs that this process may use (:func:`leanmatch.cpus.usable_cpus`).

    Raises:
        UsageError: below 1.
    """
    return usable_cpus() if threads is None else at_least_1(threads, "threads")


def _check_device(device: Any) -> None:
    if device is not None and str(device) != "cpu":
        raise UsageError(
            f"the native runtime on device {device!r}",
            remedy='it runs on the CPU; load(..., device="cuda") runs sentence-transformers there',
        )


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
