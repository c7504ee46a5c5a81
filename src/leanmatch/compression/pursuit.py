"""Orthogonal matching pursuit and least squares on a support, batched over blocks: native on CPUs, else in
torch.

Batched over blocks ``B`` and rows ``m``: targets ``(B, m, b)``, unit-norm atoms ``(B, r, b)``, ``k``
nonzeros. The chosen atoms are orthonormalized one after the other (modified Gram-Schmidt), so that residuals
need no solver and coefficients one triangular solve. Source: Pati, Rezaiifar, Krishnaprasad: Orthogonal
matching pursuit, 1993.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from leanmatch.compression.decode import index_array
from leanmatch.factorization import pursuit as native

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST = 1e-6
"""A chosen unit atom with less than this left outside the others' span adds nothing; its coefficient is 0."""


class Codes(NamedTuple):
    """``targets ~ sum_j values[..., j] atoms[indices[..., j]]``."""

    indices: Tensor  # int64 (B, m, k), distinct along k
    values: Tensor  # float32 (B, m, k)
    error: Tensor  # float32 (B, m): squared norm of what is left


def pursue(targets: Tensor, atoms: Tensor, nonzeros: int) -> Codes:
    """Greedy codes: at each step the atom with the largest ``|<residual, atom>|``, then least squares.

    Args:
        targets: float32 ``(B, m, b)``.
        atoms: float32 ``(B, r, b)`` of unit norm (a zero atom is never chosen before others).
        nonzeros: ``k`` at most ``r``.
    """
    if targets.device.type == "cpu":
        return _from_native(
            native.pursue(*_arrays(targets, atoms), nonzeros, threads=torch.get_num_threads())
        )
    return pursue_torch(targets, atoms, nonzeros)


def pursue_torch(targets: Tensor, atoms: Tensor, nonzeros: int) -> Codes:
    """:func:`pursue` for any device."""
    blocks, rows, _ = targets.shape
    indices = torch.empty(blocks, rows, nonzeros, dtype=torch.int64, device=targets.device)
    transposed = atoms.transpose(1, 2)

    def choose(step: int, residual: Tensor) -> Tensor:
        score = torch.bmm(residual, transposed).abs_()
        if step:
            score.scatter_(2, indices[:, :, :step], -1.0)
        indices[:, :, step] = score.argmax(2)
        return indices[:, :, step]

    values, error = _orthogonalize(targets, atoms, nonzeros, choose)
    return Codes(indices, values, error)


def project(targets: Tensor, atoms: Tensor, indices: Tensor) -> Codes:
    """Least-squares coefficients on given supports ``(B, m, k)``; atoms of unit norm."""
    if targets.device.type == "cpu":
        support = index_array(indices.transpose(0, 1), atoms.shape[1])
        return _from_native(native.refit(*_arrays(targets, atoms), support, threads=torch.get_num_threads()))
    return project_torch(targets, atoms, indices)


def project_torch(targets: Tensor, atoms: Tensor, indices: Tensor) -> Codes:
    """:func:`project` for any device."""
    values, error = _orthogonalize(targets, atoms, indices.shape[2], lambda step, _: indices[:, :, step])
    return Codes(indices, values, error)


def _arrays(targets: Tensor, atoms: Tensor) -> tuple[Any, Any]:
    rows = targets.transpose(0, 1).reshape(targets.shape[1], -1)
    return rows.float().contiguous().numpy(), atoms.float().contiguous().numpy()


def _from_native(codes: native.Codes) -> Codes:
    return Codes(
        torch.from_numpy(codes.indices.astype("int64")).transpose(0, 1),
        torch.from_numpy(codes.values).transpose(0, 1),
        torch.from_numpy(codes.errors).T,
    )


def _orthogonalize(
    targets: Tensor, atoms: Tensor, nonzeros: int, choose: Callable[[int, Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    blocks, rows, width = targets.shape
    residual = targets.clone()
    basis: list[Tensor] = []
    weights: list[Tensor] = []
    triangle = targets.new_zeros(blocks, rows, nonzeros, nonzeros)
    for step in range(nonzeros):
        chosen = choose(step, residual)
        atom = torch.gather(atoms, 1, chosen[..., None].expand(-1, -1, width))
        left = atom.clone()
        for earlier, direction in enumerate(basis):
            overlap = (direction * left).sum(2, keepdim=True)
            triangle[:, :, earlier, step] = overlap[..., 0]
            left -= overlap * direction
        norm = left.norm(dim=2, keepdim=True)
        triangle[:, :, step, step] = norm[..., 0].clamp_min(SMALLEST)
        direction = torch.where(norm > SMALLEST, left / norm.clamp_min(SMALLEST), 0.0)
        weight = (direction * residual).sum(2, keepdim=True)
        residual -= weight * direction
        basis.append(direction)
        weights.append(weight[..., 0])
    # back substitution: triangle @ values = weights
    values: list[Tensor] = [torch.empty(0)] * nonzeros
    for step in reversed(range(nonzeros)):
        right = weights[step]
        for later in range(step + 1, nonzeros):
            right = right - triangle[:, :, step, later] * values[later]
        values[step] = right / triangle[:, :, step, step]
    return torch.stack(values, 2), (residual * residual).sum(2)
