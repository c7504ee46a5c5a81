"""How many tokens a model reads of its texts, and how many it never reads because a text is too long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding


@dataclass(frozen=True)
class TokenCounts:
    """Token counts of some texts.

    Attributes:
        texts: number of texts.
        tokens: tokens that the model reads, prompts and special tokens included.
        truncated: texts that are longer than the model's maximum.
        lost: tokens beyond the maximum, which the model does not read.
    """

    texts: int = 0
    tokens: int = 0
    truncated: int = 0
    lost: int = 0

    def __add__(self, other: TokenCounts) -> TokenCounts:
        return TokenCounts(
            self.texts + other.texts,
            self.tokens + other.tokens,
            self.truncated + other.truncated,
            self.lost + other.lost,
        )

    def sentence(self) -> str:
        """What to tell a user about truncated texts; empty where there are none.

        >>> TokenCounts(texts=200, tokens=6000, truncated=3, lost=500).sentence()
        '3 of 200 texts are longer than the model reads: 500 of 6,500 tokens were cut off'
        >>> TokenCounts(texts=2, tokens=9).sentence()
        ''
        """
        if not self.truncated:
            return ""
        verb = "is" if self.truncated == 1 else "are"
        return (
            f"{self.truncated:,} of {self.texts:,} texts {verb} longer than the model reads: "
            f"{self.lost:,} of {self.tokens + self.lost:,} tokens were cut off"
        )

    def to_json(self) -> dict[str, int]:
        """Plain numbers by name."""
        return {
            "texts": self.texts,
            "tokens": self.tokens,
            "truncated": self.truncated,
            "lost": self.lost,
        }


class TokenTally:
    """Adds up the token counts of several calls of ``encode``. Safe between threads."""

    def __init__(self) -> None:
        self._counts, self._lock = TokenCounts(), Lock()

    @property
    def counts(self) -> TokenCounts:
        """The sum so far."""
        return self._counts

    def add(self, counts: TokenCounts) -> None:
        """Add the counts of one call."""
        with self._lock:
            self._counts = self._counts + counts


def count_encodings(encodings: Sequence[Encoding], *, stride: int = 0) -> TokenCounts:
    """Count what the ``tokenizers`` library made of texts that it cut at the model's maximum.

    Args:
        encodings: of the texts.
        stride: tokens that each cut-off part repeats of the one before, as the truncation is set.
    """
    tokens = truncated = lost = 0
    for encoding in encodings:
        tokens += len(encoding)
        parts = encoding.overflowing
        if parts:
            truncated += 1
            lost += sum(part.special_tokens_mask.count(0) - stride for part in parts)
    return TokenCounts(len(encodings), tokens, truncated, lost)


def prompt_tokens(tokenizer: Any, prompt: str) -> int:
    """Number of tokens at the beginning of ``prompt + text`` that are the prompt's, special ones included.

    Args:
        tokenizer: of a ``SentenceTransformer``: one of transformers, or of ``tokenizers`` (static models).
        prompt: the prompt.
    """
    if not prompt:
        return 0
    if hasattr(tokenizer, "encode_batch"):
        return len(tokenizer.encode(prompt, add_special_tokens=False))
    ids = tokenizer(prompt)["input_ids"]
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)


def count_model_tokens(model: Any, texts: Sequence[str]) -> TokenCounts:
    """Count the tokens of texts, prompts included, as a ``SentenceTransformer`` reads them."""
    tokenizer = model.tokenizer
    if hasattr(tokenizer, "encode_batch"):  # StaticEmbedding
        stride = (tokenizer.truncation or {}).get("stride", 0)
        encodings = tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return count_encodings(encodings, stride=stride)
    whole = (
        tokenizer(list(texts), truncation=False, padding=False, verbose=False)["input_ids"] if texts else []
    )
    limit = model.max_seq_length
    lengths = [len(ids) for ids in whole]
    kept = lengths if limit is None else [min(length, int(limit)) for length in lengths]
    cut = [length - rest for length, rest in zip(lengths, kept, strict=True)]
    return TokenCounts(len(texts), sum(kept), sum(map(bool, cut)), sum(cut))
