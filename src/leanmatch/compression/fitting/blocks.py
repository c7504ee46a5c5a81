"""Blocks of columns as a batch axis, and the metric of each block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from leanmatch.factorization import ErrorMetric

if TYPE_CHECKING:
    from torch import Tensor


def blocks_of(weight: Tensor, block: int) -> Tensor:
    """``(m, n)`` to ``(B, m, b)``."""
    return weight.view(weight.shape[0], -1, block).transpose(0, 1).contiguous()


def rows_of(blocks: Tensor) -> Tensor:
    """``(B, m, b)`` to ``(m, n)``."""
    return blocks.transpose(0, 1).reshape(blocks.shape[1], -1)


def block_roots(metric: ErrorMetric, columns: int, block: int) -> Tensor:
    """Lower Cholesky factors ``L_i`` of the blocks on the diagonal of ``H``, damped: float32 ``(B, b, b)``.

    They are scaled so that the mean of ``H``'s diagonal is 1. Without moments they are identity matrices.
    """
    if metric.moments is None:
        return torch.eye(block).expand(columns // block, block, block).clone()
    level = float(np.diagonal(metric.moments).mean()) or 1.0
    return torch.from_numpy(metric.roots(block) / np.sqrt(level)).float()
