"""Connections that cannot hold a server up: times for everything that a client may leave undone.

uvicorn closes connections that are idle between requests. It waits for ever for headers that do not come to
their end, for bodies (:class:`leanmatch.serve.api.middleware.Gate` bounds those) and for clients that do not
read their answers. :class:`BoundedProtocol` adds these bounds: a sweep over all connections four times a
second, and nothing per request but the time it began. Where there are too many connections, the one that has
waited longest for its client is closed. A connection whose request was answered 429 is not read again before
the time that its Retry-After names.
"""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakKeyDictionary

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from leanmatch.serve.api.middleware import REFUSED, RETRY_SECONDS
from leanmatch.serve.api.problems import plain_response
from leanmatch.serve.options import Limits

SWEEP_SECONDS = 0.25
STOP_SECONDS = 2.0
"""How long a stopping server waits for clients: for the rest of a body, or to read an answer."""

HEADERS, BODY, ANSWER, IDLE = "headers", "body", "answer", "idle"


class Watch:
    """All connections of one server."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._all: dict[BoundedProtocol, None] = {}
        self.at_client: dict[BoundedProtocol, None] = {}  # whose turn it is to send; longest first
        self._planned = False

    def add(self, connection: BoundedProtocol, most: int) -> None:
        """Take note of a new connection; close another where there are too many."""
        self._all[connection] = None
        self.at_client[connection] = None
        if len(self._all) > most:
            next(iter(self.at_client)).give_up()
        if not self._planned:
            self._planned = True
            self._loop.call_later(SWEEP_SECONDS, self._sweep)

    def remove(self, connection: BoundedProtocol) -> None:
        """Forget a connection."""
        self._all.pop(connection, None)
        self.at_client.pop(connection, None)

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in list(self._all):
            connection.check(now)
        self._planned = bool(self._all)
        if self._planned:
            self._loop.call_later(SWEEP_SECONDS, self._sweep)


_WATCHES: WeakKeyDictionary[ServerState, Watch] = WeakKeyDictionary()


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Its limits are ``limits`` of the application's lifespan state."""

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for headers."""
        super().connection_made(transport)
        self._limits: Limits = self.app_state.get("limits") or Limits()
        self._phase, self._since = HEADERS, self.loop.time()
        self._header_bytes = 0
        self._unread_since: float | None = None  # the client reads its answer too slowly
        self._closing_since: float | None = None
        self._stopping_since: float | None = None
        watch = _WATCHES.get(self.server_state)
        if watch is None:
            watch = _WATCHES[self.server_state] = Watch(self.loop)
        self._watch = watch
        watch.add(self, self._limits.connections)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._watch.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to headers, and refuse too much of it."""
        if self._phase == IDLE:
            self._enter(HEADERS)
            self._header_bytes = 0
        if self._phase == HEADERS:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._phase == HEADERS and self._header_bytes > self._limits.header_bytes:
            self._refuse(431, f"the headers are larger than {self._limits.header_bytes:,} bytes")

    def on_message_begin(self) -> None:
        """A request's first byte."""
        super().on_message_begin()
        if self._phase != HEADERS:
            self._enter(HEADERS)

    def on_headers_complete(self) -> None:
        """Now its body is waited for."""
        self._enter(BODY)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Now it is our turn."""
        self._phase, self._header_bytes = ANSWER, 0
        self._watch.at_client.pop(self, None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request; or for the rest of a body that was refused before it was read."""
        refused = self.scope["state"].get(REFUSED)
        super().on_response_complete()
        if self._phase == ANSWER and not self.pipeline:
            self._enter(IDLE)
            if refused and not self.transport.is_closing():
                # it was told when to come again; to refuse it over and over would cost more than answering
                self.flow.pause_reading()
                self.loop.call_later(RETRY_SECONDS, self._read_again)

    def _read_again(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._unread_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """It has read most of it."""
        self._unread_since = None
        super().resume_writing()

    def shutdown(self) -> None:
        """The server stops: finish what has come in, wait for nothing that has not."""
        self._stopping_since = self.loop.time()
        super().shutdown()

    def check(self, now: float) -> None:
        """End the connection if its client has left us waiting for too long."""
        limits = self._limits
        if self.transport.is_closing():
            self._closing_since = self._closing_since or now
        since_closing = 0.0 if self._closing_since is None else now - self._closing_since
        since_stopping = 0.0 if self._stopping_since is None else now - self._stopping_since
        unread = 0.0 if self._unread_since is None else now - self._unread_since
        if (
            unread > limits.write_seconds
            or max(since_closing, min(unread, since_stopping)) > STOP_SECONDS * 5
        ) or (since_stopping > STOP_SECONDS and self._phase in {HEADERS, BODY}):
            self.transport.abort()
        elif self._phase == HEADERS and now - self._since > limits.header_seconds:
            self._refuse(408, f"the headers did not come within {limits.header_seconds:g} seconds")
        elif self._phase == BODY and now - self._since > limits.body_seconds + STOP_SECONDS:
            if self.pipeline:  # it was us who did not read it: an earlier request is not answered yet
                self._since = now
            else:  # the application, which has a time for it, did not ask for it
                self.transport.abort()

    def give_up(self) -> None:
        """Close it, for a newer one."""
        self._watch.remove(self)
        self.transport.abort()

    def _enter(self, phase: str) -> None:
        self._phase, self._since = phase, self.loop.time()
        self._watch.at_client.pop(self, None)  # to the end of the line
        self._watch.at_client[self] = None

    def _refuse(self, status: int, message: str) -> None:
        if self.transport.is_closing():
            return
        if self._header_bytes and (self.cycle is None or self.cycle.response_complete):
            self.transport.write(plain_response(status, message))
        self.transport.close()
