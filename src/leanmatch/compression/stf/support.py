"""Changes of support. Functions of tensors; all errors are measured in the metric of the layer's inputs.

In the metric ``L`` a row's block ``w`` becomes ``w L`` and an atom ``d`` becomes ``d L``, so that plain norms
are errors of the layer's outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from leanmatch.compression.fitting.blocks import blocks_of, rows_of
from leanmatch.compression.fitting.pursuit import pursue, refit

if TYPE_CHECKING:
    from torch import Tensor


class Swap(NamedTuple):
    """Other supports for some rows and blocks."""

    changed: Tensor  # bool (m, B)
    indices: Tensor  # int64 (m, B, k)
    values: Tensor  # float32 (m, B, k)
    gain: Tensor  # float32 (m, B), relative; 0 where not changed


def propose(
    weight: Tensor,
    step: Tensor,
    indices: Tensor,
    atoms: Tensor,
    metric: Tensor,
    *,
    margin: float,
    share: float,
) -> Swap:
    """Pursue the shadow ``weight + step`` and keep what beats the present support by a margin.

    The gain of a row and block is the squared error that the present support leaves of the shadow, less what
    the pursued one leaves, over the squared size of the shadow. The shadow only chooses the support: new
    coefficients are those nearest to the present weight, since a step of the shadow's length in many rows
    breaks a model. A support whose coefficients lose more of the present weight than it gains of the shadow
    is not taken: with low learning rates such ones broke a model too (docs/LOG.md).

    Args:
        weight: the decoded weight ``(m, n)``.
        step: ``(m, n)``, where the straight-through gradient wants to go.
        indices: the present support ``(m, B, k)``.
        atoms: ``(B, r, b)``.
        metric: ``(B, b, b)``.
        margin: least gain.
        share: largest share of rows and blocks that change; those with the largest gains.
    """
    white_atoms = torch.bmm(atoms, metric)
    target = rows_of(torch.bmm(blocks_of(weight + step, metric.shape[1]), metric))
    present = refit(target, white_atoms, indices)
    other = pursue(target, white_atoms, indices.shape[2])
    size = blocks_of(target, metric.shape[1]).square().sum(2).T
    white = rows_of(torch.bmm(blocks_of(weight, metric.shape[1]), metric))
    moved = refit(white, white_atoms, other.indices)
    gain = present.errors - other.errors
    gain = torch.where(gain > moved.errors, gain, 0.0) / size.clamp_min(1e-30)
    limit = min(max(1, int(share * gain.numel())), gain.numel())
    floor = gain.flatten().topk(limit).values[-1]
    changed = (gain > margin) & (gain >= floor)
    return Swap(changed, other.indices, moved.values, gain * changed)
