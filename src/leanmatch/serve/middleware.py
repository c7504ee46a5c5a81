"""What every request passes: an id, a key, a size, a place under the bound; and what is written about it.

Plain ASGI, before anything is parsed, so that a refusal costs next to nothing.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from leanmatch.serve.metrics import Metrics
from leanmatch.serve.options import ServeOptions
from leanmatch.serve.problems import error_body

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

log = logging.getLogger("leanmatch.serve")


class Gate:
    """The outermost layer of the application."""

    def __init__(self, app: App, options: ServeOptions, metrics: Metrics) -> None:
        self._app, self._options, self._metrics = app, options, metrics
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        headers = {name.lower(): value for name, value in scope["headers"]}
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        name = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        path, status = scope["path"], 500
        state: dict[str, Any] = scope.setdefault("state", {})

        size = _Size(receive, self._options.limits.body_bytes)

        async def answered(message: Message) -> None:
            if size.exceeded:  # whatever the application makes of a body that broke off
                raise _TooLargeError
            await passed(message)

        async def passed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", name.encode("latin-1"))]
            await send(message)

        bounded = path in BOUNDED and scope["method"] == "POST"
        refusal = self._refusal(path, headers, bounded)
        if refusal is not None:
            await _answer(passed, *refusal)
        else:
            self._under_way += bounded
            self._metrics.under_way.set(self._under_way)
            try:
                await self._app(scope, size.counted, answered)
            except _TooLargeError:
                await _answer(passed, *self._too_large())
            finally:
                self._under_way -= bounded
        seconds = time.perf_counter() - begin
        label = (
            path if path in KNOWN_PATHS else "/v1/items/{id}" if path.startswith("/v1/items/") else "other"
        )
        self._metrics.request(scope["method"], label, status, seconds)
        line = {
            "time": round(time.time(), 3),
            "request": name,
            "method": scope["method"],
            "path": path,
            "status": status,
            "ms": round(seconds * 1000, 2),
        }
        for key in ("texts", "queries", "error"):
            if key in state:
                line[key] = state[key]
        log.info(json.dumps(line, ensure_ascii=False))

    def _refusal(
        self, path: str, headers: dict[bytes, bytes], bounded: bool
    ) -> tuple[int, str, dict[str, str]] | None:
        options = self._options
        if path.startswith("/v1/"):
            writes = path.startswith(WRITES)
            keys = options.write_keys if writes else (*options.api_keys, *options.write_keys)
            if writes and not keys:
                return 403, "this server does not change items: it was started without --write-key", {}
            if (writes or options.api_keys) and not _has_key(headers, keys):
                challenge = {"www-authenticate": "Bearer"}
                return 401, "a key is needed: Authorization: Bearer KEY", challenge
        if bounded and self._under_way >= options.limits.waiting:
            self._metrics.refused.inc()
            return 429, "too many requests are under way; try again in a moment", {"retry-after": "1"}
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > options.limits.body_bytes:
            return self._too_large()
        return None

    def _too_large(self) -> tuple[int, str, dict[str, str]]:
        most = self._options.limits.body_bytes
        return 413, f"the request is larger than {most:,} bytes", {"connection": "close"}


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


async def _answer(send: Send, status: int, message: str, headers: dict[str, str]) -> None:
    body = json.dumps(error_body(status, message)).encode()
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    raw += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
