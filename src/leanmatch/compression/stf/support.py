"""Changes of support: dropping nonzeros, swapping atoms. Functions of tensors; all errors are in a metric.

Whitened: a row's block ``w`` stands for ``w L`` and an atom ``d`` for ``d L``, so that plain norms are
errors of the layer's outputs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from leanmatch.compression.fitting.blocks import blocks_of, rows_of
from leanmatch.compression.fitting.pursuit import pursue, refit

if TYPE_CHECKING:
    from torch import Tensor

RIDGE = 1e-4
NEVER = float("inf")


def whitened_atoms(atoms: Tensor, metric: Tensor) -> tuple[Tensor, Tensor]:
    """Unit-norm whitened atoms ``(B, r, b)``, and the norms ``(B, r)`` that were divided out."""
    white = torch.bmm(atoms, metric)
    norms = white.norm(dim=2).clamp_min(1e-12)
    return white / norms[..., None], norms


def gram_of(atoms: Tensor, indices: Tensor) -> Tensor:
    """Inner products of the chosen atoms, ``(m, B, k, k)``; atoms ``(B, r, b)``, indices ``(m, B, k)``."""
    table = torch.bmm(atoms, atoms.transpose(1, 2))
    count = atoms.shape[1]
    pairs = indices.long()[..., :, None] * count + indices.long()[..., None, :]
    blocks = torch.arange(atoms.shape[0], device=atoms.device)[None, :, None, None] * count * count
    return table.flatten()[pairs + blocks]


def drop_costs(values: Tensor, gram: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """What dropping each nonzero costs after the others made up for it (optimal brain surgeon).

    ``cost_j = v_j^2 / (G^-1)_jj``; the others then change by ``-v_j / (G^-1)_jj (G^-1)_:j`` (Hassibi, Stork,
    1993).

    Args:
        values: ``(m, B, k)``.
        gram: ``(m, B, k, k)``.
        kept: bool ``(m, B, k)``.

    Returns:
        costs ``(m, B, k)``, infinite where not kept; the inverse of ``gram`` over the kept ones, 0 elsewhere.
    """
    both = kept[..., :, None] & kept[..., None, :]
    eye = torch.eye(values.shape[2], device=values.device)
    scale = gram.diagonal(dim1=2, dim2=3).mean(2)[..., None, None]
    inverse = torch.linalg.inv(torch.where(both, gram, 0.0) + (RIDGE * scale + ~kept[..., None]) * eye)
    inverse = torch.where(both, inverse, 0.0)
    costs = values.square() / inverse.diagonal(dim1=2, dim2=3).clamp_min(1e-12)
    return costs.masked_fill(~kept, NEVER), inverse


def thin(
    values: Tensor, indices: Tensor, kept: Tensor, atoms: Tensor, metric: Tensor, *, least: int, total: int
) -> tuple[Tensor, Tensor]:
    """Drop the cheapest nonzeros until ``total`` are left, at least ``least`` a row and block.

    A row and block loses at most one a round. Costs are relative to the mean square of the row's values, so
    that no row is preferred for its size alone.

    Returns:
        values ``(m, B, k)`` with dropped ones 0 and the others adjusted; kept.
    """
    unit, norms = whitened_atoms(atoms, metric)
    scaled = values * gather_norms(norms, indices)
    gram = gram_of(unit, indices)
    kept = kept.clone()
    scaled = scaled * kept
    for _ in range(values.shape[2]):
        surplus = int(kept.sum()) - total
        open_ = kept.sum(2) > least
        if surplus <= 0 or not bool(open_.any()):
            break
        costs, inverse = drop_costs(scaled, gram, kept)
        cheapest = costs.argmin(2, keepdim=True)
        size = scaled.square().mean((1, 2)).clamp_min(1e-30)
        cost = (costs.gather(2, cheapest)[..., 0] / size[:, None]).masked_fill(~open_, NEVER)
        count = min(surplus, int(open_.sum()))
        chosen = torch.zeros(cost.numel(), dtype=torch.bool, device=cost.device)
        chosen[cost.flatten().topk(count, largest=False).indices] = True
        chosen = chosen.view(cost.shape)
        column = inverse.gather(3, cheapest[..., None].expand(-1, -1, inverse.shape[2], 1))[..., 0]
        pivot = inverse.diagonal(dim1=2, dim2=3).gather(2, cheapest).clamp_min(1e-12)
        change = scaled.gather(2, cheapest) / pivot * column
        scaled = torch.where(chosen[..., None], scaled - change, scaled)
        kept.scatter_(2, cheapest, kept.gather(2, cheapest) & ~chosen[..., None])
        scaled = scaled * kept
    return scaled / gather_norms(norms, indices), kept


def gather_norms(norms: Tensor, indices: Tensor) -> Tensor:
    """The norm of each chosen atom: norms ``(B, r)``, indices ``(m, B, k)``."""
    return norms.expand(indices.shape[0], -1, -1).gather(2, indices.long())


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
    breaks a model (docs/LOG.md).

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
    gain = (present.errors - other.errors) / size.clamp_min(1e-30)
    limit = min(max(1, int(share * gain.numel())), gain.numel())
    floor = gain.flatten().topk(limit).values[-1]
    changed = (gain > margin) & (gain >= floor)
    white = rows_of(torch.bmm(blocks_of(weight, metric.shape[1]), metric))
    values = refit(white, white_atoms, other.indices).values
    return Swap(changed, other.indices, values, gain * changed)


def compact(
    values: Tensor, indices: Tensor, kept: Tensor, atoms: Tensor, metric: Tensor, nonzeros: int
) -> tuple[Tensor, Tensor]:
    """Values and indices ``(m, B, nonzeros)``; where more are kept, the cheapest ones are dropped."""
    rows, blocks, _ = values.shape
    values, kept = thin(values, indices, kept, atoms, metric, least=nonzeros, total=rows * blocks * nonzeros)
    order = kept.int().sort(dim=2, descending=True, stable=True).indices[:, :, :nonzeros]
    return values.gather(2, order), indices.gather(2, order)
