"""Dense weights from factors, with gradients for both factors.

``W[o, i b + c] = sum_j values[o, i, j] atoms[i, indices[o, i, j], c]``. On CPUs the native kernels of
:mod:`leanmatch.factorization.pursuit.native` do it; elsewhere torch's ``embedding_bag``, which is the same
sum of ``k`` rows of a table for every row and block.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from leanmatch.factorization.pursuit import native

if TYPE_CHECKING:
    from torch import Tensor


def as_array(tensor: Tensor) -> Any:
    """A contiguous numpy copy on the CPU."""
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def float_array(tensor: Tensor) -> Any:
    """A contiguous float32 view of a tensor on the CPU where it can be one, else a copy."""
    return tensor.detach().float().contiguous().numpy()


def as_tensor(array: Any) -> Tensor:
    """A tensor of its own with the array's values, contiguous: stock trainers save no other."""
    return torch.from_numpy(np.array(array, copy=True, order="C"))


def index_tensor_dtype(atoms: int) -> torch.dtype:
    """The dtype that modules keep indices in: uint8 up to 256 atoms, int32 beyond."""
    return torch.uint8 if atoms <= 256 else torch.int32


def index_array(indices: Tensor, atoms: int) -> Any:
    """Indices as the arrays of :mod:`leanmatch.factorization` have them: uint8 or uint16."""
    return np.ascontiguousarray(
        indices.cpu().numpy().astype(np.uint8 if atoms <= 256 else np.uint16, copy=False)
    )


def decode(values: Tensor, atoms: Tensor, indices: Tensor) -> Tensor:
    """Dense rows, differentiable in ``values`` and ``atoms``, in float32 whatever autocast says.

    Args:
        values: float32 ``(m, B, k)``.
        atoms: float32 ``(B, r, b)``.
        indices: integers ``(m, B, k)``.

    Returns:
        float32 ``(m, B b)``.
    """
    with torch.autocast(values.device.type, enabled=False):
        if values.device.type == "cpu":
            dense: Tensor = _NativeDecode.apply(values, atoms, indices)  # type: ignore[no-untyped-call]
            return dense
        return bag_decode(values, atoms, indices)


def bag_decode(values: Tensor, atoms: Tensor, indices: Tensor) -> Tensor:
    """:func:`decode` for any device."""
    rows, blocks, nonzeros = values.shape
    count, block = atoms.shape[1:]
    starts = torch.arange(blocks, device=indices.device)[None, :, None] * count
    flat = (indices.long() + starts).reshape(rows * blocks, nonzeros)
    sums = functional.embedding_bag(
        flat, atoms.reshape(-1, block), per_sample_weights=values.reshape(-1, nonzeros), mode="sum"
    )
    return sums.view(rows, blocks * block)


def scatter_decode(values: Tensor, indices: Tensor, block: int) -> Tensor:
    """Dense rows of N:M pruned weights, float32 ``(m, B b)``: the atoms are the unit vectors."""
    rows, blocks, _ = values.shape
    dense = torch.zeros(rows, blocks, block, dtype=values.dtype, device=values.device)
    return dense.scatter(2, indices.long(), values).view(rows, blocks * block)


class _NativeDecode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, atoms: Tensor, indices: Tensor) -> Tensor:
        ctx.arrays = index_array(indices, atoms.shape[1]), float_array(values), float_array(atoms)
        return torch.from_numpy(native.decode(*ctx.arrays, threads=torch.get_num_threads()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        d_values, d_atoms = native.decode_backward(
            float_array(gradients[0]), *ctx.arrays, threads=torch.get_num_threads()
        )
        return torch.from_numpy(d_values), torch.from_numpy(d_atoms), None
