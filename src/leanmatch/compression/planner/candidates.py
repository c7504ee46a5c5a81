"""The candidates for each layer of a model, with their exact costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from leanmatch.compression.layer_specs import (
    DenseSparseSpec,
    LayerSpec,
    LowRankSpec,
    MixedRoundingSpec,
    PruningSpec,
    RoundingSpec,
)
from leanmatch.compression.planner.clock import Clock, Shapes
from leanmatch.compression.spec import CompressionSpec, Rule
from leanmatch.errors import ModelError, UsageError
from leanmatch.factorization.cost import Cost, dense_cost


@dataclass(frozen=True)
class Candidate:
    """One way to compress a group.

    Attributes:
        spec: what :func:`leanmatch.compression.factorize` is told.
        bytes: of the weight in an artifact, without bias.
        macs: multiply-adds a token.
        seconds: a text, measured here; None where no clock ran.
    """

    spec: LayerSpec
    bytes: int
    macs: int
    seconds: float | None = None


@dataclass(frozen=True)
class Group:
    """Layers that get one spec: a stack (Q, K and V), or one layer.

    Attributes:
        names: full names of the modules.
        shape: ``(m, n)``, the members above one another.
        shapes: ``(m, n)`` of each member.
        embedding: a table of rows, not a linear layer.
        candidates: from the cheapest to the dearest in bytes.
    """

    names: tuple[str, ...]
    shape: tuple[int, int]
    embedding: bool
    candidates: tuple[Candidate, ...]
    shapes: Shapes = ()

    @property
    def name(self) -> str:
        """Its members' common name, for people."""
        if len(self.names) == 1:
            return self.names[0]
        parent = self.names[0].rpartition(".")[0]
        return f"{parent}.{'+'.join(name.rpartition('.')[2] for name in self.names)}"

    @property
    def dense_macs(self) -> int:
        """Multiply-adds a token of the dense layer."""
        return 0 if self.embedding else dense_cost(*self.shape).macs

    @property
    def dense_bytes(self) -> int:
        """Bytes of the dense weight in float32."""
        return dense_cost(*self.shape).bytes


def _dense_sparse(block: int, atoms: int, nonzeros: int, bits: int = 8) -> DenseSparseSpec:
    return DenseSparseSpec(block=block, atoms=atoms, nonzeros=nonzeros, value_bits=bits)


_DENSE_SPARSE = (
    *(_dense_sparse(width, 64, 4) for width in (8, 12, 16, 24, 32, 48)),
    *(_dense_sparse(width, 64, 4, 6) for width in (8, 12, 16, 24, 32, 48)),
    *(_dense_sparse(width, 64, 4, 4) for width in (12, 16, 24)),
    *(_dense_sparse(width, 32, 4, bits) for width in (12, 16, 24) for bits in (8, 6, 4)),
    *(_dense_sparse(16, 64, 8, bits) for bits in (8, 6)),
    *(_dense_sparse(8, atoms, 2) for atoms in (64, 32)),
    _dense_sparse(16, 32, 3),
)
"""Widths of 12 to 48 columns at 4 nonzeros, the unit of the integer kernel, are the quickest at their error:
with 32 atoms where a layer has more columns than rows, else with 64. 8 columns have the smallest error.
Values of 6 and 4 bits are as quick as those of 8, in fewer bytes. The last three have fewer multiply-adds
(docs/LOG.md)."""
_INT8 = RoundingSpec(bits=8)
_INT4 = RoundingSpec(bits=4, group=32)
_LOW_RANK = tuple(LowRankSpec(ratio=x) for x in (1.25, 1.5, 1.75, 2.0, 2.33, 2.67, 3.0, 3.57, 4.5, 6.0))
_WHOLE_RANKS = tuple(LowRankSpec(rank=rank) for rank in (64, 128, 256, 384))
"""Ranks that fill the integer kernel's tiles."""
_ALL = (*_DENSE_SPARSE, *_WHOLE_RANKS, _INT8, _INT4)
LINEAR_CANDIDATES: Mapping[str, tuple[LayerSpec, ...]] = MappingProxyType(
    {
        "stf": _ALL,
        "post": _ALL,
        "svd": (*(replace(spec, weighting="none") for spec in _LOW_RANK), _INT8),
        "fwsvd": (*(replace(spec, weighting="fisher") for spec in _LOW_RANK), _INT8),
        "nm": (*(PruningSpec(block=16, nonzeros=k) for k in (3, 4, 5, 6, 7, 8, 10, 12)), _INT8),
        "int8": (_INT8, *(RoundingSpec(bits=4, group=group) for group in (16, 32, 64))),
    }
)
"""Method of ``leanmatch compress`` to what a linear layer may become."""

TABLE_CANDIDATES = (
    RoundingSpec(bits=8),
    RoundingSpec(bits=4, group=16),
    RoundingSpec(bits=4, group=32),
    RoundingSpec(bits=3, group=32),
    RoundingSpec(bits=3),
    RoundingSpec(bits=2),
    *(MixedRoundingSpec(average_bits=bits) for bits in (2.0625, 2.125, 2.25, 2.5, 3.0, 4.0)),
    DenseSparseSpec(block=16, atoms=256, nonzeros=2, value_bits=4),
)
"""What an embedding table may become, whatever the method. Factors with more nonzeros have more bytes and a
larger error than rounding (docs/LOG.md)."""
MOST_ROWS_FACTORED = 1000
"""Tables with fewer rows are rounded, not factored: atoms would cost what they save."""


def groups_of(model: Any, spec: CompressionSpec, method: str, clock: Clock | None = None) -> list[Group]:
    """The layers that a spec names, with their candidates.

    Args:
        model: a dense model.
        spec: names layers and stacks; what it says of each is not looked at.
        method: one of :data:`LINEAR_CANDIDATES`.
        clock: times the candidates of linear layers, each distinct form once; None leaves time out.

    Raises:
        UsageError: no such method, or a machine that is too busy to be timed.
        ModelError: a layer that no candidate fits.
    """
    from torch import nn

    from leanmatch.compression.convert import plan_layers

    if method not in LINEAR_CANDIDATES:
        raise UsageError(f"there is no method {method!r}", remedy=f"one of {', '.join(LINEAR_CANDIDATES)}")
    probe = CompressionSpec(tuple(Rule(rule.pattern, _INT8) for rule in spec.rules))
    modules: dict[str, Any] = {name: module for name, (module, _) in plan_layers(model, probe).items()}
    stacks = method in ("stf", "post")
    groups: list[Group] = []
    grouped: set[str] = set()
    for name, module in modules.items():
        if name in grouped:
            continue
        names = _members(name, spec, modules) if stacks and isinstance(module, nn.Linear) else (name,)
        grouped.update(names)
        shapes = tuple((len(modules[member].weight), module.weight.shape[1]) for member in names)
        shape = (sum(m for m, _ in shapes), module.weight.shape[1])
        table = isinstance(module, nn.Embedding)
        candidates = sorted(
            _candidates(shapes, table, method), key=lambda option: (option.bytes, option.macs)
        )
        if not candidates:
            raise ModelError(
                f"no way to compress {name} ({shape[0]} x {shape[1]}) fits it",
                remedy="leave it out of the specification (spec)",
                command="leave it out with --spec",
            )
        groups.append(Group(names, shape, table, tuple(candidates), shapes))
    return groups if clock is None else [_timed(group, clock) for group in groups]


def dense_layers(model: Any, groups: Sequence[Group]) -> list[str]:
    """Full names of the linear layers that are in no group and stay as they are; poolers are not listed."""
    from torch import nn

    chosen = {id(model.get_submodule(name)) for group in groups for name in group.names}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and id(module) not in chosen and "pooler" not in name.split(".")
    ]


def _timed(group: Group, clock: Clock) -> Group:
    """The group with the seconds of its candidates; reading a row of a table takes none worth counting."""
    if group.embedding:
        return replace(group, candidates=tuple(replace(c, seconds=0.0) for c in group.candidates))
    seconds = clock.layer_seconds([(group.shapes, c.spec) for c in group.candidates])
    timed = (replace(c, seconds=s) for c, s in zip(group.candidates, seconds, strict=True))
    return replace(group, candidates=tuple(timed))


def _members(name: str, spec: CompressionSpec, modules: Mapping[str, Any]) -> tuple[str, ...]:
    stack = spec.stack(name)
    if stack is None:
        return (name,)
    parent, children = stack
    members = tuple(f"{parent}.{child}" for child in children)
    return members if all(member in modules for member in members) else (name,)


def _candidates(shapes: Shapes, table: bool, method: str) -> Iterator[Candidate]:
    m, n = sum(rows for rows, _ in shapes), shapes[0][1]
    dense = dense_cost(m, n)
    for spec in TABLE_CANDIDATES if table else LINEAR_CANDIDATES[method]:
        # members of a stack share their atoms; any other form is one of each member's own
        parts = ((m, n),) if isinstance(spec, DenseSparseSpec) else shapes
        if any(spec.misfit(*part) is not None for part in parts):
            continue
        if table and isinstance(spec, DenseSparseSpec | MixedRoundingSpec) and m < MOST_ROWS_FACTORED:
            continue
        cost = sum((spec.cost(*part) for part in parts), Cost(0, 0))
        slower = not table and not isinstance(spec, RoundingSpec) and cost.macs >= dense.macs
        if not slower and cost.bytes < dense.bytes:
            yield Candidate(spec, cost.bytes, 0 if table else cost.macs)
