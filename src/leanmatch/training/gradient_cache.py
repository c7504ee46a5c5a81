"""Gradient caching: a loss over a large batch in the memory of a small one.

Source: Gao, Zhang, Han and Callan, *Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup* (arXiv 2101.06983). Texts are encoded twice: once without a graph, to get the embeddings and the
gradient of the loss with respect to them, then again in mini-batches, each back-propagated at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from leanmatch.training.features import Features, take

if TYPE_CHECKING:
    from torch import Tensor


class CachedEncoding(torch.autograd.Function):
    """``embeddings = encode(features)`` whose backward pass re-encodes in mini-batches.

    Dropout must fall alike both times, so each mini-batch's generator state is kept and replayed. The last
    mini-batch is re-encoded by ``encode_last``: a data-parallel model then exchanges gradients once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        anchor: Tensor,
        encode: Callable[[Features], Tensor],
        encode_last: Callable[[Features], Tensor],
        features: Features,
        size: int,
    ) -> Tensor:
        rows = len(features["input_ids"])
        ctx.encode, ctx.encode_last, ctx.chunks, ctx.states = encode, encode_last, [], []
        parts = []
        for start in range(0, rows, size):
            index = torch.arange(start, min(start + size, rows), device=features["input_ids"].device)
            ctx.chunks.append(take(features, index))
            ctx.states.append(_random_state())
            with torch.no_grad():
                parts.append(encode(dict(ctx.chunks[-1])))
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None, None, None]:
        start = 0
        encoders = [*[ctx.encode] * (len(ctx.chunks) - 1), ctx.encode_last]
        after = _random_state()
        for encode, chunk, state in zip(encoders, ctx.chunks, ctx.states, strict=True):
            _set_random_state(state)
            with torch.enable_grad():
                embeddings = encode(dict(chunk))
            embeddings.backward(gradient[start : start + len(embeddings)])
            start += len(embeddings)
        _set_random_state(after)
        return None, None, None, None, None


def encode_cached(
    encode: Callable[[Features], Tensor],
    features: Features,
    mini_batch_size: int,
    *,
    encode_last: Callable[[Features], Tensor] | None = None,
) -> Tensor:
    """Encode padded texts so that only ``mini_batch_size`` of them hold activations at a time.

    Args:
        encode: feature dict to embeddings ``(rows, dimension)``.
        features: padded texts.
        mini_batch_size: how many of them at a time.
        encode_last: what re-encodes the last mini-batch, ``encode`` by default; see
            :mod:`leanmatch.trainer.parallel`.
    """
    order = torch.argsort(features["attention_mask"].sum(1), stable=True)  # a mini-batch pads to its longest
    # an input that requires a gradient makes autograd call backward(); its own gradient is never used
    anchor = torch.empty(0, requires_grad=torch.is_grad_enabled())
    embeddings: Tensor = CachedEncoding.apply(  # type: ignore[no-untyped-call]
        anchor, encode, encode_last or encode, take(features, order), mini_batch_size
    )
    return embeddings[torch.argsort(order)]


def _random_state() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _set_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
