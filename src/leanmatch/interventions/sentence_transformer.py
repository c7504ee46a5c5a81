"""A sentence-transformers model as a reader of token ids. Torch is loaded when one is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from leanmatch.errors import ModelError
from leanmatch.interventions.readers import Ids, Tokenized, TokenReader, tokenized
from leanmatch.models import Prompts
from leanmatch.models.adapter import evaluation_mode, on_device, pools_prompt, tokenize
from leanmatch.types import Vectors

if TYPE_CHECKING:
    from torch import Tensor

CPU_TOKENS, ACCELERATOR_TOKENS = 1024, 32_768
"""Padded tokens in one forward pass. On a CPU small passes cost nothing and padding does."""

_TABLES = ("input_ids", "attention_mask", "token_type_ids", "offsets")


def is_sentence_transformer(model: Any) -> bool:
    """Whether this is a ``SentenceTransformer`` whose first module reads text as token ids."""
    if not (hasattr(model, "modules") and hasattr(model, "tokenizer") and hasattr(model, "__getitem__")):
        return False
    tokenizer = model.tokenizer
    return hasattr(tokenizer, "encode_batch") or getattr(tokenizer, "is_fast", False)


def sentence_transformer_reader(model: Any, role: str | None = None) -> TokenReader:
    """Read token ids as the model's own method would: same prompt, same truncation, same modules.

    Args:
        model: the ``SentenceTransformer``.
        role: ``query`` for ``encode_query``, ``document`` for ``encode_document``, None for ``encode``.

    Raises:
        ModelError: the model tokenizes in a way of its own, so that the ids' places in the text are unknown.
    """
    if hasattr(model.tokenizer, "encode_batch"):
        bag = _Bag(model, role)
        return TokenReader(bag.tokenize, bag.encode_ids, bag.mask_id)
    padded = _Padded(model, role)
    return TokenReader(padded.tokenize, padded.encode_ids, padded.mask_id)


class _Model:
    """What both layouts share."""

    def __init__(self, model: Any, role: str | None) -> None:
        self.model, self.role = model, role
        self.prompt = Prompts.from_model(model).of_role(role)
        self.extras: dict[str, Any] = {}

    def preprocess(self, texts: list[str]) -> dict[str, Any]:
        """The model's own features of texts; the method has another name since sentence-transformers 5.4."""
        if self.prompt and not hasattr(self.model, "preprocess") and not pools_prompt(self.model):
            raise ModelError(
                "a model that leaves its prompt out of the pooling needs sentence-transformers 5.4 or newer",
                remedy='pip install -U "sentence-transformers>=5.4", or use level="text"',
            )
        return tokenize(self.model, texts, prompt=self.prompt, role=self.role)

    def forward(self, features: dict[str, Any]) -> Vectors:
        import torch

        with torch.inference_mode(), evaluation_mode(self.model):
            out: Tensor = self.model(on_device(features, self.model))["sentence_embedding"]
            vectors: Vectors = out.float().cpu().numpy()
            dimension = getattr(self.model, "truncate_dim", None)
            return vectors if dimension is None else vectors[:, :dimension]

    def checked(
        self, tokenized: list[Tokenized], own: list[list[int]], texts: Sequence[str]
    ) -> list[Tokenized]:
        """Refuse ids that are not those which the model itself makes of the texts."""
        for text, tokens, ids in zip(texts, tokenized, own, strict=True):
            if tokens.ids.tolist() != ids:
                raise ModelError(
                    f"the model's own tokens of {text!r:.60} are not its tokenizer's, so it is not known "
                    "where they stand in the text",
                    remedy='use level="text": words are then edited in the text itself',
                )
        return tokenized


class _Padded(_Model):
    """Transformers: one row of ids a text, padded to the longest of the pass."""

    def __init__(self, model: Any, role: str | None) -> None:
        super().__init__(model, role)
        self.tokenizer = model.tokenizer
        self.mask_id: int | None = self.tokenizer.mask_token_id
        self.pad_id = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        return [tokens for some in _chunks(texts, 512) for tokens in self._tokenize(some)]

    def _tokenize(self, texts: list[str]) -> list[Tokenized]:
        features = self.preprocess(texts)
        self.extras = {key: value for key, value in features.items() if key not in _TABLES}
        self.extras["token_type_ids"] = "token_type_ids" in features
        masks = features["attention_mask"].bool()
        own = [row[mask].tolist() for row, mask in zip(features["input_ids"], masks, strict=True)]
        limit = self.model.max_seq_length
        encoded = self.tokenizer(
            [self.prompt + text for text in texts],
            truncation="longest_first" if limit is not None else False,
            max_length=limit,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        tokenized_texts = []
        for row, text in enumerate(texts):
            ids = np.array(encoded["input_ids"][row], np.int64)
            special = np.array(encoded["special_tokens_mask"][row], np.bool_)
            special |= np.isin(ids, self.tokenizer.all_special_ids) & (ids != self.tokenizer.unk_token_id)
            tokenized_texts.append(tokenized(ids, encoded["offset_mapping"][row], special, text, self.prompt))
        return self.checked(tokenized_texts, own, texts)

    def encode_ids(self, rows: Sequence[Ids]) -> Vectors:
        import torch

        budget = CPU_TOKENS if self.model.device.type == "cpu" else ACCELERATOR_TOKENS
        lengths = np.array([len(row) for row in rows], np.int64)
        order = np.argsort(lengths, kind="stable")
        parts = []
        for chunk in _passes(lengths[order], budget):
            chosen = order[chunk]
            width = max(1, int(lengths[chosen].max()))
            ids = np.full((len(chosen), width), self.pad_id, np.int64)
            mask = np.zeros((len(chosen), width), np.int64)
            for line, row in enumerate(chosen):
                ids[line, : lengths[row]], mask[line, : lengths[row]] = rows[row], 1
            features: dict[str, Any] = {**self.extras, "input_ids": torch.from_numpy(ids)}
            features["attention_mask"] = torch.from_numpy(mask)
            if features.pop("token_type_ids"):
                features["token_type_ids"] = torch.zeros_like(features["input_ids"])
            parts.append(self.forward(features))
        if not parts:
            return np.zeros((0, 0), np.float32)
        vectors = np.empty((len(rows), parts[0].shape[1]), np.float32)
        vectors[order] = np.concatenate(parts)
        return vectors


class _Bag(_Model):
    """``StaticEmbedding``: all ids in one row, with the place where each text begins."""

    def __init__(self, model: Any, role: str | None) -> None:
        super().__init__(model, role)
        self.tokenizer = model.tokenizer
        vocabulary = self.tokenizer.get_vocab()
        added = self.tokenizer.get_added_tokens_decoder()
        self.special = {index for index, token in added.items() if token.special}
        self.special -= {vocabulary[name] for name in ("[UNK]", "<unk>") if name in vocabulary}
        self.mask_id: int | None = vocabulary.get("[MASK]", vocabulary.get("<mask>"))

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        tokenized_texts = []
        for some in _chunks(texts, 4096):
            features = self.preprocess(some)
            starts = [*features["offsets"].tolist(), len(features["input_ids"])]
            flat = features["input_ids"].tolist()
            own = [flat[a:b] for a, b in pairwise(starts)]
            encoded = self.tokenizer.encode_batch([self.prompt + t for t in some], add_special_tokens=False)
            tokenized_chunk = [
                tokenized(
                    encoding.ids,
                    encoding.offsets,
                    np.isin(encoding.ids, list(self.special)),
                    text,
                    self.prompt,
                )
                for text, encoding in zip(some, encoded, strict=True)
            ]
            tokenized_texts += self.checked(tokenized_chunk, own, some)
        return tokenized_texts

    def encode_ids(self, rows: Sequence[Ids]) -> Vectors:
        import torch

        if not rows:
            return np.zeros((0, 0), np.float32)
        offsets = np.cumsum([0, *(len(row) for row in rows[:-1])])
        flat = np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64)
        return self.forward({"input_ids": torch.from_numpy(flat), "offsets": torch.from_numpy(offsets)})


def _chunks(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield list(texts[start : start + size])


def _passes(lengths: Any, budget: int) -> Iterator[slice]:
    """Cut rows of rising lengths so that each part has at most ``budget`` padded tokens."""
    start = 0
    for end in range(1, len(lengths) + 1):
        if end == len(lengths) or max(1, lengths[end]) * (end + 1 - start) > budget:
            yield slice(start, end)
            start = end
