"""Importance as its definition reads: a loop over pairs, texts and units, one text a pass. Slow on purpose.

It judges the fast path in tests and benchmarks, so it shares nothing with it but the finding of words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from leanmatch.interventions.names import side_numbers
from leanmatch.interventions.words.splitting import token_units


def slow_importance(
    model: Any,
    anchors: Sequence[str],
    positives: Sequence[str],
    *,
    intervention: str,
    unit: str = "word",
    sides: str = "both",
) -> list[float]:
    """``s(x, z) - s(do(x_t), z)`` for each unit of each text, with four passes of one text each.

    Args:
        model: a ``SentenceTransformer`` without a prompt.
        anchors, positives: the pairs.
        intervention: ``mask`` or ``delete``.
        unit: ``word`` or ``token``.
        sides: ``anchor``, ``positive`` or ``both``.

    Returns:
        effects in the order of :func:`leanmatch.interventions.importance`.
    """
    effects = []
    for x, z in zip(anchors, positives, strict=True):
        for side in side_numbers(sides):
            text, other = (x, z) if side == 0 else (z, x)
            ids, offsets, special = _tokens(model, text)
            for span in token_units(text, offsets, ~special, unit):
                if intervention == "mask":
                    edited = [_mask_id(model) if i in span.pieces else token for i, token in enumerate(ids)]
                else:
                    edited = [token for i, token in enumerate(ids) if i not in span.pieces]
                score = _cosine(_vector(model, ids), _vector(model, _tokens(model, other)[0]))
                after = _cosine(_vector(model, edited), _vector(model, _tokens(model, other)[0]))
                effects.append(score - after)
    return effects


def _tokens(model: Any, text: str) -> tuple[list[int], Any, Any]:
    tokenizer = model.tokenizer
    if hasattr(tokenizer, "encode_batch"):
        encoded = tokenizer.encode(text, add_special_tokens=False)
        return encoded.ids, np.array(encoded.offsets).reshape(-1, 2), np.zeros(len(encoded.ids), bool)
    encoded = tokenizer(
        text,
        truncation=True,
        max_length=model.max_seq_length,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
    )
    special = np.array(encoded["special_tokens_mask"], bool)
    return encoded["input_ids"], np.array(encoded["offset_mapping"]).reshape(-1, 2), special


def _mask_id(model: Any) -> int:
    tokenizer = model.tokenizer
    mask = tokenizer.token_to_id("[MASK]") if hasattr(tokenizer, "encode_batch") else tokenizer.mask_token_id
    return int(mask)


def _vector(model: Any, ids: list[int]) -> Any:
    import torch

    row = torch.tensor([ids], dtype=torch.long)
    if hasattr(model.tokenizer, "encode_batch"):
        features = {"input_ids": row[0], "offsets": torch.zeros(1, dtype=torch.long)}
    else:
        features = {"input_ids": row, "attention_mask": torch.ones_like(row)}
    with torch.inference_mode():
        return model(features)["sentence_embedding"][0].double().numpy()


def _cosine(left: Any, right: Any) -> float:
    norms = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / norms if norms > 0 else 0.0
