"""The runtime's encoder: texts or token ids to vectors, on the native kernels, without torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmatch.cpus import usable_cpus
from leanmatch.errors import DataError, ModelError, UsageError
from leanmatch.models import DOCUMENT, QUERY, PromptOptions, SentenceSettings, TokenCounts, TokenTally
from leanmatch.runtime.tokenization import TextTokenizer, checked_ids, pack
from leanmatch.types import JsonValue, Vectors

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

    from leanmatch.runtime.kernels.choice import LayerChoice

BATCH_TEXTS = 64


class NativeEncoder:
    """A loaded model as a function from texts to float32 vectors. Make one with :func:`leanmatch.load`.

    Safe to call from several threads at once and after a fork. A call holds memory for one batch of token
    ids and, per thread, for the activations of about 64 tokens (or of the longest text).

    Attributes:
        name: the folder or name it was loaded from.
        folder: where its files lie.
        dimension: length of the vectors.
        max_tokens: longest text in tokens, special ones included; longer texts are cut. None for no limit.
        precision: of the layers: float32, bfloat16, int8, or compressed.
        provenance: what ``leanmatch.json`` says, None where there is none.
        choices: how each linear layer runs.
        prompts: what goes before queries, documents and other texts.
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
        self.name = name
        self.folder = folder
        self.precision = precision
        self.provenance = provenance
        self.choices = tuple(choices)
        self.prompts = settings.prompts
        self._pools_prompt = pools_prompt
        self.dimension = settings.dimension(int(native.dimension))
        self.max_tokens = tokenizer.max_tokens

    @property
    def tokenizer(self) -> Tokenizer:
        """The ``tokenizers.Tokenizer`` that cuts the texts."""
        return self._tokenizer.tokenizer

    def set_prompts(self, options: PromptOptions) -> None:
        """Use other prompts for queries and documents than the model's own.

        Raises:
            UsageError: a name that the model does not have, or prompts for a model that leaves the prompt out
                of pooling, which this runtime cannot do.
        """
        prompts = self.prompts.overridden(options)
        for text in (prompts.query, prompts.document):
            self._checked_prompt(text)
        self.prompts = prompts

    @property
    def roles_differ(self) -> bool:
        """Whether a text has another vector as a query than as a document."""
        return self.prompts.query != self.prompts.document

    @property
    def prompt(self) -> str:
        """What goes before every text where no prompt is asked for."""
        return self.prompts.resolve()

    def tokenize(self, texts: Sequence[str], prompt: str | None = None) -> list[Encoding]:
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

    @property
    def bytes(self) -> int:
        """Bytes of the weights as they lie in memory."""
        return int(self._native.bytes)

    def encode(
        self,
        texts: Sequence[str],
        batch_size: int = BATCH_TEXTS,
        normalize: bool = True,
        threads: int | None = None,
        show_progress: bool = False,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        tally: TokenTally | None = None,
    ) -> Vectors:
        """Encode texts: each distinct text once, in order of length, without padding.

        Args:
            texts: any number of texts, none included.
            batch_size: texts a native call; bounds the memory, not the speed.
            normalize: divide by the L2 norm. A zero vector (a text without any known token) stays zero.
            threads: threads of the native call; None for all cores that this process may use.
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
            UsageError: ``batch_size`` or ``threads`` below 1, one string in place of a list, or no such
                prompt.
        """
        rows = distinct(texts)
        resolved = self._checked_prompt(self.prompts.resolve(prompt_name, prompt))
        order = sorted(rows, key=len, reverse=True)
        vectors = np.empty((len(rows), self.dimension), dtype=np.float32)
        count = usable_threads(threads)
        with _bar(len(rows), show_progress) as bar:
            for chunk in _chunks(order, _at_least_1(batch_size, "batch_size")):
                encodings = self._tokenizer.encodings(chunk, resolved)
                if tally is not None:
                    tally.add(self._tokenizer.count(encodings))
                ids, offsets = pack([encoding.ids for encoding in encodings])
                vectors[[rows[text] for text in chunk]] = self._run(ids, offsets, count, normalize, chunk)
                bar.update(len(chunk))
        if len(rows) == len(texts):
            return vectors
        return vectors[[rows[text] for text in texts]]

    def encode_query(self, texts: Sequence[str], **options: Any) -> Vectors:
        """:meth:`encode` with the prompt of queries, where no other is given."""
        return self.encode(texts, **self.prompts.for_role(QUERY, options))

    def encode_document(self, texts: Sequence[str], **options: Any) -> Vectors:
        """:meth:`encode` with the prompt of documents, where no other is given."""
        return self.encode(texts, **self.prompts.for_role(DOCUMENT, options))

    def encode_tokens(
        self,
        token_ids: Sequence[Sequence[int]],
        batch_size: int = BATCH_TEXTS,
        normalize: bool = True,
        threads: int | None = None,
        add_special_tokens: bool = True,
    ) -> Vectors:
        """Encode texts that are token ids already (of this model's own tokenizer).

        Args:
            token_ids: one list of ids a text; cut to the model's length.
            batch_size, normalize, threads: as in :meth:`encode`.
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
        vectors = np.empty((len(lists), self.dimension), dtype=np.float32)
        order = sorted(range(len(lists)), key=lambda row: len(lists[row]), reverse=True)
        count = usable_threads(threads)
        for chunk in _chunks(order, _at_least_1(batch_size, "batch_size")):
            packed = pack([lists[row] for row in chunk])
            vectors[chunk] = self._run(*packed, count, normalize, [str(lists[row]) for row in chunk])
        return vectors

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """:meth:`encode` with its defaults."""
        return self.encode(texts)

    def __repr__(self) -> str:
        return f"NativeEncoder({self.name!r}, dimension={self.dimension}, precision={self.precision!r})"

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

    def _run(self, ids: Any, offsets: Any, threads: int, normalize: bool, shown: Sequence[str]) -> Vectors:
        try:
            vectors: Vectors = self._native.encode(ids, offsets, threads)
        except ValueError as error:  # an id without a row, more tokens than positions
            raise ModelError(
                f"{self.name}: {error}",
                remedy="its tokenizer and its weights do not belong together: save or copy the folder again",
            ) from error
        if vectors.shape[1] != self.dimension:  # truncate_dim
            vectors = np.ascontiguousarray(vectors[:, : self.dimension])
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(norms).all():
            bad = np.flatnonzero(~np.isfinite(norms[:, 0]))
            raise ModelError(
                f"{self.name} gives NaN or infinite numbers for {bad.size} of {len(shown)} texts, the first "
                f"being {shown[bad[0]]!r:.80}",
                remedy="use another model: this one's weights are damaged",
            )
        if normalize:
            vectors /= np.where(norms > 0, norms, 1.0)
        return vectors


def distinct(texts: Sequence[str]) -> dict[str, int]:
    """Each distinct text with its row.

    Raises:
        DataError: an entry that is not text.
        UsageError: one string in place of a list.

    >>> distinct(["b", "a", "b"])
    {'b': 0, 'a': 1}
    """
    if isinstance(texts, str):
        raise UsageError(f"encode was given one string, {texts!r:.60}", remedy="give a list of texts")
    rows: dict[str, int] = {}
    for row, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"a text is a {type(text).__name__}", line=row + 1, value=text, remedy="give str")
        rows.setdefault(text, len(rows))
    return rows


def usable_threads(threads: int | None) -> int:
    """``threads``, or the number of CPUs that this process may use (:func:`leanmatch.cpus.usable_cpus`).

    Raises:
        UsageError: below 1.
    """
    if threads is not None:
        return _at_least_1(threads, "threads")
    return usable_cpus()


def _at_least_1(value: int, name: str) -> int:
    if value < 1:
        raise UsageError(f"{name} is {value}", remedy="give 1 or more")
    return int(value)


def _chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _bar(total: int, shown: bool) -> Any:
    from tqdm import tqdm

    return tqdm(total=total, unit=" texts", desc="encoding", disable=not shown)
