"""What training says about the support of a factored matrix: straight-through gradients, gathered while it
trains.

The forward pass uses ``W^ = S D``. Its backward pass meets ``G = dL/dW^``, the gradient that a dense weight
in this place would get. The part of it that lies in the span of a row's atoms moves ``S``; the rest is lost
to ``S``, and is what an other support could use. :class:`Evidence` sums ``G`` between two refreshes: the
shadow weight is ``W^ - step * G``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class Evidence(nn.Module):
    """Sums of straight-through gradients of one matrix, kept in its state dict.

    Attributes:
        metric: ``(B, b, b)``, lower Cholesky factors ``L_i`` of the inputs' second moments.
        total: ``(m, n)``, sum of ``G`` since the last refresh.
        power: ``(m, B)``, sum of each block's ``|G|^2 / b`` in the metric's units: how large ``total`` is
            by chance.
        active: nothing is gathered while this is false.
    """

    metric: Tensor
    total: Tensor
    power: Tensor

    def __init__(self, shape: tuple[int, int], metric: Tensor) -> None:
        super().__init__()
        self.register_buffer("metric", metric.detach().clone())
        self.register_buffer("total", torch.zeros(shape, device=metric.device))
        self.register_buffer("power", torch.zeros(shape[0], len(metric), device=metric.device))
        self.active = True

    def listen(self, gradient: Tensor) -> None:
        """Add the gradient of one backward pass, ``(m, n)``."""
        if not self.active:
            return
        gradient = gradient.detach().float()
        self.total += gradient
        blocks, block, _ = self.metric.shape
        scaled = gradient.square().view(-1, blocks, block) / self.metric.square().sum(2)
        self.power += scaled.mean(2)

    def reset(self) -> None:
        """Start anew, after a refresh."""
        self.total.zero_()
        self.power.zero_()
