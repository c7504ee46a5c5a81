"""The HTTP server: recommendations, embeddings, items, metrics, a web page; and its client. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from leanmatch.lazy import find_name

if TYPE_CHECKING:
    from leanmatch.serve.api.app import create_app as create_app
    from leanmatch.serve.client import Client as Client
    from leanmatch.serve.options import Limits as Limits
    from leanmatch.serve.options import ServeOptions as ServeOptions
    from leanmatch.serve.running import run_server as run_server

_HOMES = {
    "Client": "client",
    "Limits": "options",
    "ServeOptions": "options",
    "create_app": "leanmatch.serve.api.app",
    "run_server": "running",
}
__all__ = ["Client", "Limits", "ServeOptions", "create_app", "run_server"]


def __getattr__(name: str) -> Any:
    return find_name(__name__, _HOMES, name)
