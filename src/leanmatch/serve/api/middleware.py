"""What every request passes: an id, a key, a size, a place under the bound; and what is written about it.

Plain ASGI, before anything is parsed, so that a refusal costs next to nothing. Requests that come by the
thousand are answered from here as well, past the framework (:mod:`leanmatch.serve.api.matching`).
"""

from __future__ import annotations

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
from leanmatch.serve.monitoring.metrics import Metrics
from leanmatch.serve.options import ServeOptions

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
_REQUEST_ID = re.compile(r"[\w.:-]{1,128}")


@dataclass(frozen=True)
class Reply:
    """An answer as bytes; ``headers`` besides its type and length."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def of(cls, status: int, document: Any, headers: Mapping[str, str] | None = None) -> Reply:
        """A document as JSON."""
        raw = tuple((name.encode(), value.encode()) for name, value in (headers or {}).items())
        return cls(status, json.dumps(document, ensure_ascii=False).encode(), raw)


Direct = Callable[[bytes, dict[bytes, bytes], dict[str, Any]], Awaitable[Reply]]
"""A body, headers by their names in small letters, and the request's state, to an answer."""


class Gate:
    """The outermost layer of the application.

    Args:
        app: what is behind it.
        options: limits and keys.
        metrics: told of every request.
        access: where a line is written about every request.
        direct: by path, what answers POST in place of ``app``.
    """

    def __init__(
        self,
        app: App,
        options: ServeOptions,
        metrics: Metrics,
        access: AccessLog,
        direct: Mapping[str, Direct],
    ) -> None:
        self._app, self._options, self._metrics = app, options, metrics
        self._access, self._direct = access, direct
        self._under_way = 0
        self._prefix, self._numbers = secrets.token_hex(8), count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        headers = dict(scope["headers"])  # ASGI: names in small letters
        given = headers.get(b"x-request-id")
        name = given.decode("latin-1") if given is not None else ""
        if given is None or not _REQUEST_ID.fullmatch(name):
            name = f"{self._prefix}{next(self._numbers):016x}"
        path, method = scope["path"], scope["method"]
        state: dict[str, Any] = scope.setdefault("state", {})
        post = method == "POST"
        bounded = post and path in BOUNDED
        refusal = self._refusal(path, headers, bounded)
        if refusal is not None:
            status = refusal.status
            await _send(refusal, name, send)
            self._note(name, method, path, status, begin, state)
        else:
            self._under_way += bounded
            self._metrics.under_way.set(self._under_way)
            direct = self._direct.get(path) if post else None
            status = 500  # where the application fails and says so to its server
            try:
                if direct is None:
                    status = await self._pass_on(scope, receive, send, name)
                else:
                    reply = await self._answer(direct, receive, headers, state)
                    status = reply.status
                    await _send(reply, name, send)
            finally:
                self._under_way -= bounded
                self._note(name, method, path, status, begin, state)

    def _note(
        self, name: str, method: str, path: str, status: int, begin: float, state: dict[str, Any]
    ) -> None:
        seconds = time.perf_counter() - begin
        label = path
        if path not in KNOWN_PATHS:
            label = "/v1/items/{id}" if path.startswith("/v1/items/") else "other"
        self._metrics.request(method, label, status, seconds)
        self._access.add(name, method, path, status, seconds, state)

    async def _answer(
        self, direct: Direct, receive: Receive, headers: dict[bytes, bytes], state: dict[str, Any]
    ) -> Reply:
        size = _Size(receive, self._options.limits.body_bytes)
        try:
            message = await size.counted()
            body = message.get("body", b"")
            while message.get("more_body"):
                message = await size.counted()
                body += message.get("body", b"")
        except _TooLargeError:
            return self._too_large()
        return await direct(body, headers, state)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, name: str) -> int:
        """Let the application answer; the status that it answered with."""
        status = 500
        size = _Size(receive, self._options.limits.body_bytes)

        async def answered(message: Message) -> None:
            nonlocal status
            if size.exceeded:  # whatever the application makes of a body that broke off
                raise _TooLargeError
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", name.encode("latin-1"))]
            await send(message)

        try:
            await self._app(scope, size.counted, answered)
        except _TooLargeError:
            reply = self._too_large()
            status = reply.status
            await _send(reply, name, send)
        return status

    def _refusal(self, path: str, headers: dict[bytes, bytes], bounded: bool) -> Reply | None:
        options = self._options
        if path.startswith("/v1/"):
            writes = path.startswith(WRITES)
            keys = options.write_keys if writes else (*options.api_keys, *options.write_keys)
            if writes and not keys:
                return _error(403, "this server does not change items: it was started without --write-key")
            if (writes or options.api_keys) and not _has_key(headers, keys):
                challenge = {"www-authenticate": "Bearer"}
                return _error(401, "a key is needed: Authorization: Bearer KEY", challenge)
        if bounded and self._under_way >= options.limits.waiting:
            self._metrics.refused.inc()
            return _error(429, "too many requests are under way; try again in a moment", {"retry-after": "1"})
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > options.limits.body_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> Reply:
        most = self._options.limits.body_bytes
        return _error(413, f"the request is larger than {most:,} bytes", {"connection": "close"})


class _Size:
    """Counts a body while it comes in, for those that say no length."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._most, self._taken = receive, most, 0

    @property
    def exceeded(self) -> bool:
        return self._taken > self._most

    async def counted(self) -> Message:
        message = await self._receive()
        self._taken += len(message.get("body", b""))
        if self.exceeded:
            raise _TooLargeError
        return message


class _TooLargeError(Exception):
    pass


def _has_key(headers: dict[bytes, bytes], keys: tuple[str, ...]) -> bool:
    given = headers.get(b"x-api-key", b"")
    scheme, _, rest = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer":
        given = rest.strip()
    # every key is compared, and in constant time
    return bool(sum(hmac.compare_digest(given, key.encode()) for key in keys))


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    return Reply.of(status, error_body(status, message), headers)


async def _send(reply: Reply, name: str, send: Send) -> None:
    headers = [
        *reply.headers,
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(reply.body)),
        (b"x-request-id", name.encode("latin-1")),
    ]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": reply.body})
