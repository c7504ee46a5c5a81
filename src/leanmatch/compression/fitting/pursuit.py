"""Pursuit and least squares on tensors: natively on CPUs, in batched torch elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from leanmatch.compression.decode import float_array, index_array
from leanmatch.factorization.pursuit import native
from leanmatch.factorization.pursuit.batched import TorchCodes, pursue_torch, refit_torch

if TYPE_CHECKING:
    from torch import Tensor


def pursue(weight: Tensor, atoms: Tensor, nonzeros: int) -> TorchCodes:
    """Greedy codes of every row and block: :func:`leanmatch.factorization.pursuit.native.pursue`.

    Args:
        weight: float32 ``(m, n)``.
        atoms: float32 ``(B, r, b)`` of any norm.
        nonzeros: ``k``.

    Returns:
        Indices int64 ``(m, B, k)``, values float32 ``(m, B, k)``, squared errors float32 ``(m, B)``.
    """
    if weight.device.type != "cpu":
        return pursue_torch(weight, atoms, nonzeros)
    return _tensors(
        native.pursue(float_array(weight), float_array(atoms), nonzeros, threads=torch.get_num_threads())
    )


def refit(weight: Tensor, atoms: Tensor, indices: Tensor) -> TorchCodes:
    """Least-squares coefficients on given supports ``(m, B, k)``; see :func:`pursue`."""
    if weight.device.type != "cpu":
        return refit_torch(weight, atoms, indices)
    support = index_array(indices, atoms.shape[1])
    return _tensors(
        native.refit(float_array(weight), float_array(atoms), support, threads=torch.get_num_threads())
    )


def _tensors(codes: native.Codes) -> TorchCodes:
    indices = torch.from_numpy(codes.indices.astype("int64"))
    return TorchCodes(indices, torch.from_numpy(codes.values), torch.from_numpy(codes.errors))
