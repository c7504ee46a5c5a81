"""Rounding to integer codes, on tensors, and training through it.

The codes are those of :func:`leanmatch.factorization.arrays.round_to_codes`. In training the forward pass
sees the rounded values, and the backward pass is the identity (straight-through; Bengio et al., arXiv
1308.3432).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from leanmatch.compression.decode import as_array
from leanmatch.errors import ModelError
from leanmatch.factorization.arrays import Float, Int8, largest_code, odd_codes, round_to_codes

if TYPE_CHECKING:
    from torch import Tensor


def quantize(x: Tensor, bits: int, trailing: int = 1) -> tuple[Int8, Float]:
    """Integer codes and their scales.

    Args:
        x: floats of any shape.
        bits: 2 to 8.
        trailing: this many last dimensions share a scale.

    Returns:
        Codes in the shape of ``x``; scales in its shape without the trailing dimensions.

    Raises:
        ModelError: ``x`` has NaN or infinite entries.
    """
    _check_finite(x)
    codes, scale = round_to_codes(as_array(x.float().flatten(x.ndim - trailing)), bits)
    return codes.reshape(x.shape), scale


def quantize_odd(x: Tensor, scale: Tensor, bits: int | Tensor) -> Int8:
    """Odd codes with scales that are given.

    Args:
        x: floats ``(..., n)``.
        scale: float32 ``(...)``, above 0.
        bits: 2 to 6, or integers that broadcast with ``x``.

    Raises:
        ModelError: ``x`` has NaN or infinite entries.
    """
    _check_finite(x)
    each = bits if isinstance(bits, int) else as_array(bits)
    return odd_codes(as_array(x.float()), as_array(scale), each)


def _check_finite(x: Tensor) -> None:
    if not bool(torch.isfinite(x).all()):
        raise ModelError(
            "weights to be quantized hold NaN or infinite values", remedy="lower the learning rate"
        )


def fake_quantize(x: Tensor, bits: int | None, trailing: int = 1) -> Tensor:
    """What the codes of :func:`quantize` stand for, with the gradient of ``x`` itself.

    With ``bits`` None it is ``x``; else ``bits`` is at least 4. For odd codes see :func:`fake_quantize_odd`.
    """
    if bits is None:
        return x
    with torch.no_grad():
        shared = tuple(range(x.ndim - trailing, x.ndim))
        # divided by a tensor: by a number, CUDA multiplies by its inverse, which differs in the last bit
        most = torch.full((), largest_code(bits), dtype=x.dtype, device=x.device)
        scale = x.abs().amax(shared, keepdim=True).div_(most)
        scale.masked_fill_(scale == 0, 1.0)
        error = torch.round(x / scale).mul_(scale).sub_(x)
    return x + error


def fake_quantize_odd(x: Tensor, scale: Tensor, bits: int | Tensor) -> Tensor:
    """What the codes of :func:`quantize_odd` stand for, to the bit, with the gradient of ``x`` itself.

    Scales do not follow ``x``: the best ones come from sums, which torch and numpy round differently.
    """
    with torch.no_grad():
        column = scale[..., None]
        half = 2.0 ** (torch.as_tensor(bits, dtype=x.dtype, device=x.device) - 1)
        h = torch.floor(x / (2 * column)).clamp_(-half, half - 1)
        rounded = h.mul_(2).add_(1).mul_(column)
    return rounded + (x - x.detach())
