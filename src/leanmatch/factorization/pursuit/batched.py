"""The pursuit in batched torch, for GPUs: the recursion of csrc/pursuit/kernel.h on tensors of any device.

Torch is imported when a function is called. On CPUs :func:`leanmatch.factorization.pursuit.native.pursue` is
faster by an order of magnitude.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from leanmatch.errors import DataError, UsageError
from leanmatch.factorization.pursuit.native import DEPENDENT, SELECTIONS

if TYPE_CHECKING:
    from torch import Tensor

CHUNKS = {"cpu": 1 << 20, "cuda": 1 << 26}
"""Correlations (rows, blocks, atoms) at once, by kind of device; it takes ``k + 2`` times as many floats."""
OTHER_CHUNK = 1 << 24


class TorchCodes(NamedTuple):
    """:class:`leanmatch.factorization.pursuit.native.Codes` in tensors: indices int64, the rest float32."""

    indices: Tensor
    values: Tensor
    errors: Tensor


def pursue_torch(
    weight: Tensor,
    atoms: Tensor,
    nonzeros: int,
    *,
    selection: str = "gain",
) -> TorchCodes:
    """:func:`leanmatch.factorization.pursuit.native.pursue` on the device of ``weight``, without a beam.

    Args:
        weight: float32 ``(m, n)``.
        atoms: float32 ``(B, r, b)`` on the same device.
        nonzeros: ``k``.
        selection: ``gain`` or ``correlation``.

    Raises:
        DataError: tensors that do not fit, numbers that are not finite.
        UsageError: options out of range.
    """
    import torch

    if selection not in SELECTIONS:
        raise UsageError(f"unknown selection {selection!r}", remedy=f"one of {', '.join(SELECTIONS)}")
    rows, unit, lengths = _checked(weight, atoms)
    if not 1 <= nonzeros <= atoms.shape[1]:
        limit = f"from 1 to the number of atoms, {atoms.shape[1]}"
        raise UsageError(f"nonzeros must be {limit} (found {nonzeros!r})")
    gram = unit @ unit.transpose(1, 2)
    chunk = CHUNKS.get(weight.device.type, OTHER_CHUNK)
    step = max(1, chunk // (atoms.shape[0] * atoms.shape[1]))
    parts = []
    for begin in range(0, max(len(rows), 1), step):
        part = rows[begin : begin + step]
        indices, values = _greedy(part, unit, gram, nonzeros, selection == "gain")
        errors = _errors(part, unit, indices, values)
        parts.append((indices, values * _at(lengths, indices), errors))
    result = TorchCodes(*(torch.cat(each) for each in zip(*parts, strict=True)))
    if not (torch.isfinite(result.values).all() and torch.isfinite(result.errors).all()):
        raise DataError("weight or atoms have values that are not finite, or too large to square in float32")
    return result


def refit_torch(weight: Tensor, atoms: Tensor, indices: Tensor) -> TorchCodes:
    """:func:`leanmatch.factorization.pursuit.native.refit` on the device of ``weight``.

    Raises:
        DataError: tensors that do not fit, numbers that are not finite.
    """
    import torch

    rows, unit, lengths = _checked(weight, atoms)
    indices = indices.long()
    values = _least_squares(rows, unit, unit @ unit.transpose(1, 2), indices)
    result = TorchCodes(indices, values * _at(lengths, indices), _errors(rows, unit, indices, values))
    if not (torch.isfinite(result.values).all() and torch.isfinite(result.errors).all()):
        raise DataError("weight or atoms have values that are not finite, or too large to square in float32")
    return result


def _checked(weight: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows ``(m, B, b)``, atoms of length 1, and 1 / length of each ``(B, r)``, 0 for length 0."""
    import torch

    fits = weight.ndim == 2 and atoms.ndim == 3 and weight.shape[1] == atoms.shape[0] * atoms.shape[2]
    if not fits or weight.dtype != torch.float32 or atoms.dtype != torch.float32:
        shapes = f"{weight.dtype} {tuple(weight.shape)}, {atoms.dtype} {tuple(atoms.shape)}"
        raise DataError(f"weight must be float32 (m, B b) and atoms float32 (B, r, b) (found {shapes})")
    lengths = torch.linalg.vector_norm(atoms, dim=2)
    inverse = torch.where(lengths > 0, 1 / lengths, torch.zeros_like(lengths))
    rows = weight.detach().reshape(weight.shape[0], atoms.shape[0], atoms.shape[2])
    return rows, atoms.detach() * inverse[..., None], inverse.detach()


def _at(per_atom: Tensor, indices: Tensor) -> Tensor:
    """``per_atom (B, r, ...)`` at ``indices (m, B, k)``."""
    import torch

    blocks = torch.arange(per_atom.shape[0], device=per_atom.device)[None, :, None]
    return per_atom[blocks, indices]


def _greedy(rows: Tensor, unit: Tensor, gram: Tensor, nonzeros: int, gain: bool) -> tuple[Tensor, Tensor]:
    import torch

    correlation = torch.einsum("mib,irb->mir", rows, unit)
    height = (gram.diagonal(dim1=1, dim2=2) > 0.5).float().expand_as(correlation).clone()
    free = torch.ones_like(correlation, dtype=torch.bool)
    m, blocks = correlation.shape[:2]
    chosen = torch.zeros((m, blocks, nonzeros), dtype=torch.long, device=rows.device)
    directions: list[Tensor] = []
    for j in range(nonzeros):
        scores = correlation.square() / height.clamp_min(DEPENDENT) if gain else correlation.abs()
        scores = torch.where(free & (height > DEPENDENT), scores, 0)
        best, atom = scores.max(dim=2, keepdim=True)
        ended = ~(best > 0)
        atom = torch.where(ended, free.int().argmax(dim=2, keepdim=True), atom)
        chosen[..., j : j + 1] = atom
        free = free.scatter(2, atom, False)
        if j + 1 == nonzeros:
            break
        direction = _at(gram, atom).squeeze(2)
        for before in directions:
            direction = direction - before.gather(2, atom) * before
        scale = torch.where(ended, 0, height.gather(2, atom).clamp_min(DEPENDENT).rsqrt())
        direction = direction * scale
        correlation = correlation - correlation.gather(2, atom) * scale * direction
        height = height - direction.square()
        directions.append(direction)
    return chosen, _least_squares(rows, unit, gram, chosen)


def _least_squares(rows: Tensor, unit: Tensor, gram: Tensor, indices: Tensor) -> Tensor:
    """Cholesky of the Gram matrix on each support, atom by atom; a dependent atom gets 0."""
    import torch

    nonzeros = indices.shape[2]
    used = _at(unit, indices)  # (m, B, k, b)
    target = torch.einsum("mikb,mib->mik", used, rows)
    local = used @ used.transpose(2, 3)
    factor = torch.zeros_like(local)
    solution = torch.zeros_like(target)
    for j in range(nonzeros):
        for i in range(j):
            explained = (factor[..., j, :i] * factor[..., i, :i]).sum(dim=-1)
            pivot = factor[..., i, i]
            line = (local[..., j, i] - explained) / torch.where(pivot > 0, pivot, 1)
            factor[..., j, i] = torch.where(pivot > 0, line, 0)
        height = local[..., j, j] - factor[..., j, :j].square().sum(dim=-1)
        independent = height > DEPENDENT
        pivot = torch.where(independent, height, 1).sqrt()
        value = (target[..., j] - (factor[..., j, :j] * solution[..., :j]).sum(dim=-1)) / pivot
        factor[..., j, :j] = torch.where(independent[..., None], factor[..., j, :j], 0)
        factor[..., j, j] = torch.where(independent, pivot, 0)
        solution[..., j] = torch.where(independent, value, 0)
    for j in reversed(range(nonzeros)):
        pivot = factor[..., j, j]
        later = (factor[..., j + 1 :, j] * solution[..., j + 1 :]).sum(dim=-1)
        value = (solution[..., j] - later) / torch.where(pivot > 0, pivot, 1)
        solution[..., j] = torch.where(pivot > 0, value, 0)
    return solution


def _errors(rows: Tensor, unit: Tensor, indices: Tensor, values: Tensor) -> Tensor:
    import torch

    fitted = torch.einsum("mik,mikb->mib", values, _at(unit, indices))
    return (rows - fitted).square().sum(dim=2)
