"""The time of a run: how many steps fit into it, and what it took; kept for the calls that continue it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from leanmatch.files import write_json

Batch = TypeVar("Batch")
OPTIMIZER = 1.1
"""A step with the optimizer's own work, to its forward and backward passes."""
STEPS_FILE = "steps.json"
WRITTEN_EVERY = 15.0
"""Seconds after which :class:`Spent` writes its file. A killed call loses no more."""


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


class Spent:
    """Seconds that the parts of a run took, of all its calls together, killed ones included.

    Args:
        file: keeps them.
        parts: their names.

    Attributes:
        seconds: by the clock, for each part.
        cpu_seconds: of this process' processor time, all threads together.
    """

    def __init__(self, file: Path, parts: Sequence[str]) -> None:
        self._file = file
        there = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        self.seconds, self.cpu_seconds = (
            {part: float(there.get(kind, {}).get(part, 0.0)) for part in parts}
            for kind in ("seconds", "cpu_seconds")
        )

    @contextmanager
    def on(self, part: str) -> Iterator[None]:
        """Add what the block takes to a part; blocks must not lie in one another."""
        begun = time.monotonic(), time.process_time()
        before = self.seconds[part], self.cpu_seconds[part]
        ended = threading.Event()

        def add() -> None:
            self.seconds[part] = before[0] + time.monotonic() - begun[0]
            self.cpu_seconds[part] = before[1] + time.process_time() - begun[1]
            write_json(self._file, {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds})

        def keep_adding() -> None:
            while not ended.wait(WRITTEN_EVERY):
                add()

        writer = threading.Thread(target=keep_adding, daemon=True, name="leanmatch-spent")
        writer.start()
        try:
            yield
        finally:
            ended.set()
            writer.join()
            add()
