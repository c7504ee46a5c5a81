"""Symmetric round to nearest, trained through: the forward pass sees the quantized value, the gradient
passes.

``q = round(x / scale)``, ``|q| <= 2^(bits-1) - 1``, ``scale = max|x| / (2^(bits-1) - 1)`` over the entries
that share it. The backward pass of the round trip is the identity (straight-through; Bengio et al., arXiv
1308.3432).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from leanmatch.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


def largest_code(bits: int) -> int:
    """The largest code of symmetric ``bits``-bit integers: 127 for 8 bits, 7 for 4."""
    return (1 << (bits - 1)) - 1


def quantize(x: Tensor, bits: int, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Codes and scales.

    Args:
        x: floats of any shape.
        bits: 2 to 8.
        dims: dimensions that share a scale.

    Returns:
        ``q`` int8, shape of ``x``; ``scale`` float32, shape of ``x`` with 1 in ``dims``; 1 where all of
        ``x`` is 0.

    Raises:
        ModelError: ``x`` has NaN or infinite entries.
    """
    if not bool(torch.isfinite(x).all()):
        raise ModelError(
            "weights to be quantized hold NaN or infinite values", remedy="lower the learning rate"
        )
    x = x.detach().float()
    scale = _scale(x, bits, dims)
    return torch.round(x / scale).to(torch.int8), scale


def fake_quantize(x: Tensor, bits: int | None, dims: tuple[int, ...]) -> Tensor:
    """``dequantize(quantize(x))`` whose gradient is that of ``x`` itself; ``x`` where ``bits`` is None."""
    if bits is None:
        return x
    with torch.no_grad():
        scale = _scale(x, bits, dims)
        error = torch.round(x / scale).mul_(scale).sub_(x)
    return x + error


def _scale(x: Tensor, bits: int, dims: tuple[int, ...]) -> Tensor:
    scale = x.abs().amax(dims, keepdim=True).div_(largest_code(bits))
    return scale.masked_fill_(scale == 0, 1.0)
