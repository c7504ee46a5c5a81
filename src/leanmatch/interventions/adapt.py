"""Any model as a reader: the deepest one that it allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leanmatch.errors import UsageError
from leanmatch.interventions.names import check_choice
from leanmatch.interventions.readers import (
    Ids,
    Reader,
    SidedReaders,
    TextReader,
    Tokenized,
    TokenReader,
    tokenized,
)
from leanmatch.models import DOCUMENT, QUERY, Prompts, RoleEncoder, roles_differ

LEVELS = ("auto", "tokens", "text")


def as_readers(model: Any, *, level: str = "auto", mask_text: str | None = None) -> SidedReaders:
    """Make readers of a model for both sides of pairs: anchors are queries, positives are documents.

    Args:
        model: as :func:`as_reader` takes it, or readers that were made before.
        level, mask_text: as in :func:`as_reader`.

    Raises:
        UsageError, ModelError: as :func:`as_reader`.
    """
    if isinstance(model, SidedReaders):
        return model
    if isinstance(model, Reader):
        return SidedReaders(model, model)
    query = as_reader(model, level=level, mask_text=mask_text, role=QUERY)
    if not roles_differ(model):
        return SidedReaders(query, query)
    return SidedReaders(query, as_reader(model, level=level, mask_text=mask_text, role=DOCUMENT))


def as_reader(
    model: Any, *, level: str = "auto", mask_text: str | None = None, role: str | None = None
) -> Reader:
    """Make a reader of a model.

    - A ``SentenceTransformer`` or a :class:`leanmatch.models.TorchEncoder` is read by tokens.
    - A :class:`leanmatch.runtime.NativeEncoder` as well, without torch; and so is every object with its
      ``encodings(texts, prompt)``, ``encode_tokens`` and ``tokenizer``.
    - Any other function from texts to vectors, or object with ``encode``, is read by text; where it has a
      ``tokenizer``, that one names the mask token and counts the pieces of words.

    Args:
        model: what to read.
        level: ``auto``, or ``tokens`` or ``text`` to insist.
        mask_text: the mask token of a function of texts.
        role: ``query`` or ``document``, which decides the prompt; None for the model's default prompt.

    Raises:
        UsageError: not a model, or one that shows no tokens where ``level`` insists on them.
        ModelError: a sentence-transformers model that tokenizes in a way of its own.
    """
    check_choice("level", level, LEVELS)
    if isinstance(model, Reader):
        return model
    inner = getattr(model, "model", None)
    module = model if hasattr(model, "modules") else inner if hasattr(inner, "modules") else None
    if module is not None and level != "text":
        from leanmatch.interventions.sentence_transformer import (
            is_sentence_transformer,
            sentence_transformer_reader,
        )

        if is_sentence_transformer(module):
            return sentence_transformer_reader(module, role)
    tokenizer = getattr(model, "tokenizer", None)
    if level != "text" and hasattr(model, "encode_tokens") and hasattr(model, "encodings"):
        return _light_reader(model, tokenizer, role)
    if level == "tokens":
        raise UsageError(
            f"the tokens of {type(model).__name__} cannot be edited",
            remedy="give a SentenceTransformer or an encoder of leanmatch.load, or use level='text'",
        )
    encode = model if callable(model) and module is None else getattr(model, "encode", None)
    if encode is None:
        raise UsageError(
            f"{type(model).__name__} is no model",
            remedy="give a SentenceTransformer, an encoder of leanmatch.load, or a function of texts",
        )
    if role is not None and hasattr(model, f"encode_{role}"):
        encode = RoleEncoder(model).of_role(role)
    if mask_text is None and tokenizer is not None:
        mask_text = _mask_text(tokenizer)
    return TextReader(encode, mask_text, None if tokenizer is None else _piece_counter(tokenizer))


def _light_reader(model: Any, tokenizer: Any, role: str | None) -> TokenReader:
    """A reader over ``tokenizers`` alone: ids as the encoder itself reads them."""
    mask = _mask_text(tokenizer)
    prompts: Prompts = getattr(model, "prompts", Prompts())
    prompt = prompts.of_role(role)

    def tokenize(texts: Sequence[str]) -> list[Tokenized]:
        encodings = model.encodings(texts, prompt) if texts else ()
        return [
            tokenized(encoding.ids, encoding.offsets, encoding.special_tokens_mask, text, prompt)
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def encode_ids(rows: Sequence[Ids]) -> Any:
        return model.encode_tokens(rows, add_special_tokens=False)

    return TokenReader(tokenize, encode_ids, None if mask is None else tokenizer.token_to_id(mask))


def _mask_text(tokenizer: Any) -> str | None:
    if hasattr(tokenizer, "mask_token"):
        named: str | None = tokenizer.mask_token
        return named
    if hasattr(tokenizer, "token_to_id"):
        return next((t for t in ("[MASK]", "<mask>") if tokenizer.token_to_id(t) is not None), None)
    return None


def _piece_counter(tokenizer: Any) -> Any:
    def count(words: Sequence[str]) -> list[int]:
        if hasattr(tokenizer, "encode_batch"):
            encoded = tokenizer.encode_batch(list(words), add_special_tokens=False)
            return [sum(encoding.attention_mask) for encoding in encoded]
        return [len(ids) for ids in tokenizer(list(words), add_special_tokens=False)["input_ids"]]

    return count
