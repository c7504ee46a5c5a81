"""Dense weights from factors, with gradients for both factors, and what a straight-through learner listens to.

``W[o, i b + c] = sum_j values[o, i, j] atoms[i, indices[o, i, j], c]``. This is a sum of ``k`` rows of a table for
each pair of a row and a block, which torch has as ``embedding_bag``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor


def flat_indices(indices: Tensor, atoms: int) -> Tensor:
    """Rows of the table of all blocks' atoms: ``i r + indices[o, i, j]``, int32 ``(m B, k)``."""
    rows, blocks, nonzeros = indices.shape
    starts = torch.arange(blocks, device=indices.device)[None, :, None] * atoms
    return (indices.long() + starts).reshape(rows * blocks, nonzeros).int()


def decode(values: Tensor, atoms: Tensor, flat: Tensor) -> Tensor:
    """Dense rows, differentiable in ``values`` and ``atoms``, in float32 whatever autocast says.

    Args:
        values: float32 ``(m, B, k)``.
        atoms: float32 ``(B, r, b)``.
        flat: what :func:`flat_indices` gives.

    Returns:
        float32 ``(m, B b)``.
    """
    rows, blocks, nonzeros = values.shape
    width = atoms.shape[2]
    with torch.autocast(values.device.type, enabled=False):
        sums = functional.embedding_bag(
            flat,
            atoms.reshape(-1, width),
            per_sample_weights=values.reshape(-1, nonzeros),
            mode="sum",
        )
    return sums.view(rows, blocks * width)


def scatter_decode(values: Tensor, indices: Tensor, block: int) -> Tensor:
    """Dense rows of N:M pruned weights, float32 ``(m, B b)``: the atoms are the unit vectors."""
    rows, blocks, _ = values.shape
    dense = torch.zeros(rows, blocks, block, dtype=values.dtype, device=values.device)
    return dense.scatter(2, indices.long(), values).view(rows, blocks * block)
