"""Blocks of columns as a batch axis, and the metric of each block."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from leanmatch.compression.decode import as_array
from leanmatch.factorization import Calibration
from leanmatch.factorization.calibration import block_metric

if TYPE_CHECKING:
    from torch import Tensor


def blocks_of(weight: Tensor, width: int) -> Tensor:
    """``(m, n)`` to ``(B, m, b)``."""
    return weight.view(weight.shape[0], -1, width).transpose(0, 1).contiguous()


def rows_of(blocks: Tensor) -> Tensor:
    """``(B, m, b)`` to ``(m, n)``."""
    return blocks.transpose(0, 1).reshape(blocks.shape[1], -1)


def metric_of(moment: Tensor | None, columns: int, width: int) -> Tensor:
    """Lower Cholesky factors ``L_i`` of the blocks on the diagonal of ``H``, damped: float32 ``(B, b, b)``.

    Scaled so that the mean square of their entries' rows is about 1. Without a moment: identity matrices.
    """
    if moment is None:
        return torch.eye(width).expand(columns // width, width, width).clone()
    level = moment.diagonal().mean().clamp_min(1e-30)
    roots = block_metric(Calibration(moments=as_array((moment / level).double())), 1, columns, width).roots
    return torch.from_numpy(roots).float().to(moment.device)
