"""Time as the planner sees it: what a user runs, and a clock that knows what it takes here.

The clock itself is the runtime's (:class:`leanmatch.runtime.kernels.planned.MachineClock`), which this layer
does not import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, TypeAlias

from leanmatch.compression.layer_specs import LayerSpec
from leanmatch.errors import UsageError

Shapes: TypeAlias = tuple[tuple[int, int], ...]
"""``(m, n)`` of linear layers that read one input."""


@dataclass(frozen=True)
class Workload:
    """What is encoded at a time.

    Attributes:
        name: what users call it.
        texts: of a call.
        tokens: of a text.
    """

    name: str
    texts: int
    tokens: int

    def __str__(self) -> str:
        return f"{self.texts} x {self.tokens} tokens"


WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {"queries": Workload("queries", 1, 16), "bulk": Workload("bulk", 64, 32)}
)
"""What ``--for`` of ``leanmatch compress`` may say."""


def workload(name: str) -> Workload:
    """The workload of that name.

    Raises:
        UsageError: there is none.
    """
    if name not in WORKLOADS:
        raise UsageError(f"there is no workload {name!r}", remedy=f"one of {', '.join(WORKLOADS)}")
    return WORKLOADS[name]


class Clock(Protocol):
    """Seconds a text on one core of this machine.

    Attributes:
        workload: texts and tokens of a call.
        machine: what the times hold for: CPU, instruction-set level, how far measurements differed.
    """

    workload: Workload

    @property
    def machine(self) -> dict[str, Any]:
        """CPU, level, spread of repeated measurements, and whether they are noisy."""

    def layer_seconds(self, options: Sequence[tuple[Shapes, LayerSpec]]) -> list[float]:
        """Of linear layers in a form."""

    def rest_seconds(self, encoder_layers: int, linear: Sequence[Shapes]) -> float:
        """Of everything else, with so many encoder layers, each with linear layers of these shapes."""

    def faster(self, specs: Mapping[str, LayerSpec], encoder_layers: int) -> float:
        """How many times as fast a planned model runs as int8 of the dense one; measured side by side.

        Args:
            specs: by module name inside the transformer, encoder layers numbered as they remain.
            encoder_layers: how many remain.
        """
