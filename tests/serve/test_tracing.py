"""OpenTelemetry traces: the spans of each request, the caller's trace, and nothing without the option."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from leanmatch.errors import MissingExtraError
from leanmatch.serve import ServeOptions, create_app
from leanmatch.serve.engine import Engine

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def traced(folder, encoder, monkeypatch):
    """A client of a server that is ready, and a function: the spans that ended since its last call."""
    pytest.importorskip("opentelemetry.sdk", reason="the extra otel is not installed")
    from fastapi.testclient import TestClient
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def finished():
        spans = exporter.get_finished_spans()
        exporter.clear()
        return spans

    reranker = SimpleNamespace(
        name="lengths", logits=lambda pairs: np.array([len(item) for _, item in pairs])
    )
    monkeypatch.setattr("leanmatch.serve.service.load_reranker", lambda name, threads=None: reranker)
    options = ServeOptions(catalogue=str(folder), poll_seconds=0.05, rerank="lengths")
    app = create_app(options, encoder=encoder, tracer_provider=provider)
    with TestClient(app, raise_server_exceptions=False) as client:
        while client.get("/health").status_code != 200:
            pass
        finished()
        yield client, finished


def by_name(spans):
    return {span.name: span for span in spans}


def test_a_request_is_a_span_with_its_steps_in_order(traced):
    client, finished = traced
    body = {"texts": ["red shoe", "blue hat"], "k": 3}
    name = client.post("/v1/recommend", json=body).headers["x-request-id"]
    spans = by_name(finished())
    assert set(spans) == {"POST /v1/recommend", "queue", "encode", "search"}
    request = spans["POST /v1/recommend"]
    assert request.kind.name == "SERVER" and request.parent is None
    assert dict(request.attributes) == {
        "http.request.method": "POST",
        "http.route": "/v1/recommend",
        "http.response.status_code": 200,
        "leanmatch.request": name,
        "leanmatch.texts": 2,
    }
    steps = [spans[step] for step in ("queue", "encode", "search")]
    for step in steps:
        assert (
            step.parent.span_id == request.context.span_id
            and step.context.trace_id == request.context.trace_id
        )
        assert dict(step.attributes)["leanmatch.batch.texts"] == 2
        assert request.start_time <= step.start_time <= step.end_time <= request.end_time
    assert all(first.end_time <= second.start_time for first, second in pairwise(steps))
    assert not any("shoe" in str(dict(span.attributes)) for span in spans.values()), "texts are in no span"


def test_explanations_and_embeddings(traced):
    client, finished = traced
    client.post("/v1/recommend", json={"texts": ["red shoe"], "explain": True})
    names = [span.name for span in finished()]
    assert sorted(names) == ["POST /v1/recommend", "encode", "explain", "queue", "queue", "search"]
    model = client.get("/v1/models").json()["data"][0]["id"]
    finished()
    client.post("/v1/embeddings", json={"model": model, "input": "red shoe"})
    assert sorted(span.name for span in finished()) == ["POST /v1/embeddings", "encode", "queue"]


def test_reranking_has_a_span_of_its_own(traced):
    client, finished = traced
    client.post("/v1/recommend", json={"texts": ["red shoe"], "k": 3, "rerank": True})
    spans = finished()
    assert sorted(span.name for span in spans) == [
        *("POST /v1/recommend", "encode", "queue", "queue", "rerank", "search")
    ]
    named = by_name(spans)
    rerank, request = named["rerank"], named["POST /v1/recommend"]
    assert rerank.parent.span_id == request.context.span_id
    assert named["search"].end_time <= rerank.start_time <= rerank.end_time <= request.end_time
    assert dict(rerank.attributes) == {
        "leanmatch.reranker": "lengths",
        "leanmatch.batch.requests": 1,
        "leanmatch.batch.texts": 40,  # all items, at most 50 are reranked
    }


def test_the_callers_trace_goes_on(traced):
    client, finished = traced
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "tracestate": "shop=1"}
    client.post("/v1/recommend", json={"texts": ["red shoe"]}, headers=headers)
    spans = finished()
    assert {format(span.context.trace_id, "032x") for span in spans} == {TRACE}
    request = by_name(spans)["POST /v1/recommend"]
    assert format(request.parent.span_id, "016x") == CALLER and request.context.trace_state["shop"] == "1"
    client.post("/v1/recommend", json={"texts": ["a"]}, headers={"traceparent": f"00-{TRACE}-{CALLER}-00"})
    assert finished() == (), "a caller that does not sample is followed"
    client.post("/v1/recommend", json={"texts": ["a"]}, headers={"traceparent": "nonsense"})
    spans = finished()
    assert spans and by_name(spans)["POST /v1/recommend"].parent is None


def test_failures_and_what_is_not_traced(traced, encoder, monkeypatch):
    client, finished = traced
    client.get("/health")
    client.get("/metrics")
    assert finished() == ()
    assert client.post("/v1/recommend", json={"texts": []}).status_code == 422
    (refused,) = finished()
    assert (
        refused.attributes["http.response.status_code"] == 422 and refused.status.status_code.name == "UNSET"
    )
    monkeypatch.setattr(encoder, "encode_query", None, raising=False)  # not callable
    assert client.post("/v1/recommend", json={"texts": ["red shoe"]}).status_code == 500
    failed = by_name(finished())
    assert failed["POST /v1/recommend"].status.status_code.name == "ERROR" and "queue" in failed


def test_the_log_has_the_trace(traced, caplog):
    client, _ = traced
    caplog.set_level("INFO", "leanmatch.serve")
    client.post("/v1/recommend", json={"texts": ["a"]}, headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
    client.app._access.flush()
    assert f'"trace": "{TRACE}"' in caplog.text


def test_tokens_are_timed_apart_where_the_native_runtime_encodes(tmp_path, folder):
    pytest.importorskip("sentence_transformers", reason="the train extra is not installed")
    sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
    from runtime_models import build

    from leanmatch.index import Catalogue
    from leanmatch.models import TokenTally
    from leanmatch.runtime import load

    build(tmp_path)
    encoder, tally = load(tmp_path / "model", runtime="native"), TokenTally()

    class Recorder:
        steps: list = []  # noqa: RUF012

        def add(self, name, begin, end, **attributes):
            self.steps.append((name, begin, end, attributes))

    texts = [f"usb dock {number}" for number in range(100)]  # more than the encoder takes at once
    found = Engine(encoder, Catalogue.open(folder), tally=tally).encode(texts, phases=Recorder())
    np.testing.assert_array_equal(found, encoder(texts))
    (first, begin, middle, attributes), (second, again, end, _) = Recorder.steps
    assert (first, second) == ("tokenize", "encode") and begin < middle == again < end
    assert tally.counts.texts == 100 and attributes == {"leanmatch.tokens": tally.counts.tokens}


def test_without_the_option_nothing_is_imported(folder):
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1] / "index")!r})
from catalogue_models import WordEncoder
from fastapi.testclient import TestClient
from leanmatch.serve import ServeOptions, create_app
before = set(sys.modules)
app = create_app(ServeOptions(catalogue={str(folder)!r}), encoder=WordEncoder(dimension=24))
with TestClient(app) as client:
    while client.get("/health").status_code != 200:
        pass
    assert client.post("/v1/recommend", json={{"texts": ["red shoe"]}}).status_code == 200
print([name for name in set(sys.modules) - before if name.startswith("opentelemetry")])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_extra_is_named(folder, encoder, monkeypatch):
    monkeypatch.delitem(sys.modules, "leanmatch.serve.monitoring.tracing", raising=False)
    for name in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    with pytest.raises(MissingExtraError, match=r"leanmatch\[otel\]"):
        create_app(ServeOptions(catalogue=str(folder), otel=True), encoder=encoder)


def test_spans_are_sent_where_the_environment_says(folder, encoder, monkeypatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the extra otel is not installed")
    from fastapi.testclient import TestClient

    received = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=collector.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-search")
        app = create_app(ServeOptions(catalogue=str(folder), otel=True), encoder=encoder)
        with TestClient(app) as client:
            while client.get("/health").status_code != 200:
                pass
            client.post("/v1/recommend", json={"texts": ["red shoe"]})
    finally:
        collector.shutdown()
        thread.join()
        collector.server_close()
    sent = b"".join(body for path, body in received if path == "/v1/traces")
    assert b"POST /v1/recommend" in sent and b"shop-search" in sent and b"red shoe" not in sent
