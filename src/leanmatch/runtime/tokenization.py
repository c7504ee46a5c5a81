"""Texts to token ids as sentence-transformers would cut them, with the ``tokenizers`` library alone."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.errors import DataError, ModelError, UsageError
from leanmatch.formats.layout import MAX_TOKENIZER_LENGTH
from leanmatch.models import TokenCounts, count_encodings
from leanmatch.models.architectures import ARCHITECTURES
from leanmatch.runtime.architectures import UnsupportedError
from leanmatch.runtime.modules import Layout, read_config

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

Ids = NDArray[np.int32]
Offsets = NDArray[np.int64]
KEPT_BYTES = 1 << 24
"""Most bytes of token ids that a :class:`KnownTokenizer` keeps: 8,000 texts of 512 tokens."""


class TextTokenizer:
    """A folder's tokenizer without padding, cut at the model's length.

    Attributes:
        tokenizer: the ``tokenizers.Tokenizer`` itself.
        max_tokens: longest text in tokens, special ones included; None for no limit.
    """

    def __init__(
        self, tokenizer: Tokenizer, *, max_tokens: int | None, add_special: bool = True, side: str = "right"
    ) -> None:
        self.tokenizer = tokenizer
        self.max_tokens: int | None
        self._add_special = add_special
        self._side = side
        self._pad_id = int((tokenizer.padding or {}).get("pad_id", 0))
        self._kept: _Kept | None = None
        tokenizer.no_padding()
        self.set_max_tokens(max_tokens)
        self._ends: tuple[list[int], list[int]] | None = None

    def set_max_tokens(self, longest: int | None) -> None:
        """Cut texts at another length.

        Raises:
            UsageError: it has no room beside the special tokens.
        """
        special = self.tokenizer.num_special_tokens_to_add(False) if self._add_special else 0
        if longest is not None and longest <= special:
            raise UsageError(
                f"max_seq_length is {longest}, but the tokenizer adds {special} special tokens to every text",
                remedy="set a longer max_seq_length",
            )
        self.max_tokens = longest
        if self._kept is not None:
            self._kept = _Kept()
        if longest is None:
            self.tokenizer.no_truncation()
        else:
            self.tokenizer.enable_truncation(longest, direction=self._side)

    def features(self, texts: Sequence[str]) -> dict[str, Any]:
        """Ids and masks as sentence-transformers' modules take them; flat ids and offsets without padding."""
        lists = [encoding.ids for encoding in self.encodings(texts)]
        if not self._add_special:  # a static embedding
            ids, offsets = pack(lists)
            return {"input_ids": _as_tensor(ids), "offsets": _as_tensor(offsets[:-1])}
        longest = max(map(len, lists), default=0)
        padded = np.full((len(lists), longest), self._pad_id, np.int64)
        mask = np.zeros((len(lists), longest), np.int64)
        for row, ids_of_row in enumerate(lists):
            padded[row, : len(ids_of_row)] = ids_of_row
            mask[row, : len(ids_of_row)] = 1
        return {"input_ids": _as_tensor(padded), "attention_mask": _as_tensor(mask)}

    def keep_ids(self) -> None:
        """From now on keep what :meth:`packed` gives, up to :data:`KEPT_BYTES`; the oldest are dropped."""
        self._kept = self._kept or _Kept()

    def packed(self, texts: Sequence[str], prompt: str = "") -> tuple[Ids, Offsets]:
        """The ids of the texts, prompt and special tokens included, as :func:`pack` returns them."""
        if self._kept is None:
            return pack([encoding.ids for encoding in self.encodings(texts, prompt)])
        key = prompt, tuple(texts)
        found = self._kept.get(key)
        if found is None:
            found = pack([encoding.ids for encoding in self.encodings(texts, prompt)])
            self._kept.add(key, found)
        return found

    def encodings(self, texts: Sequence[str], prompt: str = "") -> list[Encoding]:
        """What the tokenizer makes of each text, the prompt before it included."""
        if prompt:
            texts = [prompt + text for text in texts]
        try:
            if len(texts) == 1:  # encode_batch wakes its threads even for one
                return [self.tokenizer.encode(texts[0], add_special_tokens=self._add_special)]
            return list(self.tokenizer.encode_batch(list(texts), add_special_tokens=self._add_special))
        except Exception as error:  # tokenizers raises plain Exception, and TypeError for what is no UTF-8
            for row, text in enumerate(texts):
                if any("\ud800" <= mark <= "\udfff" for mark in text):
                    raise DataError(
                        "a text holds half of a surrogate pair, which is no character",
                        line=row + 1,
                        value=text,
                        remedy="decode it from its bytes again",
                    ) from error
            raise ModelError(
                f"the model's tokenizer fails on a text: {error}",
                remedy="the model's folder is damaged: save or copy it again",
            ) from error

    def count(self, encodings: Sequence[Encoding]) -> TokenCounts:
        """How many tokens the model reads, and how many are cut off."""
        return count_encodings(encodings)

    def with_special(self, ids: Sequence[int]) -> list[int]:
        """Ids cut to the model's length, between the special tokens that the tokenizer puts around a text."""
        before, after = self._special_ends()
        return [*before, *self.cut(ids, len(before) + len(after)), *after]

    def cut(self, ids: Sequence[int], special: int = 0) -> Sequence[int]:
        """Ids cut to the model's length, on the side on which it cuts texts, less some special tokens."""
        if self.max_tokens is None:
            return ids
        room = max(self.max_tokens - special, 0)
        return ids[max(len(ids) - room, 0) :] if self._side == "left" else ids[:room]

    def _special_ends(self) -> tuple[list[int], list[int]]:
        if self._ends is None:
            plain = self.tokenizer.encode("a", add_special_tokens=False).ids
            full = self.tokenizer.encode("a", add_special_tokens=self._add_special).ids
            at = next((i for i in range(len(full)) if full[i : i + len(plain)] == plain), 0)
            self._ends = full[:at], full[at + len(plain) :]
        return self._ends


class _Kept(dict[tuple[str, tuple[str, ...]], tuple[Ids, Offsets]]):
    """Packed ids of lists of texts, by prompt and texts: at most :data:`KEPT_BYTES`."""

    def __init__(self) -> None:
        super().__init__()
        self._bytes = 0

    def add(self, key: tuple[str, tuple[str, ...]], packed: tuple[Ids, Offsets]) -> None:
        self[key] = packed
        self._bytes += sum(array.nbytes for array in packed)
        while self._bytes > KEPT_BYTES:
            self._bytes -= sum(array.nbytes for array in self.pop(next(iter(self))))


class KnownTokenizer:
    """:func:`read_tokenizer` for folders that differ only in the model's weights, as in validation.

    The folder's tokenizer is read once, and it keeps the ids of texts. A folder whose tokenizer or settings
    differ from the last one's is read anew. Not for several threads at once.
    """

    def __init__(self) -> None:
        self._key: Any = None
        self._tokenizer: TextTokenizer | None = None

    def __call__(self, layout: Layout, config: dict[str, Any], most_tokens: int | None) -> TextTokenizer:
        """See :func:`read_tokenizer`."""
        files = (
            _find(layout, "tokenizer.json"),
            _find(layout, "vocab.txt"),
            layout.transformer / "tokenizer_config.json",
        )
        read = [file.read_bytes() if file is not None and file.is_file() else None for file in files]
        key = layout.is_static, layout.lower, layout.max_tokens, most_tokens, config, read
        if self._tokenizer is None or key != self._key:
            self._key, self._tokenizer = key, read_tokenizer(layout, config, most_tokens)
            self._tokenizer.keep_ids()
        return self._tokenizer


def _as_tensor(array: NDArray[Any]) -> Any:
    try:
        import torch
    except ModuleNotFoundError:
        return array
    return torch.from_numpy(array.astype(np.int64))


def pack(lists: Sequence[Sequence[int]]) -> tuple[Ids, Offsets]:
    """Lists of ids as one array and the offsets where each begins.

    >>> pack([[101, 7, 102], [], [5]])[1].tolist()
    [0, 3, 3, 4]
    """
    offsets = np.zeros(len(lists) + 1, dtype=np.int64)
    np.cumsum([len(ids) for ids in lists], out=offsets[1:])
    try:
        return np.fromiter(chain.from_iterable(lists), dtype=np.int32, count=int(offsets[-1])), offsets
    except OverflowError as error:
        raise ModelError(
            f"a token id does not fit 32 bits: {error}",
            remedy="the model's tokenizer is damaged: save or copy its folder again",
        ) from error


def checked_ids(lists: Sequence[Sequence[int]], vocabulary: int) -> list[list[int]]:
    """Lists of token ids, as Python numbers.

    Raises:
        DataError: an entry that is no list of whole numbers in ``[0, vocabulary)``.
    """
    out: list[list[int]] = []
    for row, ids in enumerate(lists):
        values = np.asarray(ids)
        if values.size == 0 and values.ndim == 1:
            out.append([])
            continue
        fits = values.ndim == 1 and np.issubdtype(values.dtype, np.integer)
        if not fits or int(values.min()) < 0 or int(values.max()) >= vocabulary:
            raise DataError(
                f"token ids must be whole numbers from 0 to {vocabulary - 1}",
                line=row + 1,
                value=ids,
                remedy="give lists of ids of this model's own tokenizer",
            )
        out.append(values.tolist())
    return out


def read_tokenizer(layout: Layout, config: dict[str, Any], most_tokens: int | None) -> TextTokenizer:
    """The tokenizer of a model folder.

    The length is ``max_seq_length``, else the tokenizer's ``model_max_length`` and the model's positions,
    whichever is shorter. Static embeddings take texts without special tokens, cut only where the tokenizer's
    own file says so.

    Args:
        layout: the folder.
        config: the transformer's ``config.json``; {} for a static embedding.
        most_tokens: positions that the model has.

    Raises:
        ModelError: the file is damaged.
        UnsupportedError: the folder has no fast tokenizer.
    """
    tokenizer = _open(layout, config)
    check_unknown(tokenizer, layout.transformer)
    if layout.is_static:
        truncation = tokenizer.truncation or {}  # what the file asks for; sentence-transformers keeps it
        return TextTokenizer(
            tokenizer,
            max_tokens=truncation.get("max_length"),
            add_special=False,
            side=truncation.get("direction", "right"),
        )
    if layout.lower:
        _lower(tokenizer)
    file = layout.transformer / "tokenizer_config.json"
    options = read_config(file) if file.is_file() else {}
    padding = options.get("padding_side") or (tokenizer.padding or {}).get("direction", "right")
    if padding != "right" and ARCHITECTURES[config["model_type"]].positions is not None:
        raise UnsupportedError("the native runtime has no padding on the left, which moves token positions")
    side = options.get("truncation_side") or (tokenizer.truncation or {}).get("direction", "right")
    bounds = [bound for bound in (most_tokens, longest_text(layout, config)) if bound is not None]
    longest = min(bounds) if bounds else None
    return TextTokenizer(tokenizer, max_tokens=longest, side=side)


def longest_text(layout: Layout, config: dict[str, Any]) -> int | None:
    """Tokens of the longest text by a folder's settings; None where they set no limit.

    It is ``max_seq_length``; where there is none, the tokenizer's ``model_max_length`` or the configuration's
    ``max_position_embeddings``, whichever is shorter.

    Raises:
        ModelError: a limit that is no number.
    """
    limits: list[Any] = [layout.max_tokens]
    if layout.max_tokens is None:
        file = layout.transformer / "tokenizer_config.json"
        options = read_config(file) if file.is_file() else {}
        limits = [options.get("model_max_length"), config.get("max_position_embeddings")]
    for limit in limits:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float)):
            raise ModelError(
                f"{layout.transformer}: the longest text is {limit!r:.40}, not a number of tokens",
                remedy="correct model_max_length in tokenizer_config.json, or max_position_embeddings",
            )
    bounds = [int(bound) for bound in limits if bound is not None and bound < MAX_TOKENIZER_LENGTH]
    return min(bounds) if bounds else None


def _open(layout: Layout, config: dict[str, Any]) -> Tokenizer:
    from tokenizers import Tokenizer

    file = _find(layout, "tokenizer.json")
    if file is None:
        vocabulary = _find(layout, "vocab.txt")
        if vocabulary is None or config.get("model_type") not in ("bert", "distilbert", "electra"):
            raise UnsupportedError(
                f"{layout.transformer} holds no tokenizer.json",
                remedy="save the tokenizer again with a current transformers",
            )
        return _from_vocabulary(layout, vocabulary)
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(f"{file} cannot be read: {error}", remedy="save or copy the folder again") from error


def _find(layout: Layout, name: str) -> Path | None:
    homes = (layout.transformer, layout.folder)
    return next((home / name for home in homes if (home / name).is_file()), None)


def _from_vocabulary(layout: Layout, vocabulary: Path) -> Tokenizer:
    from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

    file = layout.transformer / "tokenizer_config.json"
    options = read_config(file) if file.is_file() else {}
    try:
        tokenizer = BertWordPieceTokenizer(
            str(vocabulary),
            lowercase=bool(options.get("do_lower_case", True)),
            strip_accents=options.get("strip_accents"),
            handle_chinese_chars=bool(options.get("tokenize_chinese_chars", True)),
        )
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(
            f"{vocabulary} cannot be read: {error}", remedy="save or copy the folder again"
        ) from error
    return tokenizer._tokenizer


def check_unknown(tokenizer: Tokenizer, folder: Path) -> None:
    """Refuse a tokenizer that fails on characters outside its vocabulary, before a text with one comes.

    Raises:
        ModelError: its vocabulary lacks the token for them.
    """
    try:
        tokenizer.encode("a \U00013000", add_special_tokens=True)  # a hieroglyph
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(
            f"the tokenizer in {folder} fails on characters that it does not know: {error}",
            remedy="the vocabulary is damaged: save or copy the folder again",
        ) from error


def _lower(tokenizer: Tokenizer) -> None:
    """Put a Lowercase normalizer first, unless there is one, as sentence-transformers does."""
    from tokenizers import normalizers

    current = tokenizer.normalizer
    parts: list[Any] = [] if current is None else [current]
    if isinstance(current, normalizers.Sequence):
        parts = [current[index] for index in range(len(current))]
    if not any(isinstance(part, normalizers.Lowercase) for part in parts):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *parts])
