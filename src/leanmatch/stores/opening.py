"""A store by its URL, or a catalogue by its folder."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from leanmatch.errors import UsageError
from leanmatch.stores.local import LocalStore
from leanmatch.stores.protocol import Store
from leanmatch.stores.retrying import Patience

SCHEMES = ("postgresql", "postgres", "qdrant", "qdrants")


def is_store_url(place: str) -> bool:
    """Whether this names a store outside this machine's files."""
    return place.partition("://")[0] in SCHEMES and "://" in place


def without_password(place: str) -> str:
    """A store's URL as it may be shown, or anything else as it is.

    >>> without_password("postgresql://ann:secret@host/shop?sslmode=require#items")
    'postgresql://ann:***@host/shop#items'
    """
    if not is_store_url(place):
        return place
    parts = urlsplit(place)
    login, at, host = parts.netloc.rpartition("@")
    name, colon, _ = login.partition(":")
    return urlunsplit((parts.scheme, f"{name}{colon and ':***'}{at}{host}", parts.path, "", parts.fragment))


def open_store(place: str | Path, patience: Patience | None = None) -> Store:
    """Open a store to search it.

    Args:
        place: ``postgresql://...#NAME``, ``qdrant://HOST:PORT/NAME``, or a catalogue's folder.
        patience: how often a server is asked that does not answer.

    Raises:
        UsageError: a URL of another kind, or a store in which nothing was pushed.
        UnreachableError: it cannot be reached.
        FormatError: no catalogue.
        MissingExtraError: the client is not installed.
    """
    text = str(place)
    if is_store_url(text):
        if text.startswith("postgres"):
            from leanmatch.stores.pgvector import PgVectorStore

            return PgVectorStore(text, patience)
        from leanmatch.stores.qdrant import QdrantStore

        return QdrantStore.open(text, patience)
    if "://" in text:
        raise UsageError(f"the URL {text} names no store", remedy="begin it with postgresql:// or qdrant://")
    return LocalStore(place)
