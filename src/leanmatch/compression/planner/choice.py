"""Chooses the forms of all layers, and how many encoder layers remain, with the least expected harm."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from leanmatch.compression.layer_specs import LayerSpec, RoundingSpec
from leanmatch.compression.planner.allocation import Costs, NoChoiceError, allocate, least, total
from leanmatch.compression.planner.budget import Budget
from leanmatch.compression.planner.candidates import Group
from leanmatch.compression.planner.clock import Clock
from leanmatch.compression.planner.depth import Depth, layer_number, renumbered
from leanmatch.compression.planner.sensitivity import group_spec
from leanmatch.compression.spec import CompressionSpec
from leanmatch.errors import UsageError
from leanmatch.models.architectures import Architecture

TIE = 1e-9
"""Share of the harm that the dearest choice of bytes adds: of equally harmless ones the smaller is taken."""
SHOT_LEFT, FACTORS_LEFT = 0.52, 0.48
"""Parts of the summed harm of layers alone that first factors in order leave, and 150 steps after them: on
MiniLM .054 and .0500 of .105 at ``b16 r64 k3``, .118 and .1065 of .226 at ``b32 r64 k4`` (docs/LOG.md)."""
DEPTH_LEFT = 0.35
"""The same of dropped encoder layers: MiniLM without three of six, .39 after 80 steps (docs/LOG.md)."""
NEAR = 1.02
"""A plan may miss the speed that was asked for by this factor: measurements differ by as much."""
MOST_CORRECTIONS = 4


@dataclass(frozen=True)
class Plan:
    """One choice for the whole model.

    Attributes:
        label: in words.
        spec: the forms of the layers, encoder layers numbered as they remain.
        dropped: encoder layers that are left out.
        bytes: of all weights.
        macs: multiply-adds a token in linear layers.
        faster: than int8 of the same model, by its layers or measured on the whole; None without clock.
        harm: expected ``mean(1 - cos)`` after training.
    """

    label: str
    spec: CompressionSpec
    dropped: tuple[int, ...] = ()
    bytes: int = 0
    macs: int = 0
    faster: float | None = None
    harm: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        values = {name: getattr(self, name) for name in ("label", "bytes", "macs", "faster", "harm")}
        return {**values, "dropped": list(self.dropped), "spec": self.spec.to_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """What :meth:`to_json` gave."""
        plain = {name: values[name] for name in ("label", "bytes", "macs", "faster", "harm")}
        return cls(spec=CompressionSpec.from_json(values["spec"]), dropped=tuple(values["dropped"]), **plain)

    @property
    def key(self) -> str:
        """Names its folder: the same for the same forms and encoder layers."""
        content = json.dumps([self.spec.to_json(), list(self.dropped)], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Choices:
    """What may be chosen.

    Attributes:
        groups: layers with their candidates.
        harm: of each group's candidates, alone, before training.
        depths: none dropped first.
        other_bytes: of the weights that no group holds, by the number of dropped encoder layers.
        architecture: None where it is not known.
        encoder_layers: of the whole model.
        clock: None leaves time out.
        measure: times the whole model of a plan: how many times as fast as int8 it is; None does not.
    """

    groups: Sequence[Group]
    harm: Sequence[Sequence[float]]
    depths: Sequence[Depth] = (Depth(),)
    other_bytes: Mapping[int, int] = field(default_factory=lambda: {0: 0})
    architecture: Architecture | None = None
    encoder_layers: int = 0
    clock: Clock | None = None
    measure: Callable[[Plan], float] | None = None

    @property
    def dense_macs(self) -> int:
        """Multiply-adds a token of the whole dense model's linear layers."""
        return sum(group.dense_macs for group in self.groups)

    @property
    def timed(self) -> bool:
        """Whether the candidates were timed."""
        return any(c.seconds is not None for group in self.groups for c in group.candidates)

    @property
    def int8_bytes(self) -> int:
        """Bytes of all groups in int8."""
        return sum(group.candidates[_int8(group)].bytes for group in self.groups)

    @property
    def int8_seconds(self) -> float:
        """Of a text, in int8."""
        return self.rest(self.encoder_layers) + sum(
            group.candidates[_int8(group)].seconds or 0.0 for group in self.groups
        )

    def rest(self, encoder_layers: int) -> float:
        """Seconds of everything but linear layers."""
        assert self.clock is not None
        architecture = self.architecture
        first = [
            group.shapes
            for group in self.groups
            if not group.embedding
            and (architecture is None or layer_number(group.names[0], architecture) == 0)
        ]
        return self.clock.rest_seconds(encoder_layers, first)

    def factors_pay(self, worth: float) -> bool:
        """Whether the quickest model of factors, of full depth, is ``worth`` times as fast as int8."""
        quickest = self.rest(self.encoder_layers)
        for group in self.groups:
            factors = [c.seconds or 0.0 for c in group.candidates if not isinstance(c.spec, RoundingSpec)]
            quickest += min([group.candidates[_int8(group)].seconds or 0.0, *factors])
        return self.int8_seconds >= worth * quickest

    def within(self, budget: Budget, *, dropped: int | None = None, measure: bool = True) -> Plan:
        """The plan with the least expected harm, and the speed of the whole model where that can be measured.

        Kernels that are timed alone are not in one another's way as in a model, so a plan that turns out too
        slow is made again with a shorter time.

        Args:
            budget: limits; ``keep`` is not looked at.
            dropped: exactly so many encoder layers less; None for whatever is best.
            measure: the whole model's speed; else it is the sum of the layers'.

        Raises:
            UsageError: no choice meets the budget; the message names the nearest that do.
        """
        asked, target = budget.faster, budget
        for _ in range(MOST_CORRECTIONS):
            plan = self._expected(target, budget, dropped)
            if self.measure is None or not measure:
                return plan
            plan = replace(plan, faster=self.measure(plan))
            assert plan.faster is not None
            if asked is None or plan.faster * NEAR >= asked:
                return plan
            assert target.faster is not None
            target = replace(budget, faster=target.faster * asked / plan.faster)
        return plan

    def _expected(self, target: Budget, asked: Budget, dropped: int | None) -> Plan:
        plans, nearest = [], []
        for depth in self.depths:
            if dropped is not None and len(depth.dropped) != dropped:
                continue
            part = _Part(self, depth)
            try:
                plans.append(part.plan(target, asked.words()))
            except NoChoiceError:
                nearest.append(part.nearest(target))
        if not plans:
            raise UsageError(
                f"no choice of layers gives {asked.words()}", remedy=_nearest_words(nearest, asked)
            )
        return min(plans, key=lambda plan: plan.harm)


class _Part:
    """The choices with some encoder layers dropped."""

    def __init__(self, choices: Choices, depth: Depth) -> None:
        self.choices, self.depth = choices, depth
        gone = set(depth.dropped)
        architecture = choices.architecture
        pairs = [
            (group, harm)
            for group, harm in zip(choices.groups, choices.harm, strict=True)
            if architecture is None or layer_number(group.names[0], architecture) not in gone
        ]
        self.groups = [group for group, _ in pairs]
        self.losses = [[FACTORS_LEFT * h for h in harm] for _, harm in pairs]
        self.costs: dict[str, Costs] = {
            "size": [[c.bytes for c in group.candidates] for group in self.groups],
            "macs": [[c.macs for c in group.candidates] for group in self.groups],
            "faster": [[c.seconds or 0.0 for c in group.candidates] for group in self.groups],
        }

    def plan(self, budget: Budget, label: str) -> Plan:
        limits = self.limits(budget)
        groups = list(range(len(self.groups)))
        if budget.size is None:  # tables cost no time and no multiply-adds: int8 does no harm
            groups = [at for at in groups if not self.groups[at].embedding]
        most = max(max(sizes) for sizes in self.costs["size"]) * len(groups)
        scale = max(max(losses) for losses in self.losses) or 1.0
        losses = [
            [
                h + TIE * scale * size / most
                for h, size in zip(self.losses[at], self.costs["size"][at], strict=True)
            ]
            for at in groups
        ]
        costs = {name: [cost[at] for at in groups] for name, cost in self.costs.items()}
        chosen = dict(zip(groups, allocate(losses, costs, limits), strict=True))
        picks = [chosen.get(at, _int8(group)) for at, group in enumerate(self.groups)]
        return self._made(picks, label)

    def limits(self, budget: Budget) -> dict[str, float]:
        """The most that layers may cost, by budget."""
        limits: dict[str, float] = {}
        if budget.size is not None:
            limits["size"] = budget.size - budget.beside - self.other_bytes
        if budget.macs is not None:
            limits["macs"] = self.choices.dense_macs / budget.macs
        if budget.faster is not None:
            limits["faster"] = self.choices.int8_seconds / budget.faster - self.rest
        return limits

    def nearest(self, budget: Budget) -> dict[str, float]:
        """By budget the nearest that is possible, each with the others as they were asked for."""
        nearest = {}
        limits = self.limits(budget)
        for name in limits:
            cost = least(self.costs, name, limits)
            if cost is None:
                continue
            if name == "size":
                nearest[name] = cost + self.other_bytes + budget.beside
            elif name == "macs":
                nearest[name] = self.choices.dense_macs / max(cost, 1)
            else:
                nearest[name] = self.choices.int8_seconds / max(cost + self.rest, 1e-12)
        return nearest

    @property
    def other_bytes(self) -> int:
        return self.choices.other_bytes[len(self.depth.dropped)]

    @property
    def rest(self) -> float:
        return self.choices.rest(self.choices.encoder_layers - len(self.depth.dropped))

    def _made(self, picks: Sequence[int], label: str) -> Plan:
        choices = self.choices
        kept = [number for number in range(choices.encoder_layers) if number not in set(self.depth.dropped)]
        chosen: list[tuple[Group, LayerSpec]] = []
        for group, pick in zip(self.groups, picks, strict=True):
            names = group.names
            if choices.architecture is not None:
                names = tuple(renumbered(name, choices.architecture, kept) for name in names)
            chosen.append((replace(group, names=names), group.candidates[pick].spec))
        faster = None
        if choices.timed:
            faster = choices.int8_seconds / (self.rest + total(self.costs["faster"], picks))
        return Plan(
            label=label,
            spec=group_spec(chosen),
            dropped=self.depth.dropped,
            bytes=int(total(self.costs["size"], picks)) + self.other_bytes,
            macs=int(total(self.costs["macs"], picks)),
            faster=faster,
            harm=DEPTH_LEFT * self.depth.harm + total(self.losses, picks),
        )


def _int8(group: Group) -> int:
    """The number of the candidate int8."""
    return next(i for i, c in enumerate(group.candidates) if c.spec == RoundingSpec())


def _nearest_words(found: Sequence[Mapping[str, float]], asked: Budget) -> str:
    """The nearest possible budgets over all depths, as options of the command.

    >>> _nearest_words([{"size": 8_123_456, "faster": 1.449}], Budget(size=5, faster=3))
    'the nearest possible are: --size 8.13MB (the rest as asked), --faster 1.44x (the rest as asked)'
    """
    words = []
    sizes = [nearest["size"] for nearest in found if "size" in nearest]
    if sizes:
        words.append(f"--size {-(-min(sizes) // 10_000) / 100:g}MB")
    for name in ("macs", "faster"):
        ratios = [nearest[name] for nearest in found if name in nearest]
        if ratios:
            words.append(f"--{name} {int(max(ratios) * 100) / 100:g}x")
    if not words:
        return "give each of the limits more room"
    rest = " (the rest as asked)" if sum(map(bool, (asked.size, asked.macs, asked.faster))) > 1 else ""
    kind = "is" if len(words) == 1 else "are"
    return f"the nearest possible {kind}: " + ", ".join(word + rest for word in words)
