"""One queue for all connections: what comes in while a batch is computed is the next batch.

Under load no time is spent waiting for a batch to fill: while one runs, the next gathers. A single request
on an idle server starts at once. Only where the last batch held several requests does the next one wait,
``window_ms`` at most, so that the clients who were just answered can ask again. The bound on what is under
way is kept where requests enter (:mod:`leanmatch.serve.middleware`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol


class Weighed(Protocol):
    """A job that knows how many texts it brings."""

    @property
    def weight(self) -> int:
        """Number of texts."""
        ...


Work = Callable[[Sequence[Any]], Sequence[Any]]
"""Jobs to answers, in order; an answer that is an exception is raised for its job alone."""


@dataclass
class _Waiting:
    job: Any
    answer: asyncio.Future[Any]
    since: float = field(default_factory=time.perf_counter)


class Batcher:
    """Gathers jobs and hands them to ``work`` in a thread of its own, one batch at a time."""

    def __init__(
        self,
        work: Work,
        *,
        most: int,
        window_seconds: float,
        watch: Callable[[int, float], None] = lambda texts, waited: None,
    ) -> None:
        """``most``: texts in a batch (a larger job goes alone). ``watch``: told its texts and wait."""
        self._work, self._most, self._window, self._watch = work, most, window_seconds, watch
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="leanmatch-batch")
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._task = asyncio.create_task(self._run())

    @property
    def depth(self) -> int:
        """Jobs that wait for a batch."""
        return len(self._queue)

    def submit(self, job: Weighed) -> asyncio.Future[Any]:
        """The job's answer, to be awaited. Cancelling takes the job out, unless its batch runs already."""
        if self._closed:
            raise RuntimeError("the batcher is closed")
        waiting = _Waiting(job, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrived.set()
        return waiting.answer

    async def close(self) -> None:
        """Finish what was accepted, then stop."""
        self._closed = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown(wait=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        together = False
        while True:
            while not self._queue:
                if self._closed:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            if together and self._window and self._texts() < self._most:
                await asyncio.sleep(self._window)
            batch = self._take()
            if not batch:
                continue
            together = len(batch) > 1
            now = time.perf_counter()
            self._watch(sum(one.job.weight for one in batch), now - batch[0].since)
            try:
                answers = await loop.run_in_executor(self._thread, self._work, [one.job for one in batch])
            except BaseException as error:  # whatever it is, those who wait must hear of it
                answers = [error] * len(batch)
            for one, answer in zip(batch, answers, strict=True):
                if one.answer.done():
                    continue
                if isinstance(answer, BaseException):
                    one.answer.set_exception(answer)
                else:
                    one.answer.set_result(answer)

    def _texts(self) -> int:
        return sum(one.job.weight for one in self._queue)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        texts = 0
        while self._queue:
            one = self._queue[0]
            if batch and texts + one.job.weight > self._most:
                break
            self._queue.popleft()
            if not one.answer.done():  # cancelled: nobody waits for it
                batch.append(one)
                texts += one.job.weight
        return batch
