"""Blocks of columns as a batch axis, and the metric of each block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from leanmatch.factorization import Calibration

if TYPE_CHECKING:
    from torch import Tensor


def blocks_of(weight: Tensor, width: int) -> Tensor:
    """``(m, n)`` to ``(B, m, b)``."""
    return weight.view(weight.shape[0], -1, width).transpose(0, 1).contiguous()


def rows_of(blocks: Tensor) -> Tensor:
    """``(B, m, b)`` to ``(m, n)``."""
    return blocks.transpose(0, 1).reshape(blocks.shape[1], -1)


def metric_of(statistics: Calibration, columns: int, width: int) -> Tensor:
    """Lower Cholesky factors ``L_i`` of the blocks on the diagonal of ``H``, damped: float32 ``(B, b, b)``.

    Scaled so that the mean square of their entries' rows is about 1. Without moments: identity matrices.
    """
    if statistics.moments is None:
        return torch.eye(width).expand(columns // width, width, width).clone()
    level = float(np.diagonal(statistics.moments).mean()) or 1.0
    return torch.from_numpy(statistics.roots(width) / np.sqrt(level)).float()
