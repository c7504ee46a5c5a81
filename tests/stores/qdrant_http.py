"""Qdrant's HTTP interface on loopback, in front of Qdrant's client in its in-memory mode.

Every request body must fit the model that Qdrant's client publishes for its endpoint (generated from the
server's OpenAPI description; unknown fields are refused), and the client's own models read every answer.
It is not Qdrant: what a real server does with a request that fits is not tested by it.
"""

from __future__ import annotations

import json
import re
import threading
import warnings
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

Answer = Callable[[Any, str, Any], Any]


def _done(_: Any) -> Any:
    return {"operation_id": 0, "status": "completed"}


def _index(client: Any, name: str, body: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the mode in memory has no payload indexes
        return _done(client.create_payload_index(name, body.field_name, body.field_schema))


def _page(client: Any, name: str, body: Any) -> Any:
    points, following = client.scroll(
        name, body.filter, body.limit, offset=body.offset, with_vectors=body.with_vector
    )
    return {"points": points, "next_page_offset": following}


ENDPOINTS: tuple[tuple[str, str, Any, Answer], ...] = (
    ("GET", "", None, lambda client, name, body: None),
    ("GET", "/collections", None, lambda client, name, body: client.get_collections()),
    (
        "GET",
        "/collections/{}/exists",
        None,
        lambda client, name, body: {"exists": client.collection_exists(name)},
    ),
    (
        "PUT",
        "/collections/{}",
        models.CreateCollection,
        lambda client, name, body: client.create_collection(
            name, body.vectors, quantization_config=body.quantization_config
        ),
    ),
    ("DELETE", "/collections/{}", None, lambda client, name, body: client.delete_collection(name)),
    ("PUT", "/collections/{}/index", models.CreateFieldIndex, _index),
    (
        "PUT",
        "/collections/{}/points",
        models.PointInsertOperations,
        lambda client, name, body: _done(client.upsert(name, body.points)),
    ),
    (
        "POST",
        "/collections/{}/points/delete",
        models.PointsSelector,
        lambda client, name, body: _done(client.delete(name, body)),
    ),
    (
        "POST",
        "/collections/{}/points",
        models.PointRequest,
        lambda client, name, body: client.retrieve(name, body.ids, body.with_payload),
    ),
    ("POST", "/collections/{}/points/scroll", models.ScrollRequest, _page),
    (
        "POST",
        "/collections/{}/points/count",
        models.CountRequest,
        lambda client, name, body: client.count(name, body.filter, exact=body.exact),
    ),
    (
        "POST",
        "/collections/{}/points/query/batch",
        models.QueryRequestBatch,
        lambda client, name, body: client.query_batch_points(name, body.searches),
    ),
)
WAITS = {("PUT", "/collections/{}/points"), ("POST", "/collections/{}/points/delete")}
"""Changes that must be there for the next search."""


class QdrantHttp:
    """The server. It answers from :meth:`start` to :meth:`stop`.

    Attributes:
        client: what holds the points.
        seen: method, endpoint and headers of each request.
        faults: what the next requests are answered instead: a status and headers each, in order.
        key: the API key that is asked for, None for none.
    """

    def __init__(self) -> None:
        self.client = QdrantClient(":memory:", force_disable_check_same_thread=True)
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        self.faults: list[tuple[int, dict[str, str]]] = []
        self.key: str | None = None
        self.lock = threading.Lock()
        self._port = 0
        self.start()

    def start(self) -> None:
        outer = self

        class Handler(_Handler):
            owner = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, name: str = "shop") -> str:
        return f"qdrant://127.0.0.1:{self._port}/{name}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: QdrantHttp

    def log_message(self, *_: Any) -> None:
        pass

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        parts = urlsplit(self.path)
        found, (method, pattern, model, answer) = next(
            (found, endpoint)
            for endpoint in ENDPOINTS
            if endpoint[0] == self.command
            and (found := re.fullmatch(endpoint[1].replace("{}", "([^/]+)"), parts.path.rstrip("/")))
        )
        owner = self.owner
        with owner.lock:
            owner.seen.append((method, pattern, dict(self.headers)))
            if owner.faults and pattern:
                status, headers = owner.faults.pop(0)
                self._send(status, {"status": {"error": "injected"}, "time": 0.0}, headers)
                return
            if owner.key is not None and self.headers.get("api-key") != owner.key:
                self._send(401, {"status": {"error": "Must provide an API key"}, "time": 0.0})
                return
            if not pattern:
                self._send(200, {"title": "qdrant - vector search engine", "version": "1.20.0"})
                return
            if (method, pattern) in WAITS:
                assert parse_qs(parts.query).get("wait") == ["true"], self.path
            body = None if model is None else TypeAdapter(model).validate_json(content)
            name = found[1] if found.groups() else ""
            try:
                result = answer(owner.client, name, body)
            except ValueError as error:  # a collection that is not there
                self._send(404, {"status": {"error": str(error)}, "time": 0.0})
                return
            plain = TypeAdapter(Any).dump_python(result, mode="json")
            self._send(200, {"result": plain, "status": "ok", "time": 0.0})

    def _send(self, status: int, document: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815 - names of the base class
