"""One queue for all connections: what comes in while a batch is computed is the next batch.

Under load no time is spent waiting for a batch to fill: while one runs, the next gathers. A single request
on an idle server starts at once. Only where the last batch held several requests does the next one wait,
``window_ms`` at most, so that the clients who were just answered can ask again. The bound on what is under
way is kept where requests enter (:mod:`leanmatch.serve.api.middleware`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol


class Weighed(Protocol):
    """A job that knows how many texts it brings."""

    @property
    def weight(self) -> int:
        """Number of texts."""
        ...


Work = Callable[[Sequence[Any]], Sequence[Any]]
"""Jobs to answers, in order; an answer that is an exception is raised for its job alone."""


class _Waiting:
    """A job in the queue."""

    __slots__ = ("answer", "job", "since")

    def __init__(self, job: Any, answer: asyncio.Future[Any], since: float) -> None:
        self.job, self.answer, self.since = job, answer, since


class Batcher:
    """Gathers jobs and hands them to ``work`` in a thread of its own, one batch at a time."""

    def __init__(
        self,
        work: Work,
        *,
        most: int,
        window_seconds: float,
        timeout_seconds: float = math.inf,
        watch: Callable[[int, float], None] = lambda texts, waited: None,
    ) -> None:
        """Nothing runs before :meth:`start`.

        Args:
            work: what a batch is done with.
            most: texts in a batch (a larger job goes alone).
            window_seconds: see above.
            timeout_seconds: a job that has no answer by then gets a ``TimeoutError``.
            watch: told a batch's texts, and how long its first job waited.
        """
        self._work, self._most, self._window, self._watch = work, most, window_seconds, watch
        self._queue: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="leanmatch-batch")
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._timeout = timeout_seconds
        self._open: deque[_Waiting] = deque()  # in the order of their ends; one timer serves them all
        self._timer: asyncio.TimerHandle | None = None

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
        loop = asyncio.get_running_loop()
        waiting = _Waiting(job, loop.create_future(), time.perf_counter())
        self._queue.append(waiting)
        if self._timeout < math.inf:
            self._open.append(waiting)
            if self._timer is None:
                self._timer = loop.call_later(self._timeout, self._expire)
        self._arrived.set()
        return waiting.answer

    async def close(self) -> None:
        """Finish what was accepted, then stop."""
        self._closed = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        if self._timer is not None:
            self._timer.cancel()
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
            self._watch(sum(waiting.job.weight for waiting in batch), now - batch[0].since)
            try:
                answers = await loop.run_in_executor(
                    self._thread, self._work, [waiting.job for waiting in batch]
                )
            except BaseException as error:  # whatever it is, those who wait must hear of it
                answers = [error] * len(batch)
            while self._open and self._open[0].answer.done():
                self._open.popleft()
            for waiting, answer in zip(batch, answers, strict=True):
                if waiting.answer.done():
                    continue
                if isinstance(answer, BaseException):
                    waiting.answer.set_exception(answer)
                else:
                    waiting.answer.set_result(answer)

    def _expire(self) -> None:
        """Give up on what is too old, and come back when the next one will be."""
        oldest = time.perf_counter() - self._timeout
        while self._open and (self._open[0].answer.done() or self._open[0].since <= oldest):
            late = self._open.popleft()
            if not late.answer.done():
                late.answer.set_exception(TimeoutError())
        self._timer = None
        if self._open:
            wait = max(0.0, self._open[0].since - oldest)
            self._timer = asyncio.get_running_loop().call_later(wait, self._expire)

    def _texts(self) -> int:
        return sum(waiting.job.weight for waiting in self._queue)

    def _take(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        texts = 0
        while self._queue:
            first = self._queue[0]
            if batch and texts + first.job.weight > self._most:
                break
            self._queue.popleft()
            if not first.answer.done():  # cancelled: nobody waits for it
                batch.append(first)
                texts += first.job.weight
        return batch
