"""How a server runs, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from leanmatch.errors import UsageError
from leanmatch.runtime.paths import PRECISIONS

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        batch_texts: texts that are encoded together.
        window_ms: how long a batch waits for more texts while requests come in together.
        waiting: requests that may be under way; one more is answered 429.
        timeout_seconds: a request that takes longer is answered 503.
        request_texts, text_characters, body_bytes, items: size of one request.
        results: the largest k.
    """

    batch_texts: int = 64
    window_ms: float = 1.0
    waiting: int = 256
    timeout_seconds: float = 10.0
    request_texts: int = 128
    text_characters: int = 8_192
    body_bytes: int = 4_000_000
    items: int = 1_000
    results: int = 1_000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 0 or (value == 0 and name != "window_ms"):
                raise UsageError(f"{name} is {value}", remedy="give a number above 0")


@dataclass(frozen=True)
class ServeOptions:
    """How a server runs.

    Attributes:
        catalogue: the catalogue's folder.
        model: the model's folder, where it is not where the catalogue says.
        host, port: where it listens.
        workers: processes; each holds the model and the catalogue, so one is best for batching.
        threads: of encoding in each process; None for the runtime's own choice.
        weights: precision in which the runtime encodes queries, see :func:`leanmatch.load`; None for the one
            that the items were encoded in. Another one goes with no ``write_keys``.
        api_keys: any of them is needed for ``/v1/`` where there are some.
        write_keys: any of them is needed to change items; without any, items cannot be changed.
        log_texts: write queries to the log.
        poll_seconds: how often a new generation of the catalogue is looked for.
    """

    catalogue: str
    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    threads: int | None = None
    weights: str | None = None
    api_keys: tuple[str, ...] = ()
    write_keys: tuple[str, ...] = ()
    log_texts: bool = False
    poll_seconds: float = 1.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port is {self.port}", remedy="give 0 to 65535")
        if self.workers < 1 or (self.threads is not None and self.threads < 1):
            raise UsageError(f"workers {self.workers}, threads {self.threads}", remedy="give 1 or more")
        if self.weights is not None and self.weights not in PRECISIONS:
            raise UsageError(f"weights is {self.weights!r}", remedy=f"one of: {', '.join(PRECISIONS)}")
        if any(len(key) < 8 for key in (*self.api_keys, *self.write_keys)):
            raise UsageError("a key has fewer than 8 characters", remedy="give a longer one")

    def to_text(self) -> str:
        """For a worker process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> ServeOptions:
        """What :meth:`to_text` wrote."""
        values: dict[str, Any] = json.loads(text)
        keys = {name: tuple(values[name]) for name in ("api_keys", "write_keys")}
        return cls(**{**values, **keys, "limits": Limits(**values["limits"])})
