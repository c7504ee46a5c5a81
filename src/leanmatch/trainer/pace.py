"""How many steps fit into a time: measured once, and kept for the runs that continue."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from leanmatch.files import write_json

Batch = TypeVar("Batch")
OPTIMIZER = 1.1
"""A step with the optimizer's own work, to its forward and backward passes."""
STEPS_FILE = "steps.json"


def seconds_a_step(passes: Callable[[Batch], object], batches: Sequence[Batch]) -> float:
    """Mean seconds of a training step.

    Args:
        passes: makes the forward and backward pass of a batch; weights stay as they are.
        batches: the first one warms up and is not timed.
    """
    times = []
    for batch in batches:
        begun = time.perf_counter()
        passes(batch)
        times.append(time.perf_counter() - begun)
    return OPTIMIZER * sum(times[1:]) / len(times[1:])


def fixed_steps(folder: Path, measure: Callable[[], int]) -> int:
    """The number of steps that ``folder`` keeps, which ``measure`` gives the first time."""
    file = folder / STEPS_FILE
    if not file.exists():
        write_json(file, {"steps": measure()})
    return int(json.loads(file.read_text(encoding="utf-8"))["steps"])
