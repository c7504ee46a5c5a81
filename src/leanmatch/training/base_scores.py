"""The frozen base model, as a regularizer needs it: embeddings of tokenized texts, computed once."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from leanmatch.interventions.edits import is_bag
from leanmatch.training.features import Features, encode_columns, for_model, take

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class FrozenBase:
    """Normalized embeddings of the base model, with a cache over token sequences.

    It is deliberately no ``nn.Module``: the optimizer, checkpoints and ``DistributedDataParallel`` must not
    see its weights. The cache can be saved with a checkpoint, because an embedding's last bits depend on
    the batch that it was computed in, and a resumed run has to go on with the same bits.

    Args:
        model: the base ``SentenceTransformer``. A copy is taken, so that training ``model`` itself is safe.
        capacity: number of embeddings kept; beyond that the oldest go first. 0 caches nothing. Static
            encoders are never cached: a look-up would cost more than the sum.
    """

    def __init__(self, model: Any, capacity: int = 100_000) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.capacity = capacity
        self.hits = self.misses = 0
        self._cache: dict[bytes, Tensor] = {}

    def embed(
        self, columns: Sequence[Features], device: torch.device, *, edited: Sequence[Features] = ()
    ) -> list[Tensor]:
        """Embeddings of each column's texts, L2-normalized float32 ``(rows, dimension)``, without a graph.

        Args:
            columns: tokenized texts.
            device: where the result is wanted; the base model moves there.
            edited: more columns; their embeddings follow the others' in the result. They are not cached,
                because edited copies hardly ever come again.
        """
        if not columns and not edited:
            return []
        columns, edited = for_model(columns, self.model), for_model(edited, self.model)
        if next(self.model.parameters()).device != device:
            self.model.to(device)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            together = [*columns, *edited]
            if is_bag(together[0]) or not self.capacity:
                return encode_columns(self._encode, together, device_type=device.type)
            embeddings = [self._embed_cached(column, device) for column in columns]
            if edited:
                embeddings += encode_columns(self._encode, edited, device_type=device.type)
            return embeddings

    def fresh(self) -> FrozenBase:
        """Another one with the same weights and an empty cache."""
        other = copy.copy(self)
        other.hits = other.misses = 0
        other._cache = {}
        return other

    def state_dict(self) -> dict[str, Tensor]:
        """The cache as tensors: token ids end to end, the length of each sequence, and the embeddings."""
        keys = list(self._cache)
        return {
            "tokens": torch.from_numpy(np.frombuffer(b"".join(keys), dtype=np.int32).copy()),
            "lengths": torch.tensor([len(key) // 4 for key in keys], dtype=torch.int64),
            "embeddings": torch.stack(list(self._cache.values())) if keys else torch.empty(0, 0),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`state_dict` gave."""
        tokens, start = state["tokens"].numpy(), 0
        self._cache = {}
        for length, embedding in zip(state["lengths"].tolist(), state["embeddings"], strict=True):
            self._cache[tokens[start : start + length].tobytes()] = embedding.clone()
            start += length

    def _embed_cached(self, column: Features, device: torch.device) -> Tensor:
        keys = _keys(column)
        missing: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in self._cache:
                missing.setdefault(key, row)
        self.hits += len(keys) - len(missing)
        self.misses += len(missing)
        if missing:
            rows = torch.tensor(list(missing.values()), device=column["input_ids"].device)
            (vectors,) = encode_columns(self._encode, [take(column, rows)], device_type=device.type)
            self._cache.update(zip(missing, vectors.cpu(), strict=True))
        result = torch.stack([self._cache[key] for key in keys]).to(device)
        while len(self._cache) > self.capacity:
            del self._cache[next(iter(self._cache))]
        return result

    def _encode(self, features: Features) -> Tensor:
        embeddings = self.model(dict(features))["sentence_embedding"]
        return functional.normalize(embeddings[:, : self.model.truncate_dim].float(), dim=1)

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenBase:
        """Frozen weights may be shared."""
        return self

    def __len__(self) -> int:
        return len(self._cache)

    def __repr__(self) -> str:
        return f"FrozenBase(cached={len(self)}, hits={self.hits}, misses={self.misses})"


def _keys(column: Features) -> list[bytes]:
    """The token ids of each text, without padding, as bytes of int32."""
    ids, mask = column["input_ids"].cpu(), column["attention_mask"].bool().cpu()
    flat = ids[mask].numpy().astype(np.int32)
    ends = mask.sum(1).cumsum(0).tolist()
    return [flat[start:end].tobytes() for start, end in zip([0, *ends[:-1]], ends, strict=True)]
