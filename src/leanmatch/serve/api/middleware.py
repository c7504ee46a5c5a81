"""What every request passes: an id, a key, its body, a place under the bound; and what is written about it.

Plain ASGI around the application. A refusal costs next to nothing, because nothing has been parsed. A place
under the bound is taken when the body is there: a client that sends half a request holds nobody up.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from leanmatch.serve.api.access_log import AccessLog
from leanmatch.serve.api.problems import error_body
from leanmatch.serve.service import Service

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BOUNDED = frozenset({"/v1/recommend", "/v1/embeddings"})
WRITES = ("/v1/items",)
KNOWN_PATHS = frozenset(
    {*BOUNDED, "/v1/items", "/v1/items/delete", "/v1/models", "/v1/catalogue", "/v1/suggest", "/v1/status"}
    | {"/health", "/metrics", "/docs", "/openapi.json", "/"}
)
SMALL_BODY = 65_536
"""Bodies up to this size are always taken; larger ones share ``Limits.large_bodies_bytes``."""

RETRY_SECONDS = 1
REFUSED = "refused"
"""After so many seconds a client that was answered 429 may come again; the mark in such a request's state."""

CLIENT_GONE = 499
"""The status in log and metrics of a request whose client went away (nginx's)."""

_REQUEST_ID = re.compile(r"[\w.:-]{1,128}")


class ClientGoneError(Exception):
    """The client closed the connection before it was answered."""


@dataclass(frozen=True)
class Refusal:
    """An error that is answered before the application is asked; ``headers`` besides its type and length."""

    status: int
    message: str
    headers: Mapping[str, str]


class Gate:
    """The outermost layer of the application.

    Args:
        app: what is behind it.
        direct: by path, what answers POST in place of ``app``: routes of it that pass by its middleware.
        service: whose options have the limits and keys, and whose metrics are told of every request.
        access: where a line is written about every request.
    """

    def __init__(self, app: App, direct: Mapping[str, App], service: Service, access: AccessLog) -> None:
        self.service = service
        self._app, self._direct, self._access = app, direct, access
        self._options, self._metrics = service.options, service.metrics
        self._under_way = self._large_bytes = 0
        self._prefix, self._numbers = secrets.token_hex(8), count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])  # ASGI: names in small letters
        tracing = self.service.tracing
        if tracing is None or not scope["path"].startswith("/v1/"):
            await self._answer(scope, receive, send, headers)
            return
        with tracing.request(scope["method"], headers) as span:
            scope.setdefault("state", {})["trace"] = tracing.trace_name(span)
            await self._answer(scope, receive, send, headers, span)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, headers: dict[bytes, bytes], span: Any = None
    ) -> None:
        begin = time.perf_counter()
        given = headers.get(b"x-request-id")
        name = given.decode("latin-1") if given is not None else ""
        if given is None or not _REQUEST_ID.fullmatch(name):
            name = f"{self._prefix}{next(self._numbers):016x}"
        path, method = scope["path"], scope["method"]
        state: dict[str, Any] = scope.setdefault("state", {})
        bounded = method == "POST" and path in BOUNDED
        status = 500  # where the application fails and says so to its server
        body = _Body(receive, self)
        try:
            refusal = self._refusal(path, headers, bounded) or await body.read() or self._full(bounded)
            if refusal is not None:
                status = refusal.status
                state[REFUSED] = status == 429
                await _refuse(refusal, name, send)
                return
            self._under_way += bounded
            self._metrics.under_way.set(self._under_way)
            try:
                app = self._direct.get(path, self._app) if method == "POST" else self._app
                status = await self._pass_on(app, scope, body, send, name)
            finally:
                self._under_way -= bounded
        except ClientGoneError:
            status = CLIENT_GONE
        finally:
            body.release()
            label = self._note(name, method, path, status, begin, state)
            if span is not None and self.service.tracing is not None:
                self.service.tracing.note(span, method, label, status, name, state.get("texts"))

    @staticmethod
    async def _pass_on(app: App, scope: Scope, body: _Body, send: Send, name: str) -> int:
        """Let an application answer; the status that it answered with."""
        status = 500
        identifier = (b"x-request-id", name.encode("latin-1"))

        async def answered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), identifier]
            await send(message)

        await app(scope, body.receive, answered)
        return status

    def _note(
        self, name: str, method: str, path: str, status: int, begin: float, state: dict[str, Any]
    ) -> str:
        """Tell metrics and log; the path as they have it."""
        seconds = time.perf_counter() - begin
        label = path
        if path not in KNOWN_PATHS:
            label = "/v1/items/{id}" if path.startswith("/v1/items/") else "other"
        self._metrics.request(method, label, status, seconds)
        self._access.add(name, method, path, status, seconds, state)
        return label

    def _refusal(self, path: str, headers: dict[bytes, bytes], bounded: bool) -> Refusal | None:
        """What can be refused before the body is read."""
        options = self._options
        if path.startswith("/v1/"):
            writes = path.startswith(WRITES)
            keys = options.write_keys if writes else (*options.api_keys, *options.write_keys)
            if writes and not keys:
                return Refusal(
                    403, "this server does not change items: it was started without --write-key", {}
                )
            if (writes or options.api_keys) and not _has_key(headers, keys):
                challenge = {"www-authenticate": "Bearer"}
                return Refusal(401, "a key is needed: Authorization: Bearer KEY", challenge)
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > options.limits.body_bytes:
            return self.too_large()
        return self._full(bounded)

    def _full(self, bounded: bool) -> Refusal | None:
        if bounded and self._under_way >= self._options.limits.waiting:
            self._metrics.refused.inc()
            return Refusal(
                429,
                "too many requests are under way; try again in a moment",
                {"retry-after": str(RETRY_SECONDS)},
            )
        return None

    @property
    def body_seconds(self) -> float:
        """How long a body may take."""
        return self._options.limits.body_seconds

    @property
    def body_bytes(self) -> int:
        """How large a body may be."""
        return self._options.limits.body_bytes

    def too_large(self) -> Refusal:
        """The answer to a body beyond the limit."""
        return Refusal(413, f"the request is larger than {self.body_bytes:,} bytes", {"connection": "close"})

    def take_large(self, count: int) -> bool:
        """Room for so many more bytes of large bodies, if there is."""
        if self._large_bytes + count > self._options.limits.large_bodies_bytes:
            return False
        self._large_bytes += count
        return True

    def give_large(self, count: int) -> None:
        """Give that room back."""
        self._large_bytes -= count


class _Body:
    """A request's body: read whole within its time and size, then handed to the application."""

    __slots__ = ("_bytes", "_gate", "_handed", "_large", "_receive")

    def __init__(self, receive: Receive, gate: Gate) -> None:
        self._receive, self._gate = receive, gate
        self._bytes, self._handed, self._large = b"", False, 0

    async def read(self) -> Refusal | None:
        """Read all of it.

        Raises:
            ClientGoneError: the connection was closed.
        """
        seconds = self._gate.body_seconds
        try:
            async with asyncio.timeout(seconds):
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    raise ClientGoneError
                self._bytes = message.get("body", b"")
                if message.get("more_body"):
                    return await self._read_on()
        except TimeoutError:
            return Refusal(408, f"the body did not come within {seconds:g} seconds", {"connection": "close"})
        return self._gate.too_large() if len(self._bytes) > self._gate.body_bytes else None

    async def _read_on(self) -> Refusal | None:
        body, more = bytearray(self._bytes), True
        while more:
            if len(body) > self._gate.body_bytes:
                return self._gate.too_large()
            if len(body) > SMALL_BODY:
                if not self._gate.take_large(len(body) - self._large):
                    return Refusal(
                        503,
                        "too many large requests are being received; try again in a moment",
                        {"connection": "close", "retry-after": "2"},
                    )
                self._large = len(body)
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            body += message.get("body", b"")
            more = bool(message.get("more_body"))
        self._bytes = bytes(body)
        return self._gate.too_large() if len(body) > self._gate.body_bytes else None

    async def receive(self) -> Message:
        """What the application receives: the body, then what the connection says."""
        if self._handed:
            return await self._receive()
        self._handed, body, self._bytes = True, self._bytes, b""
        return {"type": "http.request", "body": body, "more_body": False}

    def release(self) -> None:
        """The request is over."""
        self._gate.give_large(self._large)


def _has_key(headers: dict[bytes, bytes], keys: tuple[str, ...]) -> bool:
    given = headers.get(b"x-api-key", b"")
    scheme, _, rest = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        given = rest.strip()
    # every key is compared, and in constant time
    return bool(sum(hmac.compare_digest(given, key.encode()) for key in keys))


async def _refuse(refusal: Refusal, name: str, send: Send) -> None:
    body = json.dumps(error_body(refusal.status, refusal.message), ensure_ascii=False).encode()
    headers = [
        *((key.encode(), value.encode()) for key, value in refusal.headers.items()),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", name.encode("latin-1")),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
