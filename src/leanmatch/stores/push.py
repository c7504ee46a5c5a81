"""From a catalogue or from encoded files to a store: all items as a new generation."""

from __future__ import annotations

from leanmatch.errors import UsageError
from leanmatch.stores.protocol import StoreInfo
from leanmatch.stores.source import Progress, Source


def push_items(
    source: Source,
    url: str,
    *,
    precision: str = "float32",
    progress: Progress | None = None,
) -> StoreInfo:
    """Put all items of a source into a store, in place of what it holds.

    Readers see the old items until the last moment, then the new ones. A push that is killed is continued by
    the same call. Old items are removed last. Items that have not changed since the last push are not sent
    again; a reference that has changed is.

    Args:
        source: see :func:`source_of`.
        url: ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE#NAME`` or ``qdrant://HOST:PORT/NAME``.
        precision: number format of the store's vectors: ``float32``, ``float16`` (pgvector) or ``int8``
            (Qdrant, beside the exact vectors).
        progress: called after each block.

    Raises:
        UsageError: a URL or a precision that the store does not know.
        DataError: a value that the store cannot hold.
        StoreError: the store cannot be reached, or another push is under way.
        MissingExtraError: its client is not installed.
    """
    scheme = url.partition(":")[0]
    if scheme in {"postgresql", "postgres"}:
        from leanmatch.stores.pgvector_push import push_to_pgvector

        return push_to_pgvector(source, url, precision=precision, progress=progress)
    if scheme in {"qdrant", "qdrants"}:
        from leanmatch.stores.qdrant import push_to_qdrant

        return push_to_qdrant(source, url, precision=precision, progress=progress)
    raise UsageError(f"the URL {url} names no store", remedy="begin it with postgresql:// or qdrant://")
