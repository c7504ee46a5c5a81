"""What each layer of a model may become, with exact costs: the choices that the planner has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from leanmatch.compression.spec import CompressionSpec, LayerSpec, Rule
from leanmatch.errors import ModelError, UsageError
from leanmatch.factorization.cost import index_bits

SCALE_BYTES = 2
"""Artifacts store scales as float16."""


@dataclass(frozen=True)
class Candidate:
    """One way to compress a group.

    Attributes:
        spec: what :func:`leanmatch.compression.factorize` is told.
        bytes: of the weight in an artifact, without bias.
        macs: multiply-adds a token.
    """

    spec: LayerSpec
    bytes: int
    macs: int


@dataclass(frozen=True)
class Group:
    """Layers that get one spec: a stack (Q, K and V), or one layer.

    Attributes:
        names: full names of the modules.
        shape: ``(m, n)``, the members above one another.
        embedding: a table of rows, not a linear layer.
        candidates: from the cheapest to the dearest in bytes.
    """

    names: tuple[str, ...]
    shape: tuple[int, int]
    embedding: bool
    candidates: tuple[Candidate, ...]

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
        return 0 if self.embedding else self.shape[0] * self.shape[1]

    @property
    def dense_bytes(self) -> int:
        """Bytes of the dense weight in float32."""
        return 4 * self.shape[0] * self.shape[1]


def _dense_sparse(width: int, atoms: int, nonzeros: int, bits: int = 8) -> LayerSpec:
    return LayerSpec(block=width, atoms=atoms, nonzeros=nonzeros, value_bits=bits)


_DENSE_SPARSE = (
    *(_dense_sparse(16, 64, k) for k in (2, 3, 4)),
    *(_dense_sparse(16, 64, k, 4) for k in (3, 4)),
    *(_dense_sparse(12, 64, k) for k in (2, 4)),
    *(_dense_sparse(8, 64, k) for k in (2, 3, 4)),
    _dense_sparse(8, 32, 2),
    _dense_sparse(16, 32, 3),
)
"""The best of 24 at equal multiply-adds on MiniLM (docs/LOG.md), and the leanest for small layers."""
_INT8 = LayerSpec(method="int", bits=8)
_LOW_RANK = tuple(
    LayerSpec(method="low-rank", ratio=x) for x in (1.25, 1.5, 1.75, 2.0, 2.33, 2.67, 3.0, 3.57, 4.5, 6.0)
)
METHODS: Mapping[str, tuple[LayerSpec, ...]] = MappingProxyType(
    {
        "stf": (*_DENSE_SPARSE, _INT8),
        "post": (*_DENSE_SPARSE, _INT8),
        "svd": (*(replace(spec, weighting="none") for spec in _LOW_RANK), _INT8),
        "fwsvd": (*(replace(spec, weighting="fisher") for spec in _LOW_RANK), _INT8),
        "nm": (*(LayerSpec(method="nm", block=16, nonzeros=k) for k in (3, 4, 5, 6, 7, 8, 10, 12)), _INT8),
        "int8": (_INT8, *(LayerSpec(method="int", bits=4, group=group) for group in (16, 32, 64))),
    }
)
"""Method of ``leanmatch compress`` to what a linear layer may become."""

TABLES = (
    LayerSpec(method="int", bits=8),
    LayerSpec(method="int", bits=4, group=16),
    LayerSpec(method="int", bits=4, group=32),
    *(LayerSpec(block=16, atoms=256, nonzeros=k, value_bits=6) for k in (3, 4)),
    LayerSpec(block=8, atoms=256, nonzeros=2, value_bits=6),
)
"""What an embedding table may become, whatever the method."""
MOST_ROWS_FACTORED = 1000
"""Tables with fewer rows are rounded, not factored: atoms would cost what they save."""


def groups_of(model: Any, spec: CompressionSpec, method: str) -> list[Group]:
    """The layers that a spec names, with their candidates.

    Args:
        model: a dense model.
        spec: names layers and stacks; what it says of each is not looked at.
        method: one of :data:`METHODS`.

    Raises:
        UsageError: no such method.
        ModelError: a layer that no candidate fits.
    """
    from torch import nn

    from leanmatch.compression.convert import plan_layers

    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}", remedy=f"one of {', '.join(METHODS)}")
    probe = CompressionSpec(tuple(Rule(rule.pattern, _INT8) for rule in spec.rules))
    modules: dict[str, Any] = {name: module for name, (module, _) in plan_layers(model, probe).items()}
    stacks = method in ("stf", "post")
    groups: list[Group] = []
    done: set[str] = set()
    for name, module in modules.items():
        if name in done:
            continue
        names = _members(name, spec, modules) if stacks and isinstance(module, nn.Linear) else (name,)
        done.update(names)
        shape = (sum(modules[one].weight.shape[0] for one in names), module.weight.shape[1])
        table = isinstance(module, nn.Embedding)
        found = sorted(_candidates(shape, table, method), key=lambda one: (one.bytes, one.macs))
        if not found:
            raise ModelError(
                f"no way to compress {name} ({shape[0]} x {shape[1]}) fits it",
                remedy="leave it out with --spec",
            )
        groups.append(Group(names, shape, table, tuple(found)))
    return groups


def _members(name: str, spec: CompressionSpec, modules: Mapping[str, Any]) -> tuple[str, ...]:
    found = spec.stack(name)
    if found is None:
        return (name,)
    members = tuple(f"{found[0]}.{child}" for child in found[1])
    return members if all(member in modules for member in members) else (name,)


def _candidates(shape: tuple[int, int], table: bool, method: str) -> Iterator[Candidate]:
    m, n = shape
    choices = TABLES if table else METHODS[method]
    for spec in choices:
        if table and spec.method == "dense-sparse" and m < MOST_ROWS_FACTORED:
            continue
        cost = spec_cost(spec, shape)
        if cost is None:
            continue
        size, macs = cost
        if table:
            macs = 0
        elif spec.method != "int" and macs >= m * n:
            continue
        if size < 4 * m * n:
            yield Candidate(spec, size, macs)


def spec_cost(spec: LayerSpec, shape: tuple[int, int]) -> tuple[int, int] | None:
    """Bytes in an artifact and multiply-adds of a layer; None where the spec does not fit its shape."""
    return _COSTS[spec.method](spec, *shape)


def _dense_sparse_cost(spec: LayerSpec, m: int, n: int) -> tuple[int, int] | None:
    if n % spec.block or spec.value_bits is None:
        return None
    blocks = n // spec.block
    codes = m * blocks * spec.nonzeros
    bits = codes * (spec.value_bits + index_bits(spec.atoms)) + 8 * n * spec.atoms
    return -(-bits // 8) + SCALE_BYTES * (m + blocks * spec.atoms), n * spec.atoms + codes


def _nm_cost(spec: LayerSpec, m: int, n: int) -> tuple[int, int] | None:
    if n % spec.block or spec.value_bits is None:
        return None
    codes = m * (n // spec.block) * spec.nonzeros
    return -(-codes * (spec.value_bits + index_bits(spec.block)) // 8) + SCALE_BYTES * m, codes


def _low_rank_cost(spec: LayerSpec, m: int, n: int) -> tuple[int, int] | None:
    rank = spec.rank or max(1, int(m * n / spec.ratio) // (m + n))
    if rank > min(m, n):
        return None
    return rank * (m + n) * (spec.value_bits or 32) // 8 + SCALE_BYTES * (m + rank), rank * (m + n)


def _int_cost(spec: LayerSpec, m: int, n: int) -> tuple[int, int] | None:
    group = spec.group or n
    if n % group:
        return None
    return -(-m * n * spec.bits // 8) + SCALE_BYTES * m * (n // group), m * n


_COSTS: Mapping[str, Callable[[LayerSpec, int, int], tuple[int, int] | None]] = {
    "dense-sparse": _dense_sparse_cost,
    "nm": _nm_cost,
    "low-rank": _low_rank_cost,
    "int": _int_cost,
    "dense": lambda spec, m, n: (4 * m * n, m * n),
}
