"""Compressed matrices as modules: parameters while they are trained, integer buffers once they are final.

:class:`FactoredMatrix`, :class:`QuantizedMatrix` and :class:`LowRankMatrix` hold a weight ``(m, n)``; the
layers in :mod:`leanmatch.compression.layers` use them. Each has three faces: ``weight()``, float32 ``(m,
n)`` with gradients; ``to_factors()``, the arrays of :mod:`leanmatch.factorization`; ``finalize()``, which
replaces parameters by what an artifact stores. What the training sees and what ``finalize`` keeps are equal
to the bit.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from leanmatch.compression.decode import (
    as_array,
    as_tensor,
    decode,
    index_array,
    index_tensor_dtype,
    scatter_decode,
)
from leanmatch.compression.quantize import fake_quantize, fake_quantize_odd, quantize, quantize_odd
from leanmatch.compression.stf.evidence import Evidence
from leanmatch.errors import ModelError
from leanmatch.factorization import (
    DenseSparse,
    IntMatrix,
    LowRank,
    MixedIntMatrix,
    QuantizedDenseSparse,
)
from leanmatch.factorization.arrays import ODD_BITS
from leanmatch.factorization.dense_sparse import identity_atoms

if TYPE_CHECKING:
    from torch import Tensor


class FactoredMatrix(nn.Module):
    """Dense-sparse factors ``W_i = S_i D_i`` (or N:M pruned rows, whose atoms are unit vectors).

    While trained: parameters ``values (m, B, k)`` and ``atoms (B, r, b)``, buffer ``indices (m, B, k)``;
    values and atoms are rounded in every forward pass where ``value_bits`` is given (one scale a row of
    values, one an atom). Final, with bits: buffers ``values_q``, ``values_scale``, ``atoms_q``,
    ``atoms_scale``, ``indices``.

    Attributes:
        value_bits: 8, 6, 4, or None for floats.
        atom_bits: 8; matters where ``value_bits`` is given.
        identity: N:M pruning.
        stack: name of the stack whose members share their atoms, None elsewhere.
        metric: lower Cholesky factors (B, b, b) of the inputs' second moments, where conversion had them.
        evidence: what a straight-through learner gathers about the support, None without one.
    """

    indices: Tensor
    stf_steps: Tensor
    values_q: Tensor
    values_scale: Tensor
    atoms_q: Tensor
    atoms_scale: Tensor

    def __init__(
        self,
        factors: DenseSparse | QuantizedDenseSparse,
        *,
        value_bits: int | None = None,
        atom_bits: int = 8,
        stack: str | None = None,
        metric: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.shape = factors.shape
        self.block, self.atom_count = factors.block, factors.atom_count
        self.identity, self.stack = factors.identity, stack
        self.evidence: Evidence | None = None
        self.metric = metric
        self.finalized = isinstance(factors, QuantizedDenseSparse)
        indices = as_tensor(factors.indices.astype(np.int32)).to(index_tensor_dtype(self.atom_count))
        self.register_buffer("indices", indices)
        if isinstance(factors, QuantizedDenseSparse):
            self.value_bits: int | None = factors.value_bits
            self.atom_bits = factors.atom_bits
            self.register_buffer("values_q", as_tensor(factors.values_q))
            self.register_buffer("values_scale", as_tensor(factors.values_scale))
            if not self.identity:
                self.register_buffer("atoms_q", as_tensor(factors.atoms_q))
                self.register_buffer("atoms_scale", as_tensor(factors.atoms_scale))
        else:
            self.value_bits, self.atom_bits = value_bits, atom_bits
            self.values = nn.Parameter(as_tensor(factors.values))
            if not self.identity:
                self.atoms = nn.Parameter(as_tensor(factors.atoms))

    @property
    def quantized(self) -> bool:
        """Integer codes are stored."""
        return self.finalized and self.value_bits is not None

    def parts(self) -> tuple[Tensor, Tensor | None]:
        """Values ``(m, B, k)`` and atoms ``(B, r, b)`` as the forward pass uses them; atoms None for N:M."""
        if self.quantized:
            values = self.values_q.float() * self.values_scale[:, None, None]
            atoms = None if self.identity else self.atoms_q.float() * self.atoms_scale[..., None]
            return values, atoms
        values = fake_quantize(self.values, self.value_bits, trailing=2)
        if self.identity:
            return values, None
        return values, fake_quantize(self.atoms, self.atom_bits if self.value_bits else None)

    def weight(self) -> Tensor:
        """The dense matrix, float32 ``(m, n)``."""
        values, atoms = self.parts()
        if atoms is None:
            weight = scatter_decode(values, self.indices, self.block)
        else:
            weight = decode(values, atoms, self.indices)
        if self.evidence is not None and weight.requires_grad:
            weight.register_hook(self.evidence.listen)  # type: ignore[no-untyped-call]
        return weight

    def rows(self, wanted: Tensor) -> Tensor:
        """Some rows of the matrix, float32 ``(len(wanted), n)``; ``wanted`` int64 ``(rows,)``."""
        values, atoms = self.parts()
        if atoms is None:
            return scatter_decode(values[wanted], self.indices[wanted], self.block)
        return decode(values[wanted], atoms, self.indices[wanted])

    def atoms_or_identity(self) -> Tensor:
        """Trained atoms ``(B, r, b)`` without their gradient; identity matrices for N:M."""
        if not self.identity:
            return self.atoms.detach()
        blocks = self.indices.shape[1]
        return torch.eye(self.block, device=self.indices.device).expand(blocks, -1, -1).contiguous()

    def metric_or_identity(self) -> Tensor:
        """The metric ``(B, b, b)``; identity matrices where there is none."""
        if self.evidence is not None:
            return self.evidence.metric
        if self.metric is not None:
            return self.metric.to(self.indices.device)
        blocks = self.indices.shape[1]
        return torch.eye(self.block, device=self.indices.device).expand(blocks, -1, -1).contiguous()

    def set_support(self, indices: Tensor) -> None:
        """Take other atoms, int ``(m, B, k)``."""
        self.indices.copy_(indices)

    def to_factors(self) -> DenseSparse | QuantizedDenseSparse:
        """The factors; integer ones where ``value_bits`` is given."""
        indices = index_array(self.indices, self.atom_count)
        if self.value_bits is None:
            values = as_array(self.values)
            if self.identity:
                return DenseSparse.with_identity(indices, values, self.block)
            return DenseSparse(as_array(self.atoms), indices, values)
        if self.quantized:
            values_q, values_scale = as_array(self.values_q), as_array(self.values_scale)
        else:
            values_q, values_scale = quantize(self.values, self.value_bits, trailing=2)
        if self.identity:
            atoms_q = identity_atoms(indices.shape[1], self.block).astype(np.int8)
            atoms_scale = np.ones(atoms_q.shape[:2], np.float32)
        elif self.quantized:
            atoms_q, atoms_scale = as_array(self.atoms_q), as_array(self.atoms_scale)
        else:
            atoms_q, atoms_scale = quantize(self.atoms, self.atom_bits)
        return QuantizedDenseSparse(
            atoms_q=atoms_q,
            atoms_scale=atoms_scale,
            indices=indices,
            values_q=values_q,
            values_scale=values_scale,
            value_bits=self.value_bits,
            atom_bits=self.atom_bits,
            identity=self.identity,
        )

    def finalize(self) -> FactoredMatrix:
        """What an artifact stores and nothing else; trainable only where it holds floats."""
        final = FactoredMatrix(self.to_factors(), stack=self.stack).to(self.indices.device)
        final.finalized = True
        return final

    def reopen(self) -> FactoredMatrix:
        """Undo :meth:`finalize`: parameters with the values of the codes, which round to the same codes."""
        if not self.quantized:
            return self
        values, atoms = self.parts()
        indices = index_array(self.indices, self.atom_count)
        if atoms is None:
            factors = DenseSparse.with_identity(indices, as_array(values), self.block)
        else:
            factors = DenseSparse(as_array(atoms), indices, as_array(values))
        again = FactoredMatrix(
            factors, value_bits=self.value_bits, atom_bits=self.atom_bits, stack=self.stack
        )
        return again.to(self.indices.device)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *arguments: Any, **options: Any) -> None:
        if self.evidence is not None and f"{prefix}evidence.total" not in state_dict:
            self.evidence = None  # saved when its supports were final
        super()._load_from_state_dict(state_dict, prefix, *arguments, **options)

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        m, n = self.shape
        bits = "float" if self.value_bits is None else f"{self.value_bits} bits"
        size = f"b{self.block} r{self.atom_count} k{self.indices.shape[2]}"
        return f"{m} x {n}, {size}, {bits}" + (f", stack={self.stack}" if self.stack else "")


class QuantizedMatrix(nn.Module):
    """Integer codes with a scale for every ``group`` columns of a row.

    While trained: parameter ``full (m, n)``, rounded in every forward pass; with 2 and 3 bits also the buffer
    ``scale``, chosen for the initial weights. Final: buffers ``q`` and ``scale``.
    """

    q: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor | IntMatrix, *, bits: int = 8, group: int | None = None) -> None:
        super().__init__()
        self.finalized = isinstance(weight, IntMatrix)
        if isinstance(weight, IntMatrix):
            self.bits, self.group = weight.bits, weight.group
            self.register_buffer("q", as_tensor(weight.q))
            self.register_buffer("scale", as_tensor(weight.scale))
            self.shape = weight.shape
        else:
            self.shape = (weight.shape[0], weight.shape[1])
            self.bits, self.group = bits, group or self.shape[1]
            if self.shape[1] % self.group:
                raise ModelError(f"a group of {self.group} columns does not divide {self.shape[1]}")
            self.full = nn.Parameter(weight.detach().float().clone())
            if bits in ODD_BITS:
                self.register_buffer("scale", as_tensor(quantize(self._grouped(self.full), bits)[1]))

    def weight(self) -> Tensor:
        """The matrix as rounded, float32 ``(m, n)``."""
        return self.rows(None)

    def rows(self, wanted: Tensor | None) -> Tensor:
        """Some rows, or all of them for None."""
        if self.finalized:
            q, scale = (x if wanted is None else x[wanted] for x in (self.q, self.scale))
            return (q.view(len(q), -1, self.group).float() * scale[..., None]).view(len(q), -1)
        full = self.full if wanted is None else self.full[wanted]
        grouped = self._grouped(full)
        if self.bits in ODD_BITS:
            scale = self.scale if wanted is None else self.scale[wanted]
            return fake_quantize_odd(grouped, scale, self.bits).view(full.shape)
        return fake_quantize(grouped, self.bits).view(full.shape)

    def to_factors(self) -> IntMatrix:
        """Codes and scales."""
        if self.finalized:
            return IntMatrix(as_array(self.q), as_array(self.scale), bits=self.bits)
        grouped = self._grouped(self.full)
        if self.bits in ODD_BITS:
            q, scale = quantize_odd(grouped, self.scale, self.bits), as_array(self.scale)
        else:
            q, scale = quantize(grouped, self.bits)
        return IntMatrix(q.reshape(self.shape), scale, bits=self.bits)

    def _grouped(self, full: Tensor) -> Tensor:
        """Rows ``(rows, groups, group)``."""
        return full.view(len(full), self.shape[1] // self.group, self.group)

    def finalize(self) -> QuantizedMatrix:
        """The codes alone."""
        device = self.q.device if self.finalized else self.full.device
        return QuantizedMatrix(self.to_factors()).to(device)

    def reopen(self) -> QuantizedMatrix:
        """Undo :meth:`finalize`: the matrix as rounded becomes the parameter."""
        if not self.finalized:
            return self
        again = QuantizedMatrix(self.weight(), bits=self.bits, group=self.group)
        if self.bits in ODD_BITS:
            again.scale = self.scale.clone()
        return again

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        return f"{self.shape[0]} x {self.shape[1]}, {self.bits} bits, group={self.group}"


class MixedQuantizedMatrix(nn.Module):
    """Odd integer codes with a scale and a number of bits for each row.

    While trained: parameter ``full (m, n)``, rounded in every forward pass with the scales and bits of the
    initial weights. Final: buffers ``q``, ``scale`` and ``row_bits``.

    Args:
        factors: codes, scales and bits.
        weight: float ``(m, n)``, to be trained; None keeps the codes alone.
    """

    q: Tensor
    scale: Tensor
    row_bits: Tensor

    def __init__(self, factors: MixedIntMatrix, weight: Tensor | None = None) -> None:
        super().__init__()
        self.finalized, self.shape = weight is None, factors.shape
        self.register_buffer("scale", as_tensor(factors.scale))
        self.register_buffer("row_bits", as_tensor(factors.row_bits))
        if weight is None:
            self.register_buffer("q", as_tensor(factors.q))
        else:
            self.full = nn.Parameter(weight.detach().float().clone())

    def weight(self) -> Tensor:
        """The matrix as rounded, float32 ``(m, n)``."""
        return self.rows(None)

    def rows(self, wanted: Tensor | None) -> Tensor:
        """Some rows, or all of them for None."""
        entries = self.q if self.finalized else self.full
        own = (entries, self.scale, self.row_bits)
        entries, scale, bits = own if wanted is None else (part[wanted] for part in own)
        if self.finalized:
            return entries.float() * scale[:, None]
        return fake_quantize_odd(entries, scale, bits[:, None])

    def to_factors(self) -> MixedIntMatrix:
        """Codes, scales and bits."""
        scale, bits = as_array(self.scale), as_array(self.row_bits)
        if self.finalized:
            return MixedIntMatrix(as_array(self.q), scale, bits)
        return MixedIntMatrix(quantize_odd(self.full, self.scale, self.row_bits[:, None]), scale, bits)

    def finalize(self) -> MixedQuantizedMatrix:
        """The codes alone."""
        return MixedQuantizedMatrix(self.to_factors()).to(self.scale.device)

    def reopen(self) -> MixedQuantizedMatrix:
        """Undo :meth:`finalize`: the matrix as rounded becomes the parameter; scales and bits stay."""
        if not self.finalized:
            return self
        return MixedQuantizedMatrix(self.to_factors(), self.weight()).to(self.scale.device)

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        return f"{self.shape[0]} x {self.shape[1]}, {float(self.row_bits.float().mean()):.2f} bits on average"


class LowRankMatrix(nn.Module):
    """``W = left right`` with ``left (m, q)`` and ``right (q, n)``, floats or codes with a scale a row."""

    def __init__(self, factors: LowRank, *, bits: int | None = None) -> None:
        super().__init__()
        self.shape, self.rank = factors.shape, factors.rank
        self.left, self.right = (_part(part, bits) for part in (factors.left, factors.right))
        self.bits = self.left.bits if isinstance(self.left, QuantizedMatrix) else None

    def parts(self) -> tuple[Tensor, Tensor]:
        """``left`` and ``right`` as the forward pass uses them."""
        return self.left.weight(), self.right.weight()

    def weight(self) -> Tensor:
        """``left right``, float32 ``(m, n)``."""
        left, right = self.parts()
        return left @ right

    def to_factors(self) -> LowRank:
        """Both factors."""
        return LowRank(self.left.to_factors(), self.right.to_factors())

    def finalize(self) -> LowRankMatrix:
        """What an artifact stores."""
        device = next(self.left.buffers(), next(self.left.parameters(), torch.empty(0))).device
        return LowRankMatrix(self.to_factors()).to(device)

    def reopen(self) -> LowRankMatrix:
        """Undo :meth:`finalize`: both factors as rounded become parameters."""
        again = copy.deepcopy(self)
        for name in ("left", "right"):
            part = getattr(again, name)
            if isinstance(part, QuantizedMatrix):
                setattr(again, name, part.reopen())
        return again

    def extra_repr(self) -> str:
        """Sizes, for ``print(model)``."""
        return f"{self.shape[0]} x {self.shape[1]}, rank={self.rank}"


class FloatMatrix(nn.Module):
    """One factor in floats."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.full = nn.Parameter(weight)

    def weight(self) -> Tensor:
        """The matrix."""
        return self.full

    def to_factors(self) -> Any:
        """As an array."""
        return as_array(self.full)


def _part(part: Any, bits: int | None) -> FloatMatrix | QuantizedMatrix:
    if isinstance(part, IntMatrix):
        return QuantizedMatrix(part)
    return FloatMatrix(as_tensor(part)) if bits is None else QuantizedMatrix(as_tensor(part), bits=bits)
