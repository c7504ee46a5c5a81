"""Edit tokenized texts: mask, delete or replace one token or one whole word in each copy.

Two layouts of tokenized text exist in sentence-transformers, and both are edited here without going back to
strings:

- *padded*: ``input_ids (n, length)`` with ``attention_mask (n, length)`` (transformers);
- *bag*: ``input_ids (total,)`` with ``offsets (n,)`` (``StaticEmbedding``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from leanmatch.errors import UsageError
from leanmatch.interventions.names import INTERVENTIONS, UNITS, check_choice

if TYPE_CHECKING:
    from torch import Tensor

    from leanmatch.interventions.words.vocabulary import TokenVocabulary


@dataclass(frozen=True)
class Edited:
    """Edited copies of ``n`` texts, ``per_text`` of each: text ``i``, copy ``c`` is row ``i * per_text + c``.

    Attributes:
        features: tokenized copies in the layout of the input.
        changed: bool ``(n * per_text,)``; false where a text had no token that may be changed.
        first: int64 ``(n * per_text,)``; position of the first changed token in the original row.
    """

    features: dict[str, Any]
    changed: Tensor
    first: Tensor


def edit_texts(
    features: dict[str, Any],
    vocabulary: TokenVocabulary,
    *,
    kind: str = "mask",
    per_text: int = 1,
    unit: str = "token",
    protected: int = 0,
) -> Edited:
    """Draw ``per_text`` positions of each text (uniformly, with replacement) and intervene there.

    Randomness comes from torch's global generator on the CPU, which trainers save and restore, so that a
    resumed run draws what the unbroken run would have drawn.

    Args:
        features: tokenized texts, padded or bag layout; not modified.
        vocabulary: the tokenizer's tables.
        kind: one of :data:`INTERVENTIONS`. ``replace`` draws from the tokens of this batch, which is a draw
            from the corpus, weighted by frequency.
        per_text: number of edited copies of each text, at least 1.
        unit: ``token`` edits one piece; ``word`` edits all pieces of the word that the drawn token is in.
        protected: tokens at the beginning of each text that are never edited: those of a prompt.

    Raises:
        UsageError: unknown kind or unit, ``per_text`` below 1, or masking without a mask token.
    """
    check_edit(kind, per_text, unit)
    if kind == "mask" and vocabulary.mask_id is None:
        raise UsageError(
            "the intervention 'mask' needs a tokenizer with a mask token, and this one has none",
            remedy="use interventions='delete' or 'replace'",
        )
    ids, present, rows = _as_rows(features, vocabulary)
    ids, present = ids.repeat_interleave(per_text, 0), present.repeat_interleave(per_text, 0)
    special, word_start = vocabulary.special.to(ids.device), vocabulary.word_start.to(ids.device)
    allowed = present & ~special[ids]
    if protected:
        allowed &= present.cumsum(1) > protected
    if kind == "delete" and rows.bag:  # a bag of one token has nothing left when it goes: it stays as it is
        allowed &= allowed.sum(1, keepdim=True) > 1
    first = _draw(allowed)
    changed = allowed.any(1)
    target = torch.zeros_like(allowed)
    target[changed, first[changed]] = True
    if unit == "word":
        words = (word_start[ids] & present).cumsum(1)
        target = allowed & changed[:, None] & (words == words.gather(1, first[:, None]))
        if kind == "delete" and rows.bag:
            emptied = (target == allowed).all(1)
            target[emptied], changed = False, changed & ~emptied
    if kind == "mask":
        ids = ids.masked_fill(target, _known(vocabulary.mask_id))
    elif kind == "replace":
        pool = ids[allowed]
        if len(pool):
            draw = torch.randint(len(pool), (int(target.sum()),)).to(ids.device)
            ids = ids.masked_scatter(target, pool[draw])
    return Edited(rows.rebuild(ids, present, target if kind == "delete" else None, per_text), changed, first)


def check_edit(kind: str, per_text: int, unit: str) -> None:
    """Validate the options of :func:`edit_texts`."""
    check_choice("intervention", kind, INTERVENTIONS)
    check_choice("unit", unit, UNITS)
    if per_text < 1:
        raise UsageError(f"per_text must be at least 1 (found {per_text})")


def is_bag(features: dict[str, Any]) -> bool:
    """Whether the features have the bag layout of ``StaticEmbedding``."""
    return "offsets" in features


@dataclass(frozen=True)
class _Rows:
    """How to turn edited rows back into the layout they came in."""

    source: dict[str, Any]
    bag: bool
    pad_id: int

    def rebuild(self, ids: Tensor, present: Tensor, removed: Tensor | None, per_text: int) -> dict[str, Any]:
        keep = present if removed is None else present & ~removed
        if self.bag:
            lengths = keep.sum(1)
            offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)[:-1]])
            return {**_rest(self.source, per_text), "input_ids": ids[keep], "offsets": offsets}
        if removed is None:
            return {
                **_rest(self.source, per_text),
                "input_ids": ids,
                "attention_mask": present.to(self.source["attention_mask"].dtype),
            }
        # close the gaps: kept tokens first, in their order (a stable sort of "not kept"), then padding
        order = torch.sort((~keep).to(torch.uint8), dim=1, stable=True).indices
        kept = keep.gather(1, order)
        out = {
            "input_ids": ids.gather(1, order).masked_fill(~kept, self.pad_id),
            "attention_mask": kept.to(self.source["attention_mask"].dtype),
        }
        if "token_type_ids" in self.source:
            types = self.source["token_type_ids"].repeat_interleave(per_text, 0)
            out["token_type_ids"] = types.gather(1, order).masked_fill(~kept, 0)
        return {**_rest(self.source, per_text), **out}


_REBUILT = ("input_ids", "attention_mask", "offsets")
_OUTPUTS = ("token_embeddings", "sentence_embedding", "all_layer_embeddings", "cls_token_embeddings")


def _rest(source: dict[str, Any], per_text: int) -> dict[str, Any]:
    """All other inputs, repeated row by row; what the model wrote into the dict is left out."""
    rest = {}
    for key, value in source.items():
        if key in _REBUILT or key in _OUTPUTS:
            continue
        rows = isinstance(value, torch.Tensor) and value.ndim >= 1 and len(value) == len(source["input_ids"])
        rest[key] = value.repeat_interleave(per_text, 0) if rows and "offsets" not in source else value
    return rest


def _as_rows(features: dict[str, Any], vocabulary: TokenVocabulary) -> tuple[Tensor, Tensor, _Rows]:
    ids = features["input_ids"]
    rows = _Rows(features, is_bag(features), vocabulary.pad_id)
    if not rows.bag:
        return ids, features["attention_mask"].bool(), rows
    ends = torch.cat([features["offsets"][1:], ids.new_tensor([len(ids)])])
    lengths = ends - features["offsets"]
    width = max(1, int(lengths.max())) if len(lengths) else 1
    column = torch.arange(width, device=ids.device)[None, :]
    present = column < lengths[:, None]
    padded = ids.new_full(present.shape, vocabulary.pad_id)
    padded[present] = ids
    return padded, present, rows


def _draw(allowed: Tensor) -> Tensor:
    """One allowed column of each row, uniformly; 0 where a row allows none."""
    if not allowed.shape[1]:
        return torch.zeros(len(allowed), dtype=torch.int64, device=allowed.device)
    uniform = torch.rand(len(allowed)).to(allowed.device)
    counts = allowed.sum(1)
    rank = (
        (uniform * counts).long().clamp_(max=(counts - 1).clamp(min=0))
    )  # 0-based rank among allowed columns
    return ((allowed.cumsum(1) == rank[:, None] + 1) & allowed).to(torch.uint8).argmax(1)


def _known(value: int | None) -> int:
    assert value is not None
    return value
