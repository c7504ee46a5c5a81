"""Running the server: one process or several, until it is told to stop."""

from __future__ import annotations

import inspect
import ipaddress
import logging
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from leanmatch.errors import LeanmatchError, MissingExtraError, UsageError
from leanmatch.index import read_manifest
from leanmatch.serve.options import LOOPBACK, ServeOptions
from leanmatch.stores.opening import is_store_url, without_password

VARIABLE = "LEANMATCH_SERVE_OPTIONS"
"""How the options reach worker processes."""

GRACE_SECONDS = 30

OTHER_FILES = 256
"""Open files that are no connections: the catalogue's, the model's, logs."""


def run_server(options: ServeOptions, say: Callable[[str], None] = lambda _: None) -> None:
    """Serve until SIGINT or SIGTERM; what was accepted is finished first.

    Raises:
        FormatError: no catalogue, or a damaged one.
        StoreError: the store answers with an error. One that does not answer is waited for.
        UsageError: the address cannot be used.
        MissingExtraError: uvicorn is not installed.
        LeanmatchError: the model or the catalogue cannot be loaded.
    """
    try:
        from leanmatch.serve.api.connections import BoundedProtocol
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "uvicorn", "serve", "the server") from error
    if not is_store_url(options.catalogue):
        read_manifest(options.catalogue)
    options = _with_open_files(options)
    listener = _listen(options.host, options.port)
    port = listener.getsockname()[1]
    say(_announcement(options, port))
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    common: dict[str, Any] = {
        "http": BoundedProtocol,
        "ws": "none",
        "log_level": "warning",
        "access_log": False,
        "proxy_headers": False,  # no answer depends on who asks
        "server_header": False,
        "timeout_graceful_shutdown": GRACE_SECONDS,
        "backlog": 2048,
    }
    try:
        if options.workers == 1:
            _run_here(options, listener, common)
            return
        _run_workers(options, listener, common)
    except KeyboardInterrupt:
        pass  # uvicorn has stopped gracefully and raises the signal again
    finally:
        listener.close()


def _run_here(options: ServeOptions, listener: socket.socket, common: dict[str, Any]) -> None:
    """Serve in this process; end with the error if loading fails."""
    import uvicorn

    from leanmatch.serve.api.app import create_app

    app = create_app(options)

    class Server(uvicorn.Server):
        async def on_tick(self, counter: int) -> bool:
            return await super().on_tick(counter) or app.service.failed is not None

    Server(uvicorn.Config(app, **common)).run(sockets=[listener])
    if app.service.failed is not None:
        raise app.service.failed


def worker_app() -> Any:
    """What a worker process serves."""
    from leanmatch.serve.api.app import create_app

    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return create_app(ServeOptions.from_text(os.environ[VARIABLE]))


def _run_workers(options: ServeOptions, listener: socket.socket, common: dict[str, Any]) -> None:
    import uvicorn
    from uvicorn.config import STARTUP_FAILURE
    from uvicorn.supervisors import Multiprocess

    from leanmatch.serve.monitoring.metrics import MULTIPROCESS

    class Supervisor(Multiprocess):  # type: ignore[misc, unused-ignore]
        @property
        def failed(self) -> bool:
            return any(process.process.exitcode == STARTUP_FAILURE for process in self.processes)

        def keep_subprocess_alive(self) -> None:
            """Replace workers that died; but end where one could not load: the next one could not, either."""
            if self.failed:
                self.should_exit.set()
            else:
                super().keep_subprocess_alive()

    folder = tempfile.mkdtemp(prefix="leanmatch-metrics-")
    os.environ[VARIABLE], os.environ[MULTIPROCESS] = options.to_text(), folder
    try:
        config = uvicorn.Config(
            "leanmatch.serve.running:worker_app", factory=True, workers=options.workers, **common
        )
        supervisor: Any = Supervisor
        older = "target" in inspect.signature(supervisor).parameters
        more = {"target": uvicorn.Server(config).run} if older else {}
        running = supervisor(config, sockets=[listener], **more)
        running.run()
        if running.failed:
            raise LeanmatchError(
                "a worker could not load the catalogue or its model; its message stands above",
                remedy="mend what it names, then start the server again",
            )
    finally:
        for name in (VARIABLE, MULTIPROCESS):
            os.environ.pop(name, None)
        shutil.rmtree(folder, ignore_errors=True)


def _with_open_files(options: ServeOptions) -> ServeOptions:
    """Let the process open a file for every connection; fewer connections where the system allows no more."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows has no such limit
        return options
    wanted = options.limits.connections + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return options
    allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    connections = min(options.limits.connections, max(allowed - OTHER_FILES, allowed // 2))
    return replace(options, limits=replace(options.limits, connections=connections))


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host}:{port} ({error.strerror or error})",
            remedy="choose another --port or --host",
        ) from error
    listener.set_inheritable(True)
    return listener


def is_loopback(host: str) -> bool:
    """Can only this machine reach it?"""
    if host in LOOPBACK:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _announcement(options: ServeOptions, port: int) -> str:
    host = f"[{options.host}]" if ":" in options.host else options.host
    lines = [f"leanmatch serves {without_password(options.catalogue)} at http://{host}:{port}/ (API: /docs)"]
    if is_loopback(options.host):
        lines.append("only this machine can reach it; --host 0.0.0.0 opens it to the network")
    elif not options.api_keys:
        lines.append("the network can reach it and no key is needed; --api-key asks for one")
    if not options.write_keys:
        lines.append("items cannot be changed over HTTP; --write-key allows it")
    return "\n".join(lines)
