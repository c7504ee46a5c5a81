"""OpenTelemetry traces: where each request's time went. Nothing here is imported unless ``otel`` is on.

A request under ``/v1/`` (not those of health checks and scrapers) is a server span, a child of the caller's
where the request has a W3C ``traceparent``. Its children are ``queue`` (until its batch began), ``tokenize``,
``encode``, ``search``, ``rerank`` and ``explain``. A batch holds texts of several requests: each has the
batch's intervals in its own trace, with the number of requests and texts (of ``rerank``: pairs of texts) that
shared them. Texts are in no span.

Where spans go, how many are kept and what the service is called, the environment says (``OTEL_*``), as
OpenTelemetry has it; without it, they go to an OTLP collector at localhost:4318.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from leanmatch.errors import MissingExtraError

try:
    from opentelemetry import context as contexts
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "opentelemetry-sdk", "otel", "traces") from error


@dataclass(frozen=True)
class Place:
    """Where a job stands in its request's trace: the request's context, and when it was queued (ns)."""

    context: Any
    since: int


class Phases:
    """The intervals of one batch, as they are measured in its thread."""

    def __init__(self) -> None:
        self.begin = time.time_ns()
        self.intervals: list[tuple[str, int, int, Mapping[str, Any]]] = []

    @contextmanager
    def phase(self, name: str, **attributes: Any) -> Iterator[None]:
        """One interval."""
        begin = time.time_ns()
        try:
            yield
        finally:
            self.add(name, begin, time.time_ns(), **attributes)

    def add(self, name: str, begin: int, end: int, **attributes: Any) -> None:
        """An interval that was measured already."""
        self.intervals.append((name, begin, end, attributes))


class Tracing:
    """The spans of one process.

    Args:
        provider: where spans go; None for a new one that exports as the environment says.
    """

    def __init__(self, provider: Any = None) -> None:
        self._own = None
        if provider is None:
            provider = self._own = _exporting_provider()
        self._tracer = provider.get_tracer("leanmatch.serve")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, method: str, headers: Mapping[bytes, bytes]) -> Iterator[Any]:
        """The span of a request, which is the current one meanwhile."""
        names = ("traceparent", "tracestate")
        carrier = {
            name: headers[name.encode()].decode("latin-1") for name in names if name.encode() in headers
        }
        span = self._tracer.start_span(
            method, self._propagator.extract(carrier, contexts.Context()), kind=SpanKind.SERVER
        )
        token = contexts.attach(set_span_in_context(span))
        try:
            yield span
        finally:
            contexts.detach(token)
            span.end()

    @staticmethod
    def trace_name(span: Any) -> str:
        """The trace's identifier, 32 hexadecimal digits."""
        return format(span.get_span_context().trace_id, "032x")

    @staticmethod
    def note(span: Any, method: str, route: str, status: int, request: str, texts: int | None) -> None:
        """Say in a request's span what it was and how it ended; names are OpenTelemetry's for HTTP."""
        span.update_name(f"{method} {route}")
        attributes = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "leanmatch.request": request,
        }
        span.set_attributes(attributes if texts is None else {**attributes, "leanmatch.texts": texts})
        if status >= 500:
            span.set_status(StatusCode.ERROR)

    @contextmanager
    def batch(self, jobs: Sequence[Any]) -> Iterator[Phases]:
        """The intervals of a batch that begins now; they are written when it ends, however it does."""
        phases = Phases()
        try:
            yield phases
        finally:
            self._write(phases, jobs)

    def here(self) -> Place:
        """The current request's place, for a job that is about to be queued."""
        return Place(contexts.get_current(), time.time_ns())

    def _write(self, phases: Phases, jobs: Sequence[Any]) -> None:
        """Write a batch's intervals into the trace of each job that has a place."""
        shared = {"leanmatch.batch.requests": len(jobs), "leanmatch.batch.texts": sum(j.weight for j in jobs)}
        for job in jobs:
            if job.place is None:
                continue
            queued: tuple[str, int, int, Mapping[str, Any]] = (
                "queue",
                job.place.since,
                max(phases.begin, job.place.since),
                {},
            )
            for name, begin, end, attributes in (queued, *phases.intervals):
                span = self._tracer.start_span(
                    name, job.place.context, attributes={**shared, **attributes}, start_time=begin
                )
                span.end(end)

    def close(self) -> None:
        """Export what is left."""
        if self._own is not None:
            self._own.shutdown()


def _exporting_provider() -> TracerProvider:
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError as error:
        name = "opentelemetry-exporter-otlp-proto-http"
        raise MissingExtraError(name, "otel", "traces") from error
    named = Resource.create({"service.name": "leanmatch"})
    provider = TracerProvider(resource=named.merge(OTELResourceDetector().detect()))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
