"""One JSON line a request, written in one go every tenth of a second.

A record of :mod:`logging` costs as much as a request's whole validation. So lines are kept, and what has
come together is one record, a line each; ``flush`` writes at once. A process that is killed (not stopped)
loses the lines of its last tenth of a second.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping
from typing import Any

EVERY_SECONDS = 0.1
MORE = ("texts", "queries", "error", "trace")
"""What a line says besides, where it is in the request's state."""

log = logging.getLogger("leanmatch.serve")
_json = json.JSONEncoder(ensure_ascii=False).encode


class AccessLog:
    """Keeps lines and writes them together; for one event loop."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._planned: asyncio.TimerHandle | None = None

    def add(
        self,
        request: str,
        method: str,
        path: str,
        status: int,
        seconds: float,
        state: Mapping[str, Any],
    ) -> None:
        """Take note of an answered request; :data:`MORE` of its state stand in its line as well."""
        if not log.isEnabledFor(logging.INFO):
            return
        line = (
            f'{{"time": {time.time():.3f}, "request": {_json(request)}, '
            f'"method": {_json(method)}, "path": {_json(path)}, '
            f'"status": {status}, "ms": {seconds * 1000:.2f}'
        )
        for name in MORE:
            if name in state:
                line += f', "{name}": {_json(state[name])}'
        self._lines.append(line + "}")
        if self._planned is None:
            self._planned = asyncio.get_running_loop().call_later(EVERY_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what was kept."""
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None
        if self._lines:
            lines, self._lines = self._lines, []
            log.info("\n".join(lines))
