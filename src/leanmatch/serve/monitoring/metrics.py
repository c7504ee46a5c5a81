"""Prometheus metrics; with several workers, added up over them."""

from __future__ import annotations

import os
from typing import Any

from leanmatch.errors import MissingExtraError
from leanmatch.models import TokenCounts, TokenTally

try:
    from prometheus_client import (
        CONTENT_TYPE_LATEST,
        CollectorRegistry,
        Counter,
        Gauge,
        Histogram,
        generate_latest,
    )
    from prometheus_client.multiprocess import MultiProcessCollector
except ModuleNotFoundError as error:
    raise MissingExtraError("prometheus-client", "serve", "the server") from error

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class TokenMetrics(TokenTally):
    """A tally that is also two metrics."""

    def __init__(self, tokens: Counter, truncated: Counter) -> None:
        super().__init__()
        self._tokens, self._truncated = tokens, truncated

    def add(self, counts: TokenCounts) -> None:
        """Add the counts of one batch."""
        super().add(counts)
        self._tokens.inc(counts.tokens)
        self._truncated.inc(counts.truncated)


class Metrics:
    """All metrics of one process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        every: Any = {"registry": registry}
        self._requests = Counter(
            "leanmatch_requests_total", "Requests.", ["method", "path", "status"], **every
        )
        self._seconds = Histogram(
            "leanmatch_request_seconds", "Time to answer.", ["path"], buckets=_SECONDS, **every
        )
        self.refused = Counter("leanmatch_refused_total", "Requests answered 429.", **every)
        self.under_way = Gauge(
            "leanmatch_requests_under_way",
            "Requests that count against the bound.",
            multiprocess_mode="livesum",
            **every,
        )
        self.batch_texts = Histogram("leanmatch_batch_texts", "Texts a batch.", buckets=_TEXTS, **every)
        self.batch_wait = Histogram(
            "leanmatch_batch_wait_seconds", "Wait of a batch's first request.", buckets=_SECONDS, **every
        )
        self.texts = Counter("leanmatch_texts_total", "Texts taken, by what for.", ["use"], **every)
        self.tally = TokenMetrics(
            Counter("leanmatch_tokens_total", "Tokens that the model read, of distinct texts.", **every),
            Counter(
                "leanmatch_truncated_texts_total",
                "Distinct texts of a batch that are longer than the model reads, so that they were cut.",
                **every,
            ),
        )
        self.searches = Counter(
            "leanmatch_searches_total", "Searches, by how they were done.", ["path"], **every
        )
        self.errors = Counter("leanmatch_errors_total", "Requests that failed inside.", ["type"], **every)
        self.items = Gauge(
            "leanmatch_catalogue_items", "Items in the catalogue.", multiprocess_mode="livemax", **every
        )
        self.generation = Gauge(
            "leanmatch_catalogue_generation", "Its generation.", multiprocess_mode="livemax", **every
        )
        self.following = Gauge(
            "leanmatch_catalogue_following",
            "1 while changes of the catalogue are taken up, 0 while they cannot be loaded.",
            multiprocess_mode="livemin",
            **every,
        )
        self.follow_failures = Counter(
            "leanmatch_catalogue_follow_failures_total",
            "Attempts to load a changed catalogue that failed.",
            ["type"],
            **every,
        )
        self.drift = Gauge(
            "leanmatch_drift",
            "Live queries against the reference.",
            ["measure"],
            multiprocess_mode="livemax",
            **every,
        )

        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        key = method, path, status
        children = self._children.get(key)
        if children is None:  # looking labels up takes longer than counting
            count, histogram = self._requests.labels(method, path, str(status)), self._seconds.labels(path)
            children = self._children[key] = (count, histogram)
        children[0].inc()
        children[1].observe(seconds)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        if os.environ.get(MULTIPROCESS):
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            return generate_latest(registry)
        return generate_latest(self._registry)
