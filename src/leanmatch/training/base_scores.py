"""The frozen base model, as a regularizer needs it: embeddings of tokenized texts, computed once."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as functional

from leanmatch.interventions.edits import is_bag
from leanmatch.training.features import Features, encode_columns, take

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class FrozenBase:
    """Normalized embeddings of the base model, with a cache over token sequences.

    It is deliberately no ``nn.Module``: the optimizer, checkpoints and ``DistributedDataParallel`` must not
    see its weights.

    Args:
        model: the base ``SentenceTransformer``. A copy is taken, so that training ``model`` itself is safe.
        capacity: number of embeddings kept; beyond that the oldest go first. 0 caches nothing. Static
            encoders are never cached: a look-up would cost more than the sum.
    """

    def __init__(self, model: Any, capacity: int = 500_000) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.capacity = capacity
        self.hits = self.misses = 0
        self._cache: dict[bytes, Tensor] = {}

    def embed(self, columns: Sequence[Features], device: torch.device) -> list[Tensor]:
        """Embeddings of each column's texts, L2-normalized float32 ``(rows, dimension)``, without a graph."""
        if next(self.model.parameters()).device != device:
            self.model.to(device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            if is_bag(columns[0]) or not self.capacity:
                return encode_columns(self._encode, columns, device_type=device.type)
            return [self._embed_cached(column, device) for column in columns]

    def _embed_cached(self, column: Features, device: torch.device) -> Tensor:
        ids, mask = column["input_ids"].cpu(), column["attention_mask"].bool().cpu()
        lengths = mask.sum(1).tolist()
        flat = ids[mask].numpy().astype("int32")
        keys, start = [], 0
        for length in lengths:
            keys.append(flat[start : start + length].tobytes())
            start += length
        missing: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in self._cache:
                missing.setdefault(key, row)
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        fresh: dict[bytes, Tensor] = {}
        if missing:
            rows = torch.tensor(list(missing.values()), device=column["input_ids"].device)
            (vectors,) = encode_columns(self._encode, [take(column, rows)], device_type=device.type)
            fresh = dict(zip(missing, vectors.cpu(), strict=True))
            self._cache.update(fresh)
        result = torch.stack([self._cache[key] for key in keys]).to(device)
        while len(self._cache) > self.capacity:
            del self._cache[next(iter(self._cache))]
        return result

    def _encode(self, features: Features) -> Tensor:
        return functional.normalize(self.model(dict(features))["sentence_embedding"].float(), dim=1)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenBase:
        """Frozen weights may be shared."""
        return self

    def __len__(self) -> int:
        return len(self._cache)

    def __repr__(self) -> str:
        return f"FrozenBase(cached={len(self)}, hits={self.hits}, misses={self.misses})"
