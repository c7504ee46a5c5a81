"""How a server runs, and what it refuses."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from leanmatch.errors import UsageError
from leanmatch.models import RERANK_TOP, RERANK_WEIGHT
from leanmatch.models.reranker import check_reranking
from leanmatch.runtime.kernels.paths import PRECISIONS

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
        excluded: identifiers that one request may leave out.
        header_seconds, body_seconds: how long a client may take to send a request's headers, and its body.
        write_seconds: how long a client may leave an answer unread.
        header_bytes: size of a request's headers.
        large_bodies_bytes: bodies over 64 KB that are in memory at one time, together.
        connections: open connections; for one more, the one that has waited longest for its client is closed.
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
    excluded: int = 10_000
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    write_seconds: float = 60.0
    header_bytes: int = 65_536
    large_bodies_bytes: int = 128_000_000
    connections: int = 4_096

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (0 if name == "window_ms" else 1e-6) <= value < math.inf:
                raise UsageError(f"{name} is {value}", remedy="give a finite number above 0")


@dataclass(frozen=True)
class ServeOptions:
    """How a server runs.

    Attributes:
        catalogue: the catalogue's folder, or the URL of a store.
        model: the model's folder, where it is not where the catalogue or the store says.
        host, port: where it listens.
        workers: processes; each holds the model and the catalogue, so one is best for batching.
        threads: of encoding in each process; None for the runtime's own choice.
        precision: in which the runtime encodes queries, see :func:`leanmatch.load`; None for the one
            that the items were encoded in. Another one goes with no ``write_keys``.
        query_prompt: what goes before queries; None for the prompt that the catalogue recorded.
        prompt_name: one of the model's named prompts for queries, in place of ``query_prompt``.
        dimensions: of the vectors that ``/v1/embeddings`` gives where a request asks for none; None for
            those of the catalogue.
        api_keys: any of them is needed for ``/v1/`` where there are some.
        write_keys: any of them is needed to change items; without any, items cannot be changed.
        log_texts: write queries to the log.
        allow_token_ids: take token ids of the model's own tokenizer as input of embeddings.
        otel: send OpenTelemetry traces where the environment says (``OTEL_EXPORTER_OTLP_ENDPOINT`` and kin).
        poll_seconds: how often a new generation of the catalogue or the store is looked for.
        rerank: a cross-encoder, folder or name, for requests that ask for it.
        rerank_top: so many items of a search are reranked.
        rerank_weight: of the cross-encoder beside the search's scores, 0 to 1; 1 for the cross-encoder alone.
    """

    catalogue: str
    model: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    threads: int | None = None
    precision: str | None = None
    query_prompt: str | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    api_keys: tuple[str, ...] = ()
    write_keys: tuple[str, ...] = ()
    log_texts: bool = False
    allow_token_ids: bool = False
    otel: bool = False
    poll_seconds: float = 1.0
    rerank: str | None = None
    rerank_top: int = RERANK_TOP
    rerank_weight: float = RERANK_WEIGHT
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port is {self.port}", remedy="give 0 to 65535")
        if self.workers < 1 or (self.threads is not None and self.threads < 1):
            raise UsageError(f"workers {self.workers}, threads {self.threads}", remedy="give 1 or more")
        if self.dimensions is not None and self.dimensions < 1:
            raise UsageError(f"dimensions is {self.dimensions}", remedy="give 1 or more")
        if self.precision is not None and self.precision not in PRECISIONS:
            raise UsageError(f"precision is {self.precision!r}", remedy=f"one of: {', '.join(PRECISIONS)}")
        check_reranking(self.rerank_top, self.rerank_weight)
        if not 0.01 <= self.poll_seconds < math.inf:
            raise UsageError(f"poll_seconds is {self.poll_seconds}", remedy="give 0.01 or more")
        for key in (*self.api_keys, *self.write_keys):
            if len(key) < 8:
                raise UsageError("a key has fewer than 8 characters", remedy="give a longer one")
            if key != key.strip() or not key.isprintable():
                raise UsageError(
                    "a key begins or ends with white space, or has a character that no header can carry",
                    remedy="give a key of printable characters",
                )

    def check_dimensions(self, most: int) -> None:
        """Refuse more dimensions than the catalogue's vectors have.

        Raises:
            UsageError: there are more.
        """
        if (self.dimensions or 0) > most:
            raise UsageError(
                f"dimensions is {self.dimensions}, and the catalogue's vectors have {most}",
                remedy="give fewer, or encode all items anew: rebuild_catalogue",
                command="give fewer, or encode all items anew: leanmatch index rebuild CATALOGUE "
                f"--dimensions {self.dimensions}",
            )

    def to_text(self) -> str:
        """For a worker process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_text(cls, text: str) -> ServeOptions:
        """What :meth:`to_text` wrote."""
        values: dict[str, Any] = json.loads(text)
        keys = {name: tuple(values[name]) for name in ("api_keys", "write_keys")}
        return cls(**{**values, **keys, "limits": Limits(**values["limits"])})
