"""A store by its URL, or a catalogue by its folder."""

from __future__ import annotations

from pathlib import Path

from leanmatch.errors import UsageError
from leanmatch.stores.local import LocalStore
from leanmatch.stores.protocol import Store

SCHEMES = ("postgresql", "postgres", "qdrant", "qdrants")


def is_store_url(place: str) -> bool:
    """Whether this names a store outside this machine's files."""
    return place.partition("://")[0] in SCHEMES and "://" in place


def open_store(place: str | Path) -> Store:
    """Open a store to search it.

    Args:
        place: ``postgresql://...#NAME``, ``qdrant://HOST:PORT/NAME``, or a catalogue's folder.

    Raises:
        UsageError: a URL of another kind, or a store in which nothing was pushed.
        StoreError: it cannot be reached.
        FormatError: no catalogue.
        MissingExtraError: the client is not installed.
    """
    text = str(place)
    if is_store_url(text):
        if text.startswith("postgres"):
            from leanmatch.stores.pgvector import PgVectorStore

            return PgVectorStore(text)
        from leanmatch.stores.qdrant import QdrantStore

        return QdrantStore.open(text)
    if "://" in text:
        raise UsageError(f"the URL {text} names no store", remedy="begin it with postgresql:// or qdrant://")
    return LocalStore(place)
