"""What is compressed and how: ordered rules from module names to layer specs. No torch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, get_args, get_type_hints

from leanmatch.errors import UsageError

METHODS = {
    "dense-sparse": "W_i = S_i D_i for each block i of columns, k nonzeros a row of S_i (DSFormer)",
    "nm": "N:M pruning: the k largest of every block of a row stay (atoms are unit vectors)",
    "low-rank": "W = L R of one rank",
    "int": "round to nearest, 8 or 4 bits, one scale a group of a row",
    "dense": "left as it is",
}
WEIGHTINGS = {
    "auto": "activation where calibration texts are given, none elsewhere",
    "none": "plain Frobenius error",
    "activation": "error of the layer's outputs on the calibration texts",
    "fisher": "columns weighted by diagonal Fisher information (low-rank: FWSVD)",
}
FOR_EMBEDDINGS = ("dense-sparse", "int", "dense")
MAX_ATOMS = 65_536
VALUE_BITS, ATOM_BITS, INT_BITS = (8, 6, 4), (8,), (8, 4)


def _choose(name: str, value: Any, valid: Any) -> None:
    if value not in valid:
        raise UsageError(f"unknown {name} {value!r}", remedy=f"one of {', '.join(map(str, valid))}")


@dataclass(frozen=True)
class LayerSpec:
    """How one layer is compressed. Fields that the method does not use are ignored.

    Attributes:
        method: one of :data:`METHODS`.
        block: columns ``b`` per block (dense-sparse, nm); must divide the layer's inputs.
        atoms: atoms ``r`` per block (dense-sparse).
        nonzeros: nonzeros ``k`` per row and block (dense-sparse, nm).
        rank: rank of a low-rank layer; None takes the largest that saves ``ratio``.
        ratio: multiply-adds saved by a low-rank layer without ``rank``.
        value_bits: bits of values (dense-sparse, nm) and of both low-rank factors: 8, 6 or 4 (low-rank: 8 or
            4); None keeps floats, atoms as well.
        atom_bits: bits of atoms where values have bits: 8.
        bits: bits of an int layer: 8 or 4.
        group: columns that share a scale in an int layer; None: the whole row.
        weighting: one of :data:`WEIGHTINGS`: the error that the first factors minimize.
        compensate: later blocks make up for the errors of earlier ones (dense-sparse, where the weighting has
            second moments).
    """

    method: str = "dense-sparse"
    block: int = 16
    atoms: int = 64
    nonzeros: int = 4
    rank: int | None = None
    ratio: float = 2.67
    value_bits: int | None = 8
    atom_bits: int = 8
    bits: int = 8
    group: int | None = None
    weighting: str = "auto"
    compensate: bool = True

    def __post_init__(self) -> None:
        _choose("method", self.method, METHODS)
        _choose("weighting", self.weighting, WEIGHTINGS)
        for name in ("block", "atoms", "nonzeros", "rank", "group"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1 (found {value})")
        if self.atoms > MAX_ATOMS:
            raise UsageError(f"atoms must be at most {MAX_ATOMS:,} (found {self.atoms:,})")
        most = self.block if self.method == "nm" else self.atoms
        if self.method in ("dense-sparse", "nm") and self.nonzeros > most:
            raise UsageError(f"nonzeros must be at most {most} (found {self.nonzeros})")
        if not 1 <= self.ratio < float("inf"):
            raise UsageError(f"ratio must be at least 1 and finite (found {self.ratio})")
        if self.value_bits is not None:
            _choose("value_bits", self.value_bits, INT_BITS if self.method == "low-rank" else VALUE_BITS)
        _choose("atom_bits", self.atom_bits, ATOM_BITS)
        _choose("bits", self.bits, INT_BITS)

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LayerSpec:
        """Build from a mapping; what is left out takes its default.

        Raises:
            UsageError: an unknown key (the valid ones are listed) or a value of the wrong type.
        """
        types = get_type_hints(cls)
        for name, value in values.items():
            if name not in types:
                raise UsageError(f"unknown layer option {name!r}", remedy=f"one of {', '.join(types)}")
            allowed = get_args(types[name]) or (types[name],)
            if not (type(value) in allowed or (type(value) is int and float in allowed)):
                shown = " or ".join("null" if t is type(None) else t.__name__ for t in allowed)
                raise UsageError(f"layer option {name!r} must be {shown} (found {value!r})")
        return cls(**values)


@dataclass(frozen=True)
class Rule:
    """Modules whose full name matches ``pattern`` are compressed as ``layer`` says.

    Attributes:
        pattern: a glob over module names (``*`` also spans dots), case-sensitive.
        layer: the layer spec.
    """

    pattern: str
    layer: LayerSpec

    def __post_init__(self) -> None:
        if not self.pattern:
            raise UsageError("a rule has an empty pattern", remedy="'*' matches every module")


@dataclass(frozen=True)
class Stack:
    """Linear layers beside one another that read the same input and so may share atoms, such as Q, K and V.

    Attributes:
        parent: a glob over the name of the module that holds them.
        children: their names in it, at least two.
    """

    parent: str
    children: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.children) < 2 or len(set(self.children)) < len(self.children):
            raise UsageError(f"a stack needs at least two different layers (found {list(self.children)})")


@dataclass(frozen=True)
class CompressionSpec:
    """Ordered rules; the first one that matches a module counts. A module without a rule stays as it is.

    >>> spec = CompressionSpec((Rule("*.query", LayerSpec(nonzeros=3)), Rule("*", LayerSpec())))
    >>> spec.layer("encoder.layer.0.attention.self.query").nonzeros
    3
    >>> CompressionSpec.from_json(spec.to_json()) == spec
    True
    """

    rules: tuple[Rule, ...]
    stacks: tuple[Stack, ...] = ()

    def layer(self, name: str) -> LayerSpec | None:
        """The spec of the module with this full name, None where no rule matches."""
        return next((rule.layer for rule in self.rules if fnmatchcase(name, rule.pattern)), None)

    def stack(self, name: str) -> tuple[str, tuple[str, ...]] | None:
        """The stack that the module belongs to: its parent's full name and all children, or None."""
        parent, _, child = name.rpartition(".")
        for stack in self.stacks:
            if child in stack.children and fnmatchcase(parent, stack.parent):
                return parent, stack.children
        return None

    def to_json(self) -> dict[str, Any]:
        """The spec as JSON values."""
        return {
            "rules": [{"pattern": rule.pattern, "layer": rule.layer.to_json()} for rule in self.rules],
            "stacks": [{"parent": stack.parent, "children": list(stack.children)} for stack in self.stacks],
        }

    @classmethod
    def from_json(cls, values: Any) -> CompressionSpec:
        """Build from what :meth:`to_json` gives, or from a specification file's content.

        Raises:
            UsageError: a missing or unknown key, or a value of the wrong type.
        """
        root = _mapping(values, "the specification", {"rules", "stacks"})
        rules, stacks = root.get("rules"), root.get("stacks", [])
        if not isinstance(rules, list) or not isinstance(stacks, list):
            raise UsageError("the specification needs a list 'rules'; 'stacks' must be a list as well")
        made = []
        for number, entry in enumerate(rules, 1):
            rule = _mapping(entry, f"rule {number}", {"pattern", "layer"})
            if not isinstance(rule.get("pattern"), str):
                raise UsageError(f"rule {number} needs a 'pattern' (found {rule.get('pattern')!r})")
            layer = rule.get("layer", {})
            if not isinstance(layer, dict):
                raise UsageError(f"rule {number}: 'layer' must be a mapping (found {layer!r})")
            made.append(Rule(rule["pattern"], LayerSpec.from_json(layer)))
        stacked = []
        for number, entry in enumerate(stacks, 1):
            stack = _mapping(entry, f"stack {number}", {"parent", "children"})
            parent, children = stack.get("parent"), stack.get("children")
            if not isinstance(parent, str) or not isinstance(children, list | tuple):
                raise UsageError(f"stack {number} needs a string 'parent' and a list 'children'")
            stacked.append(Stack(parent, tuple(map(str, children))))
        return cls(tuple(made), tuple(stacked))

    @classmethod
    def from_text(cls, text: str) -> CompressionSpec:
        """Read JSON text.

        Raises:
            UsageError: no JSON, or see :meth:`from_json`.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise UsageError(f"the specification is no JSON: {error}") from error
        return cls.from_json(values)


def _mapping(value: Any, what: str, keys: set[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UsageError(f"{what} must be a mapping (found {value!r})")
    for key in value:
        if key not in keys:
            raise UsageError(f"{what} has an unknown key {key!r}", remedy=f"one of {', '.join(sorted(keys))}")
    return value
