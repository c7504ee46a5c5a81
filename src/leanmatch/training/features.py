"""Tokenized texts as the trainer hands them to a loss: joining, cutting and encoding them.

A *feature dict* is what sentence-transformers' tokenization makes of one column of a batch, in one of two
layouts: padded (transformers) or bag (``StaticEmbedding``); see :mod:`leanmatch.interventions.edits`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch.nn import functional

from leanmatch.interventions.edits import is_bag
from leanmatch.models.adapter import pools_prompt

if TYPE_CHECKING:
    from torch import Tensor

Features: TypeAlias = dict[str, Any]


def count_rows(features: Features) -> int:
    """Number of texts."""
    return len(features["offsets"] if is_bag(features) else features["input_ids"])


def join(columns: Sequence[Features]) -> Features:
    """Concatenate texts of the same layout, padding to the longest.

    Only what every column has per text is kept, and settings that are equal in all columns.
    """
    first = columns[0]
    if is_bag(first):
        starts, total = [], 0
        for column in columns:
            starts.append(column["offsets"] + total)
            total += len(column["input_ids"])
        return {"input_ids": torch.cat([c["input_ids"] for c in columns]), "offsets": torch.cat(starts)}
    width = max(column["input_ids"].shape[1] for column in columns)
    joined: Features = {}
    for key, value in first.items():
        if any(key not in column for column in columns):
            continue
        values = [column[key] for column in columns]
        if all(_is_token_table(v, c) for v, c in zip(values, columns, strict=True)):
            joined[key] = torch.cat([functional.pad(v, (0, width - v.shape[1])) for v in values])
        elif not isinstance(value, torch.Tensor) and all(v == value for v in values):
            joined[key] = value
    return joined


def take(features: Features, rows: Tensor) -> Features:
    """Select texts; of padded ones, trim the columns that are padding in all of them."""
    if is_bag(features):
        ends = torch.cat(
            [features["offsets"][1:], features["offsets"].new_tensor([len(features["input_ids"])])]
        )
        lengths = (ends - features["offsets"])[rows]
        offsets = lengths.cumsum(0) - lengths
        positions = torch.arange(int(lengths.sum()), device=lengths.device)
        positions += (features["offsets"][rows] - offsets).repeat_interleave(lengths)
        return {"input_ids": features["input_ids"][positions], "offsets": offsets}
    mask = features["attention_mask"][rows]
    used = mask.any(0).nonzero()
    width = int(used[-1]) + 1 if len(used) else 1
    taken = {}
    for key, value in features.items():
        table = _is_token_table(value, features)
        taken[key] = value[rows][:, :width].contiguous() if table else value
    return taken


def chunks_by_length(features: Features, tokens: int) -> Iterator[Tensor]:
    """Row indices of padded texts, sorted by length, cut into chunks of at most ``tokens`` padded tokens.

    Padding costs as much as text does. Sorting first means that a chunk's rows are about equally long.
    """
    lengths = features["attention_mask"].sum(1)
    order = torch.argsort(lengths, stable=True)
    sizes = lengths[order].clamp(min=1).tolist()
    start = 0
    for end in range(1, len(sizes) + 1):
        # sizes rise, so the next row would set the chunk's width
        if end == len(sizes) or sizes[end] * (end + 1 - start) > tokens:
            yield order[start:end]
            start = end


def for_model(columns: Sequence[Features], model: Any) -> list[Features]:
    """Columns as the model takes them: the length of a prompt only where the pooling leaves prompts out.

    Columns whose prompts differ in length can then still be encoded together.
    """
    pooled = pools_prompt(model)
    prepared = []
    for column in columns:
        length = prompt_length(column)
        rest = {name: value for name, value in column.items() if name != "prompt_length"}
        prepared.append(rest if pooled or not length else {**rest, "prompt_length": length})
    return prepared


def prompt_length(features: Features) -> int:
    """Tokens of the prompt before each text, as sentence-transformers counted them; 0 where it did not."""
    length = features.get("prompt_length", 0)
    if isinstance(length, torch.Tensor):
        length = length.flatten()[0].item()
    return int(length or 0)


def by_prompt_length(columns: Sequence[Features]) -> list[list[int]]:
    """Numbers of the columns that can be joined, group by group."""
    groups: dict[int, list[int]] = {}
    for number, column in enumerate(columns):
        groups.setdefault(prompt_length(column), []).append(number)
    return list(groups.values())


CHUNK_TOKENS = 1024
"""Padded tokens in one forward pass on a CPU, where small passes cost nothing and padding does."""


def encode_columns(
    encode: Callable[[Features], Tensor],
    columns: Sequence[Features],
    *,
    device_type: str,
    encode_last: Callable[[Features], Tensor] | None = None,
) -> list[Tensor]:
    """Encode several columns of texts with as little padding as the device rewards.

    On accelerators all texts go through in one padded pass; on a CPU they are sorted by length and go through
    in chunks. Either way the result is what one pass for each column would give, up to rounding and dropout.

    Args:
        encode: feature dict to embeddings ``(rows, dimension)``.
        columns: feature dicts of one layout.
        device_type: ``cpu``, ``cuda``, ...
        encode_last: what makes the last pass, ``encode`` by default; see :mod:`leanmatch.trainer.parallel`.

    Returns:
        For each column its embeddings ``(rows, dimension)``.
    """
    groups = by_prompt_length(columns)
    if len(groups) > 1:
        embeddings_of: dict[int, Tensor] = {}
        for step, group in enumerate(groups):
            last = encode_last if step == len(groups) - 1 else None
            some = [columns[number] for number in group]
            parts = encode_columns(encode, some, device_type=device_type, encode_last=last)
            embeddings_of.update(zip(group, parts, strict=True))
        return [embeddings_of[number] for number in range(len(columns))]
    counts = [count_rows(column) for column in columns]
    joined = join(columns)
    if is_bag(joined) or device_type != "cpu":
        return list(torch.split((encode_last or encode)(joined), counts))
    rows = list(chunks_by_length(joined, CHUNK_TOKENS))
    encoders = [*[encode] * (len(rows) - 1), encode_last or encode]
    parts = [each(take(joined, chunk)) for each, chunk in zip(encoders, rows, strict=True)]
    inverse = torch.argsort(torch.cat(rows))
    return list(torch.split(torch.cat(parts)[inverse], counts))


def _is_token_table(value: Any, features: Features) -> bool:
    return isinstance(value, torch.Tensor) and value.shape[:2] == features["input_ids"].shape
