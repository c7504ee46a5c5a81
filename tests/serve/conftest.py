"""A server over a small catalogue, without a socket."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

for name in ("faiss", "fastapi", "httpx", "prometheus_client"):
    pytest.importorskip(name, reason=f"{name} is not installed (extra serve)")
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "index")]
from catalogue_models import WordEncoder, items_of_shop  # noqa: E402
from postgres_server import pg_url, postgres  # noqa: E402, F401 - fixtures

from leanmatch.index import create_catalogue  # noqa: E402
from leanmatch.serve import ServeOptions, create_app  # noqa: E402

WRITE_KEY = "write-key-1"


@pytest.fixture
def encoder():
    return WordEncoder(dimension=24)


@pytest.fixture
def folder(tmp_path, encoder):
    create_catalogue(tmp_path / "c", items_of_shop(40), encoder)
    encoder.encoded.clear()
    return tmp_path / "c"


@pytest.fixture
def open_client(folder, encoder):
    """A function from options to a client of a server that is ready."""
    from fastapi.testclient import TestClient

    opened = []

    def make(encoder_=None, wait=True, **options):
        options = {"catalogue": str(folder), "write_keys": (WRITE_KEY,), "poll_seconds": 0.05, **options}
        client = TestClient(
            create_app(ServeOptions(**options), encoder=encoder_ or encoder), raise_server_exceptions=False
        )
        client.__enter__()
        opened.append(client)
        deadline = time.monotonic() + 20
        while wait and client.get("/health").status_code != 200:
            assert time.monotonic() < deadline, client.get("/health").json()
            time.sleep(0.01)
        return client

    yield make
    for client in opened:
        client.__exit__(None, None, None)


@pytest.fixture
def client(open_client):
    return open_client()


@pytest.fixture
def writing():
    return {"Authorization": f"Bearer {WRITE_KEY}"}
