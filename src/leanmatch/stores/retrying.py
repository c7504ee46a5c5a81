"""Trying again when a server does not answer."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Result = TypeVar("Result")


@dataclass
class Patience:
    """How long work waits for a server.

    Attributes:
        attempts: how often it is asked. The pause before the second attempt is ``pause_seconds``; each later
            pause is twice as long.
        pause_seconds: see above.
        answer_seconds: how long one attempt to connect may take.
        once_while_lost: after a failure the server is asked once, without a pause, until it answers again. So
            those who share this object do not wait in line for a server that is down.
        lost: whether the last work failed.
    """

    attempts: int = 5
    pause_seconds: float = 0.1
    answer_seconds: float = 10.0
    once_while_lost: bool = False
    lost: bool = False

    def attempted(
        self,
        work: Callable[[], Result],
        is_passing: Callable[[Exception], bool],
        asked_pause: Callable[[Exception], float] = lambda _: 0.0,
    ) -> Result:
        """Run some work and return its result.

        Args:
            work: asks the server.
            is_passing: whether an exception means that the server may answer the next attempt.
            asked_pause: the seconds that the server asks to wait. A pause is at least so long, but no longer
                than ``answer_seconds``.

        Raises:
            Exception: the last attempt's, or the first that does not pass.
        """
        attempts = 1 if self.lost and self.once_while_lost else self.attempts
        for attempt in range(1, attempts + 1):
            try:
                result = work()
            except Exception as error:
                if not is_passing(error):
                    raise
                if attempt == attempts:
                    self.lost = True
                    raise
                pause = self.pause_seconds * 2 ** (attempt - 1)
                time.sleep(max(pause, min(asked_pause(error), self.answer_seconds)))
            else:
                self.lost = False
                return result
        raise AssertionError("attempts is below 1")
