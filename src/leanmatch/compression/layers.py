"""Layers over compressed matrices that stand in for ``nn.Linear`` and ``nn.Embedding``.

Every layer has ``factors`` (a matrix module), ``to_factors()`` and ``from_factors(factors, bias)``. Linear
layers compute ``y = x W^T + bias`` with the decoded weight: in torch they save bytes and let the factors be
trained; what saves time is the native runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import torch
from torch import nn
from torch.nn import functional

from leanmatch.compression.decode import as_tensor
from leanmatch.compression.matrices import (
    FactoredMatrix,
    LowRankMatrix,
    MixedQuantizedMatrix,
    QuantizedMatrix,
)
from leanmatch.errors import ModelError
from leanmatch.factorization import (
    DenseSparse,
    IntMatrix,
    LowRank,
    MixedIntMatrix,
    QuantizedDenseSparse,
)

if TYPE_CHECKING:
    from torch import Tensor

Matrix: TypeAlias = FactoredMatrix | QuantizedMatrix | MixedQuantizedMatrix | LowRankMatrix


class CompressedLayer(nn.Module):
    """Abstract: a layer whose weight is a compressed matrix.

    Attributes:
        factors: the matrix module.
    """

    factors: Matrix

    def to_factors(self) -> DenseSparse | QuantizedDenseSparse | IntMatrix | MixedIntMatrix | LowRank:
        """The weight as arrays; what :func:`leanmatch.compression.finalize` would keep."""
        return self.factors.to_factors()

    def finalize_(self) -> None:
        """Replace the matrix by what an artifact stores, in place."""
        self.factors = self.factors.finalize()
        self._forget()

    def reopen_(self) -> None:
        """Undo :meth:`finalize_`, in place: the matrix can be trained."""
        self.factors = self.factors.reopen()
        self._forget()

    @property
    def finalized(self) -> bool:
        """No parameter is left that training would have to round: decoded weights may be kept."""
        matrix = self.factors
        return getattr(matrix, "finalized", False) or next(matrix.parameters(), None) is None

    def decoded(self) -> Tensor:
        """The weight, float32 ``(m, n)``; kept between calls once it is final and needs no gradient."""
        if not self.finalized or (
            torch.is_grad_enabled() and next(self.factors.parameters(), None) is not None
        ):
            return self._trained_weight()
        cached: Tensor | None = self.__dict__.get("_decoded")
        if cached is None:
            with torch.no_grad():
                cached = self.factors.weight()
            self.__dict__["_decoded"] = cached
        return cached

    def _trained_weight(self) -> Tensor:
        held: dict[str, Tensor] | None = self.__dict__.get("_held")
        if held is None:
            return self.factors.weight()
        if not held:
            weight = self.factors.weight()
            device = weight.device.type  # autocast would convert the weight at each use
            mixed = torch.is_autocast_enabled(device)
            held["weight"] = weight.to(torch.get_autocast_dtype(device)) if mixed else weight
        return held["weight"]

    def _forget(self) -> None:
        self.__dict__.pop("_decoded", None)

    def _apply(self, *arguments: Any, **options: Any) -> Self:
        self._forget()
        applied: Self = super()._apply(*arguments, **options)  # type: ignore[no-untyped-call]
        return applied

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        self._forget()
        super()._load_from_state_dict(*arguments, **options)

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("_decoded", None)
        state.pop("_held", None)
        return state


@contextmanager
def decoded_once(model: nn.Module, *, again: bool = False) -> Iterator[None]:
    """Let each compressed layer decode its weight once, for a batch that goes through the model in parts.

    The parameters must not change meanwhile; ``backward`` may follow later.

    Args:
        model: the model with the layers.
        again: decode at every call after all. For passes that are computed once more for their gradients,
            which must repeat the decoding.
    """
    layers = [module for module in model.modules() if isinstance(module, CompressedLayer)]
    before = [layer.__dict__.get("_held") for layer in layers]
    for layer in layers:
        layer.__dict__["_held"] = None if again else {}
    try:
        yield
    finally:
        for layer, held in zip(layers, before, strict=True):
            layer.__dict__["_held"] = held


class CompressedLinear(CompressedLayer):
    """Abstract: ``y = x W^T + bias``.

    Args:
        factors: the matrix module ``(m, n)``.
        bias: float ``(m,)`` or None.
    """

    def __init__(self, factors: Matrix, bias: Tensor | None = None) -> None:
        super().__init__()
        self.factors = factors
        self.out_features, self.in_features = factors.shape
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ModelError(
                f"the bias must have the shape ({self.out_features},) (found {tuple(bias.shape)})"
            )
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        """The decoded weight ``(m, n)``, for code that looks at ``layer.weight``."""
        return self.decoded()

    def forward(self, x: Tensor) -> Tensor:
        """``(..., n)`` to ``(..., m)``."""
        weight = self.decoded()
        return functional.linear(
            x, weight if torch.is_autocast_enabled(x.device.type) else weight.to(x.dtype), self.bias
        )


class FactoredLinear(CompressedLinear):
    """A linear layer with dense-sparse factors or N:M pruned rows."""

    factors: FactoredMatrix

    @classmethod
    def from_factors(
        cls, factors: DenseSparse | QuantizedDenseSparse, bias: Any = None, *, stack: str | None = None
    ) -> FactoredLinear:
        """From arrays: a final layer from integer codes, a trainable one from floats."""
        return cls(FactoredMatrix(factors, stack=stack), _bias(bias))


class QuantizedLinear(CompressedLinear):
    """A linear layer with weights in integer codes."""

    factors: QuantizedMatrix

    @classmethod
    def from_factors(cls, factors: IntMatrix, bias: Any = None) -> QuantizedLinear:
        """From codes; the layer is final."""
        return cls(QuantizedMatrix(factors), _bias(bias))


class LowRankLinear(CompressedLinear):
    """A linear layer of low rank: ``y = (x right^T) left^T + bias``."""

    factors: LowRankMatrix

    @classmethod
    def from_factors(cls, factors: LowRank, bias: Any = None) -> LowRankLinear:
        """From arrays: final where both factors are integer codes."""
        return cls(LowRankMatrix(factors), _bias(bias))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., n)`` to ``(..., m)``, through ``q`` features."""
        left, right = self.factors.parts()
        if not torch.is_autocast_enabled(x.device.type):
            left, right = left.to(x.dtype), right.to(x.dtype)
        return functional.linear(functional.linear(x, right), left, self.bias)


TableMatrix: TypeAlias = FactoredMatrix | QuantizedMatrix | MixedQuantizedMatrix


class CompressedEmbedding(CompressedLayer):
    """Abstract: rows of a compressed matrix.

    Args:
        factors: the matrix module ``(entries, dimension)``.
        padding_idx: as in ``nn.Embedding``: the row whose gradient is not taken.
    """

    factors: TableMatrix

    def __init__(self, factors: TableMatrix, padding_idx: int | None = None) -> None:
        super().__init__()
        self.factors = factors
        self.num_embeddings, self.embedding_dim = factors.shape
        self.padding_idx = padding_idx

    @property
    def weight(self) -> Tensor:
        """The decoded table ``(entries, dimension)``."""
        return self.decoded()

    def forward(self, ids: Tensor) -> Tensor:
        """``(...)`` to ``(..., dimension)``; each distinct id is decoded once."""
        if not ids.numel():
            return torch.zeros(*ids.shape, self.embedding_dim, device=ids.device)
        distinct, inverse = torch.unique(ids, return_inverse=True)
        rows = self.factors.rows(distinct)
        if self.padding_idx is not None and rows.requires_grad:
            rows = torch.where((distinct == self.padding_idx)[:, None], rows.detach(), rows)
        return functional.embedding(inverse, rows)


class FactoredEmbedding(CompressedEmbedding):
    """An embedding table with dense-sparse rows."""

    factors: FactoredMatrix

    @classmethod
    def from_factors(
        cls,
        factors: DenseSparse | QuantizedDenseSparse,
        bias: None = None,
        *,
        padding_idx: int | None = None,
    ) -> FactoredEmbedding:
        """From arrays; there is no bias."""
        return cls(FactoredMatrix(factors), padding_idx)


class QuantizedEmbedding(CompressedEmbedding):
    """An embedding table with rows in integer codes."""

    factors: QuantizedMatrix | MixedQuantizedMatrix

    @classmethod
    def from_factors(
        cls, factors: IntMatrix | MixedIntMatrix, bias: None = None, *, padding_idx: int | None = None
    ) -> QuantizedEmbedding:
        """From codes; there is no bias."""
        if isinstance(factors, MixedIntMatrix):
            return cls(MixedQuantizedMatrix(factors), padding_idx)
        return cls(QuantizedMatrix(factors), padding_idx)


def _bias(bias: Any) -> Tensor | None:
    return bias if bias is None or isinstance(bias, torch.Tensor) else as_tensor(bias)
