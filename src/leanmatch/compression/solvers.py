"""First factors of a weight, in torch: dense-sparse, N:M, low rank. Errors may be weighted by a metric.

A metric of the inputs ``H = E[x x^T]`` turns the error of ``W^`` into that of the layer's outputs:
``E |(W - W^) x|^2 = tr((W - W^) H (W - W^)^T)``. Dense-sparse factors take the blocks on its diagonal,
``H_i = L_i L_i^T``, and pursue ``W_i L_i`` with atoms ``D_i L_i``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from leanmatch.compression.matrices import as_array
from leanmatch.compression.pursuit import Codes, pursue
from leanmatch.factorization import DenseSparse, LowRank

if TYPE_CHECKING:
    from torch import Tensor

DAMPING = 0.01
"""Share of the mean of ``H``'s diagonal that is added to it: inputs that never came may come."""
RIDGE = 1e-4
SAMPLE = 8192
"""Rows that atoms are learned from at most; embeddings have more."""


def blocks_of(weight: Tensor, width: int) -> Tensor:
    """``(m, n)`` to ``(B, m, b)``."""
    return weight.view(weight.shape[0], -1, width).transpose(0, 1).contiguous()


def rows_of(blocks: Tensor) -> Tensor:
    """``(B, m, b)`` to ``(m, n)``."""
    return blocks.transpose(0, 1).reshape(blocks.shape[1], -1)


def block_metric(moment: Tensor | None, columns: int, width: int) -> Tensor:
    """Lower Cholesky factors ``L_i`` of the blocks on the diagonal of ``H``, damped: ``(B, b, b)``.

    The factors are scaled so that the mean of ``H``'s diagonal is 1. Without a moment: identity matrices.
    """
    blocks = columns // width
    if moment is None:
        return torch.eye(width).expand(blocks, width, width).clone()
    parts = moment.double().view(blocks, width, blocks, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    mean = moment.diagonal().double().mean().clamp_min(1e-30)
    eye = torch.eye(width, dtype=torch.float64, device=moment.device)
    factors: Tensor = torch.linalg.cholesky(parts / mean + DAMPING * eye)
    return factors.float()


def unit_atoms(atoms: Tensor) -> tuple[Tensor, Tensor]:
    """Atoms of unit norm, and the norms ``(B, r)``, at least 1e-12."""
    norms = atoms.norm(dim=2).clamp_min(1e-12)
    return atoms / norms[..., None], norms


def fit_dense_sparse(
    weight: Tensor,
    *,
    width: int,
    atoms: int,
    nonzeros: int,
    metric: Tensor,
    row_weights: Tensor | None = None,
    rounds: int = 10,
    seed: int = 0,
) -> DenseSparse:
    """Alternate pursuit and least-squares atoms, from atoms that are rows of the weight.

    Args:
        weight: float32 ``(m, n)``.
        width: ``b``.
        atoms: ``r``.
        nonzeros: ``k``.
        metric: what :func:`block_metric` gives.
        row_weights: ``(m,)``, how much each row's error counts in the atoms.
        rounds: of the alternation.
        seed: of the choice of rows.
    """
    targets = torch.bmm(blocks_of(weight.float(), width), metric)
    dictionary = _first_atoms(targets, atoms, seed)
    sample, weights = targets, row_weights
    if len(weight) > SAMPLE:
        rows = torch.randperm(len(weight), generator=torch.Generator().manual_seed(seed))[:SAMPLE]
        sample = targets[:, rows.to(targets.device)]
        weights = None if row_weights is None else row_weights[rows.to(targets.device)]
    for _ in range(rounds):
        codes = pursue(sample, dictionary, nonzeros)
        dictionary = update_atoms(sample, codes, dictionary, weights)
    codes = pursue(targets, dictionary, nonzeros)
    plain = torch.linalg.solve_triangular(metric, dictionary, upper=False, left=False)
    plain, norms = unit_atoms(plain)
    indices, values = codes.indices.transpose(0, 1), codes.values
    values = (values * norms[:, None].expand(-1, len(weight), -1).gather(2, codes.indices)).transpose(0, 1)
    dtype = "uint8" if atoms <= 256 else "uint16"
    return DenseSparse(as_array(plain), as_array(indices).astype(dtype), as_array(values))


def update_atoms(
    targets: Tensor, codes: Codes, dictionary: Tensor, row_weights: Tensor | None = None
) -> Tensor:
    """Least-squares atoms for given codes, of unit norm; an atom that nobody uses becomes the worst row.

    ``D = (S^T F S + ridge)^-1 S^T F T`` (method of optimal directions; Engan et al., 1999).
    """
    blocks, rows, _ = targets.shape
    count = dictionary.shape[1]
    dense = torch.zeros(blocks, rows, count, device=targets.device).scatter_(2, codes.indices, codes.values)
    weighted = dense if row_weights is None else dense * row_weights[None, :, None]
    gram = torch.bmm(weighted.transpose(1, 2), dense)
    scale = gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    gram += RIDGE * scale[:, None, None] * torch.eye(count, device=targets.device)
    made = torch.linalg.solve(gram, torch.bmm(weighted.transpose(1, 2), targets))
    used = dense.ne(0).sum(1) > 0
    if not bool(used.all()):
        worst = codes.error.argsort(1, descending=True)
        for block in (~used).any(1).nonzero().flatten().tolist():
            idle = (~used[block]).nonzero().flatten()
            spare = worst[block, : len(idle)]
            made[block, idle[: len(spare)]] = targets[block, spare]
    norms = made.norm(dim=2, keepdim=True)
    return torch.where(norms > 1e-9, made / norms.clamp_min(1e-9), dictionary)


def _first_atoms(targets: Tensor, atoms: int, seed: int) -> Tensor:
    """Unit-norm rows drawn without repetition; random directions where rows are too few or 0."""
    blocks, rows, width = targets.shape
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(blocks, atoms, width, generator=generator).to(targets)
    count = min(atoms, rows)
    for block in range(blocks):
        made[block, :count] = targets[
            block, torch.randperm(rows, generator=generator)[:count].to(targets.device)
        ]
    spare = torch.randn(made.shape, generator=generator).to(targets)
    made = torch.where(made.norm(dim=2, keepdim=True) > 1e-9, made, spare)
    return functional.normalize(made, dim=2)


def fit_nm(weight: Tensor, *, width: int, nonzeros: int, moment: Tensor | None = None) -> DenseSparse:
    """Keep the ``k`` largest ``|W_oc| sqrt(H_cc)`` of a row's blocks (Wanda, arXiv 2306.11695)."""
    score = weight.abs() if moment is None else weight.abs() * moment.diagonal().clamp_min(0).sqrt()
    indices = score.view(len(weight), -1, width).topk(nonzeros, dim=2).indices.sort(2).values
    values = weight.float().view(len(weight), -1, width).gather(2, indices)
    dtype = "uint8" if width <= 256 else "uint16"
    return DenseSparse.with_identity(as_array(indices).astype(dtype), as_array(values), width)


def fit_low_rank(weight: Tensor, rank: int, *, moment: Tensor | None = None) -> LowRank:
    """Truncated SVD of ``W M``, times ``M^-1``, with ``M M^T = moment`` (damped).

    A diagonal moment of column Fisher information makes it FWSVD (Hsu et al., arXiv 2207.00112); ``E[x x^T]``
    minimizes the error of outputs. Both factors get the square root of the singular values.
    """
    weight = weight.double()
    if moment is None:
        root = torch.eye(weight.shape[1], dtype=torch.float64, device=weight.device)
    else:
        damped = moment.double() + DAMPING * moment.diagonal().double().mean() * torch.eye(
            len(moment), dtype=torch.float64, device=weight.device
        )
        root = torch.linalg.cholesky(damped)
    left, sizes, right = torch.linalg.svd(weight @ root, full_matrices=False)
    half = sizes[:rank].sqrt()
    right = torch.linalg.solve_triangular(root, half[:, None] * right[:rank], upper=False, left=False)
    return LowRank(as_array((left[:, :rank] * half).float()), as_array(right.float()))


def rank_for(rows: int, columns: int, ratio: float) -> int:
    """The largest rank at ``ratio`` times fewer multiply-adds than the dense layer, at least 1."""
    return max(1, int(rows * columns / (ratio * (rows + columns))))
