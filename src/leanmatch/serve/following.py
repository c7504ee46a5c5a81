"""Following a catalogue or a store: whoever changes it, the server takes it up, and never stops looking.

What is followed of a catalogue is the manifest's content, not its generation: a catalogue that was made anew
at the same place begins with generation 1 again. A failure of any kind leaves the generation at hand in
service. It is logged, tried again with growing pauses, and stands in ``/health`` and ``/metrics`` until it is
over.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from leanmatch.errors import LeanmatchError
from leanmatch.index.storage.manifest import MANIFEST

LONGEST_PAUSE_SECONDS = 60.0
LOGGED_EVERY_SECONDS = 60.0
"""A failure that stays the same is logged this often."""

log = logging.getLogger("leanmatch.serve")


def manifest_digest(folder: str | Path) -> str:
    """SHA-256 of a catalogue's manifest, which names every file of it by its own SHA-256.

    Raises:
        OSError: it cannot be read.
    """
    return hashlib.sha256(Path(folder, MANIFEST).read_bytes()).hexdigest()


class Follower:
    """Calls ``load`` whenever what is there changes.

    Args:
        look: says in a word what is there now.
        load: loads it.
        loaded: the digest of what was loaded last; ``load`` and others that load change it.
        executor: where ``load`` runs.
        poll_seconds: how often ``look`` is called.
        failed: told of each failure.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        look: Callable[[], str],
        load: Callable[[], None],
        loaded: Callable[[], str],
        executor: Executor,
        poll_seconds: float,
        failed: Callable[[BaseException], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look_at, self._load, self._loaded = look, load, loaded
        self._executor, self._poll_seconds = executor, poll_seconds
        self._failed, self._clock = failed, clock
        self.problem: str | None = None
        self.error: BaseException | None = None
        self.failures = 0
        self._tried = ""
        self._next_try = self._next_log = 0.0

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            await self.look()

    async def look(self) -> None:
        """Look once, and load what is new."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._executor, self._look)
        except (asyncio.CancelledError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # also the panics of native libraries, which are no Exception
            self._note(error)

    def _look(self) -> None:
        digest = self._look_at()
        if digest != self._loaded():
            now = self._clock()
            if digest == self._tried and now < self._next_try:
                return
            self._tried = digest
            self._load()
        self._recover()

    def _recover(self) -> None:
        if self.problem is not None:
            log.info(json.dumps({"event": "following", "message": "its changes are taken up again"}))
        self.problem, self.error, self.failures, self._tried = None, None, 0, ""

    def _note(self, error: BaseException) -> None:
        self.failures += 1
        pause = min(LONGEST_PAUSE_SECONDS, self._poll_seconds * 2.0 ** min(self.failures, 30))
        now = self._clock()
        self._next_try = now + pause
        problem = error.problem if isinstance(error, LeanmatchError) else f"{type(error).__name__}: {error}"
        if problem != self.problem or now >= self._next_log:
            self._next_log = now + LOGGED_EVERY_SECONDS
            log.error(
                json.dumps(
                    {
                        "event": "following",
                        "message": f"what is served cannot be loaded anew, the old one stays: {problem}",
                        "failures": self.failures,
                        "next_try_seconds": round(pause, 1),
                    },
                    ensure_ascii=False,
                ),
                exc_info=None if isinstance(error, LeanmatchError | OSError) else error,
            )
        self.problem, self.error = problem, error
        self._failed(error)
