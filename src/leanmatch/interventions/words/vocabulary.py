"""What an intervention must know of a tokenizer: special tokens, the mask token, where words begin."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from leanmatch.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

_METASPACE = "\u2581"  # SentencePiece marks the first piece of a word with it
_BYTE_SPACE = "\u0120"  # byte-level BPE (GPT-2, RoBERTa) writes a leading space as this letter


@dataclass(frozen=True)
class TokenVocabulary:
    """Tables over token ids.

    Attributes:
        special: bool ``(vocabulary,)``; tokens that are never intervened on ([CLS], [SEP], [PAD], ...).
        word_start: bool ``(vocabulary,)``; false for pieces that continue the word before them.
        mask_id: id of the mask token, or None where the tokenizer has none.
        pad_id: id that fills the end of short rows.
    """

    special: Tensor
    word_start: Tensor
    mask_id: int | None
    pad_id: int

    @classmethod
    def build(
        cls, tokens: dict[str, int], *, special_ids: Collection[int], mask_id: int | None, pad_id: int
    ) -> TokenVocabulary:
        """Derive the tables from a ``token -> id`` vocabulary.

        Word pieces continue a word when they begin with ``##`` (WordPiece), or, in vocabularies that mark
        word *starts* (SentencePiece, byte-level BPE), when they do not carry the mark.
        """
        size = max(tokens.values(), default=-1) + 1
        special = torch.zeros(size, dtype=torch.bool)
        special[list(special_ids)] = True
        word_start = torch.ones(size, dtype=torch.bool)
        marks = [mark for mark in (_METASPACE, _BYTE_SPACE) if sum(t.startswith(mark) for t in tokens) > 1]
        if marks:
            continued = [index for token, index in tokens.items() if not token.startswith(marks[0])]
        else:
            continued = [
                index for token, index in tokens.items() if token.startswith("##") and len(token) > 2
            ]
        word_start[continued] = False
        word_start[special] = True
        return cls(special, word_start, mask_id, pad_id)

    @classmethod
    def from_model(cls, model: Any) -> TokenVocabulary:
        """Read the tables from a ``SentenceTransformer`` (transformer or static) or from its tokenizer.

        Raises:
            ModelError: the model has no text tokenizer with a vocabulary.
        """
        tokenizer = getattr(model, "tokenizer", model)
        if hasattr(tokenizer, "all_special_ids"):  # transformers
            return cls.build(
                dict(tokenizer.get_vocab()),
                special_ids=[i for i in tokenizer.all_special_ids if i is not None],
                mask_id=tokenizer.mask_token_id,
                pad_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0,
            )
        if hasattr(tokenizer, "get_added_tokens_decoder"):  # tokenizers.Tokenizer, in StaticEmbedding
            vocabulary = dict(tokenizer.get_vocab())
            added = tokenizer.get_added_tokens_decoder()
            special_ids = [index for index, token in added.items() if token.special]
            named = {vocabulary[name] for name in ("[CLS]", "[SEP]", "[PAD]") if name in vocabulary}
            return cls.build(
                vocabulary,
                special_ids=sorted(named.union(special_ids)),
                mask_id=vocabulary.get("[MASK]"),
                pad_id=vocabulary.get("[PAD]", 0),
            )
        raise ModelError(
            f"no text tokenizer with a vocabulary was found on {type(model).__name__}",
            remedy="interventions need a text encoder: a transformer or a StaticEmbedding",
        )
