"""What is compressed and how: ordered rules from module names to layer specs. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from leanmatch.compression.layer_specs import LayerSpec
from leanmatch.errors import UsageError


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

    >>> from leanmatch.compression.layer_specs import DenseSparseSpec, RoundingSpec
    >>> spec = CompressionSpec((Rule("*.query", DenseSparseSpec(nonzeros=3)), Rule("*", RoundingSpec())))
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
        read_rules = []
        for number, entry in enumerate(rules, 1):
            rule = _mapping(entry, f"rule {number}", {"pattern", "layer"})
            if not isinstance(rule.get("pattern"), str):
                raise UsageError(f"rule {number} needs a 'pattern' (found {rule.get('pattern')!r})")
            layer = rule.get("layer", {})
            if not isinstance(layer, dict):
                raise UsageError(f"rule {number}: 'layer' must be a mapping (found {layer!r})")
            read_rules.append(Rule(rule["pattern"], LayerSpec.from_json(layer)))
        read_stacks = []
        for number, entry in enumerate(stacks, 1):
            stack = _mapping(entry, f"stack {number}", {"parent", "children"})
            parent, children = stack.get("parent"), stack.get("children")
            if not isinstance(parent, str) or not isinstance(children, list | tuple):
                raise UsageError(f"stack {number} needs a string 'parent' and a list 'children'")
            read_stacks.append(Stack(parent, tuple(map(str, children))))
        return cls(tuple(read_rules), tuple(read_stacks))

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
