"""How one layer is compressed: a dataclass for each method. No torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, get_args, get_type_hints

from leanmatch.errors import UsageError
from leanmatch.factorization.checks import MOST_ATOMS, check_bits, check_count
from leanmatch.factorization.cost import (
    Cost,
    dense_cost,
    dense_sparse_cost,
    int_cost,
    low_rank_cost,
    mixed_cost,
)
from leanmatch.factorization.dense_sparse import ATOM_BITS, VALUE_BITS
from leanmatch.factorization.factors import INT_MATRIX_BITS, ROW_BITS

WEIGHTINGS: Mapping[str, str] = MappingProxyType(
    {
        "auto": "activation where calibration texts are given, none elsewhere",
        "none": "plain Frobenius error",
        "activation": "error of the layer's outputs on the calibration texts",
        "fisher": "columns weighted by diagonal Fisher information (low rank: FWSVD)",
    }
)
"""Errors that first factors can minimize."""

LOW_RANK_BITS = (8, 4)
"""Bits of the codes of low-rank factors."""


class LayerSpec(ABC):
    """How one layer is compressed. Each method has a dataclass of its own, listed in :data:`LAYER_SPECS`.

    Attributes:
        method: the method's name in JSON.
        for_embeddings: whether embedding tables can be compressed this way.
    """

    method: ClassVar[str]
    for_embeddings: ClassVar[bool] = False

    @property
    def weighting(self) -> str:
        """One of :data:`WEIGHTINGS`. Methods that minimize no error are measured by it alone."""
        return "auto"

    @abstractmethod
    def misfit(self, m: int, n: int) -> str | None:
        """Why a weight ``(m, n)`` cannot be compressed this way, None where it can."""

    @abstractmethod
    def cost(self, m: int, n: int) -> Cost:
        """Multiply-adds and bits of a compressed weight ``(m, n)`` that has no misfit."""

    def to_json(self) -> dict[str, Any]:
        """The method and its fields."""
        return {"method": self.method, **asdict(self)}  # type: ignore[call-overload]

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> LayerSpec:
        """Build from a mapping. What is left out takes its default; the method defaults to dense-sparse.

        Options of other methods are skipped: files of earlier versions name the options of all methods.

        Raises:
            UsageError: an unknown method or option (the valid ones are listed), or a value of the wrong type.
        """
        method = values.get("method", DenseSparseSpec.method)
        if method not in LAYER_SPECS:
            raise UsageError(f"unknown method {method!r}", remedy=f"one of {', '.join(LAYER_SPECS)}")
        spec = LAYER_SPECS[method]
        types = _option_types(spec)
        everywhere = {name for other in LAYER_SPECS.values() for name in _option_types(other)}
        options = {name: value for name, value in values.items() if name != "method"}
        for name, value in options.items():
            if name not in everywhere:
                valid = ", ".join(["method", *types])
                raise UsageError(f"unknown layer option {name!r}", remedy=f"one of {valid} for {method}")
            if name in types and not _has_type(value, types[name]):
                shown = " or ".join("null" if kind is type(None) else kind.__name__ for kind in types[name])
                raise UsageError(f"layer option {name!r} must be {shown} (found {value!r})")
        return spec(**{name: value for name, value in options.items() if name in types})


@dataclass(frozen=True, kw_only=True)
class DenseSparseSpec(LayerSpec):
    """Dense-sparse factors ``W_i = S_i D_i`` for each block ``i`` of columns (DSFormer).

    Attributes:
        block: columns ``b`` per block; must divide the layer's inputs.
        atoms: atoms ``r`` per block.
        nonzeros: nonzeros ``k`` per row and block.
        value_bits: 8, 6 or 4; None keeps values and atoms as floats.
        atom_bits: 8; matters where values have bits.
        weighting: one of :data:`WEIGHTINGS`.
        compensate: later blocks make up for the errors of earlier ones, where calibration texts are given.

    Raises:
        UsageError: a value out of range.
    """

    method: ClassVar[str] = "dense-sparse"
    for_embeddings: ClassVar[bool] = True

    block: int = 16
    atoms: int = 64
    nonzeros: int = 4
    value_bits: int | None = 8
    atom_bits: int = 8
    weighting: str = "auto"
    compensate: bool = True

    def __post_init__(self) -> None:
        check_count("block", self.block, 1)
        check_count("atoms", self.atoms, 1, MOST_ATOMS)
        check_count("nonzeros", self.nonzeros, 1, self.atoms)
        if self.value_bits is not None:
            check_bits("value_bits", self.value_bits, VALUE_BITS)
        check_bits("atom_bits", self.atom_bits, ATOM_BITS)
        _check_weighting(self.weighting)

    def misfit(self, m: int, n: int) -> str | None:
        """Blocks must divide the inputs."""
        return _undivided(n, self.block)

    def cost(self, m: int, n: int) -> Cost:
        """:func:`leanmatch.factorization.cost.dense_sparse_cost`."""
        size = (m, n, self.block, self.atoms, self.nonzeros)
        return dense_sparse_cost(*size, value_bits=self.value_bits, atom_bits=self.atom_bits)


@dataclass(frozen=True, kw_only=True)
class PruningSpec(LayerSpec):
    """N:M pruning: the ``nonzeros`` largest entries of every block of a row stay.

    Attributes:
        block: columns per block; must divide the layer's inputs.
        nonzeros: entries that stay in each row and block.
        value_bits: 8, 6 or 4; None keeps floats.
        weighting: one of :data:`WEIGHTINGS`.

    Raises:
        UsageError: a value out of range.
    """

    method: ClassVar[str] = "nm"

    block: int = 16
    nonzeros: int = 4
    value_bits: int | None = 8
    weighting: str = "auto"

    def __post_init__(self) -> None:
        check_count("block", self.block, 1, MOST_ATOMS)
        check_count("nonzeros", self.nonzeros, 1, self.block)
        if self.value_bits is not None:
            check_bits("value_bits", self.value_bits, VALUE_BITS)
        _check_weighting(self.weighting)

    def misfit(self, m: int, n: int) -> str | None:
        """Blocks must divide the inputs."""
        return _undivided(n, self.block)

    def cost(self, m: int, n: int) -> Cost:
        """:func:`leanmatch.factorization.cost.dense_sparse_cost` without atoms."""
        size = (m, n, self.block, self.block, self.nonzeros)
        return dense_sparse_cost(*size, value_bits=self.value_bits, identity=True)


@dataclass(frozen=True, kw_only=True)
class LowRankSpec(LayerSpec):
    """``W = L R`` of one rank: SVD, in the layer's metric.

    Attributes:
        rank: of both factors; None takes the largest that saves ``ratio``.
        ratio: how many times fewer multiply-adds, where ``rank`` is None.
        value_bits: 8 or 4; None keeps floats.
        weighting: one of :data:`WEIGHTINGS`.

    Raises:
        UsageError: a value out of range.
    """

    method: ClassVar[str] = "low-rank"

    rank: int | None = None
    ratio: float = 2.67
    value_bits: int | None = 8
    weighting: str = "auto"

    def __post_init__(self) -> None:
        if self.rank is not None:
            check_count("rank", self.rank, 1)
        if not 1 <= self.ratio < float("inf"):
            raise UsageError(f"ratio must be at least 1 and finite (found {self.ratio})")
        if self.value_bits is not None:
            check_bits("value_bits", self.value_bits, LOW_RANK_BITS)
        _check_weighting(self.weighting)

    def rank_of(self, m: int, n: int) -> int:
        """The rank of a layer ``(m, n)``: ``rank``, or the largest that saves ``ratio``, at least 1.

        >>> LowRankSpec(ratio=2.67).rank_of(384, 1536)
        115
        """
        return self.rank or max(1, int(m * n / (self.ratio * (m + n))))

    def misfit(self, m: int, n: int) -> str | None:
        """The rank must not exceed the smaller side."""
        rank = self.rank_of(m, n)
        return f"its rank cannot be {rank}" if rank > min(m, n) else None

    def cost(self, m: int, n: int) -> Cost:
        """:func:`leanmatch.factorization.cost.low_rank_cost`."""
        return low_rank_cost(m, n, self.rank_of(m, n), value_bits=self.value_bits)


@dataclass(frozen=True, kw_only=True)
class RoundingSpec(LayerSpec):
    """Round to nearest integer codes, with a scale for each group of a row.

    With 2 and 3 bits the scale is the one with the least squared error, and training does not change it.

    Attributes:
        bits: 8, 4, 3 or 2.
        group: columns that share a scale; None for whole rows.

    Raises:
        UsageError: a value out of range.
    """

    method: ClassVar[str] = "int"
    for_embeddings: ClassVar[bool] = True

    bits: int = 8
    group: int | None = None

    def __post_init__(self) -> None:
        check_bits("bits", self.bits, INT_MATRIX_BITS)
        if self.group is not None:
            check_count("group", self.group, 1)

    def misfit(self, m: int, n: int) -> str | None:
        """Groups must divide the inputs."""
        return _undivided(n, self.group or n)

    def cost(self, m: int, n: int) -> Cost:
        """:func:`leanmatch.factorization.cost.int_cost`."""
        return int_cost(m, n, bits=self.bits, group=self.group or n)


@dataclass(frozen=True, kw_only=True)
class MixedRoundingSpec(LayerSpec):
    """Integer codes of 2, 3, 4 or 6 bits: rows of the table that are read more often get more bits.

    Reads are counted in the calibration texts (:func:`leanmatch.factorization.mixed.bits_of_rows`). Without
    such texts all rows count the same.

    Attributes:
        average_bits: mean over the rows, from 2 to 6.

    Raises:
        UsageError: a value out of range.
    """

    method: ClassVar[str] = "int-mixed"
    for_embeddings: ClassVar[bool] = True

    average_bits: float = 2.5

    def __post_init__(self) -> None:
        low, high = min(ROW_BITS), max(ROW_BITS)
        if not low <= self.average_bits <= high:
            raise UsageError(f"average_bits must be from {low} to {high} (found {self.average_bits})")

    def misfit(self, m: int, n: int) -> str | None:
        """Every table fits."""
        return None

    def cost(self, m: int, n: int) -> Cost:
        """:func:`leanmatch.factorization.cost.mixed_cost` of ``average_bits m`` bits, rounded down.

        The table itself can be smaller, by one bit in each column of one row.
        """
        return mixed_cost(m, n, int(self.average_bits * m + 1e-9))


@dataclass(frozen=True, kw_only=True)
class DenseSpec(LayerSpec):
    """The layer stays as it is."""

    method: ClassVar[str] = "dense"
    for_embeddings: ClassVar[bool] = True

    def misfit(self, m: int, n: int) -> str | None:
        """Every layer fits."""
        return None

    def cost(self, m: int, n: int) -> Cost:
        """:func:`leanmatch.factorization.cost.dense_cost`."""
        return dense_cost(m, n)


LAYER_SPECS: Mapping[str, type[LayerSpec]] = MappingProxyType(
    {
        kind.method: kind
        for kind in (DenseSparseSpec, PruningSpec, LowRankSpec, RoundingSpec, MixedRoundingSpec, DenseSpec)
    }
)
"""The method's name in JSON to its dataclass."""
ROUNDING = (RoundingSpec, MixedRoundingSpec)
"""Methods that round every entry and solve nothing."""


def _option_types(kind: type[LayerSpec]) -> dict[str, tuple[type, ...]]:
    """The options of a method, each with the types that its values may have."""
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return {name: get_args(hints[name]) or (hints[name],) for name in names}


def _has_type(value: object, types: tuple[type, ...]) -> bool:
    """Exactly one of the types; a whole number also serves as a float, and a bool never as a number."""
    return type(value) in types or (type(value) is int and float in types)


def _check_weighting(weighting: str) -> None:
    if weighting not in WEIGHTINGS:
        raise UsageError(f"unknown weighting {weighting!r}", remedy=f"one of {', '.join(WEIGHTINGS)}")


def _undivided(n: int, block: int) -> str | None:
    return f"blocks of {block} do not divide its {n} inputs" if n % block else None
