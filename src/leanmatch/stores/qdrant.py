"""Items in Qdrant: one collection a generation, and one point that says which is read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import urlsplit

import numpy as np

from leanmatch.batch.options import one_of
from leanmatch.errors import MissingExtraError, UsageError
from leanmatch.index.changes import Item
from leanmatch.index.filters.expression import Filter
from leanmatch.index.storage.columns import converted
from leanmatch.index.storage.manifest import ModelIdentity
from leanmatch.stores.protocol import (
    Hit,
    StoreError,
    StoreInfo,
    UnreachableError,
    check_filter,
    check_model,
    checked_incoming,
    reference_digest,
)
from leanmatch.stores.retrying import Patience
from leanmatch.types import Vectors

try:
    from qdrant_client import QdrantClient, models
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "qdrant_client", "qdrant", "a store in Qdrant") from error

from leanmatch.stores.qdrant_filter import payload_keys, qdrant_filter
from leanmatch.stores.source import Progress, Source

REGISTRY = "leanmatch_stores"
IDS = uuid.UUID("6f0f9f7a-6d0c-5b5e-9a53-0c1f3b0f7c11")
"""Namespace of the UUIDv5 that stands for an item's id, which Qdrant does not take as it is."""
EXACT_ROWS = 20_000
EF_SEARCH = 200
OVERSAMPLING = 3.0
"""With int8, this many times ``k`` candidates are rescored with the exact vectors."""
BATCH_BYTES = 4 << 20
TOO_MANY_REQUESTS = 429
_KINDS = {"text": "keyword", "integer": "integer", "number": "float", "boolean": "bool"}

Result = TypeVar("Result")


def split_url(url: str) -> tuple[str, str]:
    """The server's address and the store's name.

    Raises:
        UsageError: no host or no name.

    >>> split_url("qdrant://localhost:6333/items")
    ('http://localhost:6333', 'items')
    """
    parts = urlsplit(url)
    name = parts.path.strip("/")
    if not parts.hostname or not name or not name.replace("_", "a").replace("-", "a").isalnum():
        raise UsageError(f"the URL {url} names no store", remedy="write qdrant://HOST:PORT/NAME")
    return f"{'https' if parts.scheme == 'qdrants' else 'http'}://{parts.hostname}:{parts.port or 6333}", name


def connect(url: str) -> tuple[Any, str]:
    """A client and the store's name. The key is that of the variable ``QDRANT_API_KEY``."""
    import os

    address, name = split_url(url)
    return QdrantClient(url=address, api_key=os.environ.get("QDRANT_API_KEY"), timeout=30), name


def point_id(name: str) -> str:
    """The UUID that stands for an item's id."""
    return str(uuid.uuid5(IDS, name))


def attempted(work: Callable[[], Result], patience: Patience | None = None) -> Result:
    """Run some work and return its result; try again a few times if the server cannot be reached.

    Raises:
        UnreachableError: it cannot be reached.
        StoreError: it answers with an error.
    """
    try:
        return (patience or Patience()).attempted(work, _is_passing, _asked_pause)
    except (ApiException, QdrantException) as error:
        if _is_passing(error):
            raise UnreachableError(
                f"Qdrant cannot be reached: {error}", remedy="check the address, the key and the server"
            ) from error
        raise StoreError(f"Qdrant says: {error}", remedy="see the server's log") from error


def _is_passing(error: Exception) -> bool:
    """Whether Qdrant did not answer, or answered that it cannot now or that it is asked too often."""
    status = getattr(error, "status_code", None) or 500
    passing = status >= 500 or status == TOO_MANY_REQUESTS
    return isinstance(error, QdrantException) or (isinstance(error, ApiException) and passing)


def _asked_pause(error: Exception) -> float:
    """The seconds that Qdrant asks to wait (``Retry-After``), 0 where it does not."""
    return float(getattr(error, "retry_after_s", 0))


class QdrantStore:
    """A store in Qdrant.

    Args:
        client: a ``qdrant_client.QdrantClient``; :meth:`open` makes one from a URL.
        name: of the store.
        patience: how often the server is asked.

    Raises:
        UsageError: nothing was pushed there.
        UnreachableError: the server cannot be reached.
    """

    def __init__(self, client: Any, name: str, patience: Patience | None = None) -> None:
        self._client, self._name = client, name
        self._patience = patience or Patience()
        self.info  # noqa: B018 - refuses a place where nothing was pushed

    @classmethod
    def open(cls, url: str, patience: Patience | None = None) -> QdrantStore:
        """Open ``qdrant://HOST:PORT/NAME``."""
        client, name = connect(url)
        try:
            return cls(client, name, patience)
        except BaseException:
            client.close()
            raise

    def _ask(self, work: Callable[[], Result]) -> Result:
        return attempted(work, self._patience)

    @property
    def info(self) -> StoreInfo:
        """What it holds now."""
        info = self._pushed()
        return replace(info, rows=self._count(info, None))

    def _pushed(self) -> StoreInfo:
        """What the last push recorded; its rows do not include later changes."""
        info, _ = read_registry(self._client, self._name, self._patience)
        if info is None:
            raise UsageError(
                f"nothing was pushed to {self._name!r} in this Qdrant",
                remedy="push a catalogue: leanmatch push CATALOGUE qdrant://...",
            )
        return info

    def __len__(self) -> int:
        return self.info.rows

    def _count(self, info: StoreInfo, condition: Any, *, exact: bool = True) -> int:
        found = self._ask(
            lambda: self._client.count(self._collection(info), count_filter=condition, exact=exact)
        )
        return int(found.count)

    def _collection(self, info: StoreInfo) -> str:
        return collection_of(self._name, info.generation)

    def search(
        self,
        queries: Vectors,
        k: int,
        filter: Filter | None = None,
        *,
        model: ModelIdentity | None = None,
    ) -> list[list[Hit]]:
        """See :class:`leanmatch.stores.Store`."""
        info = self._pushed()
        check_model(model, info)
        condition = None
        if filter is not None:
            check_filter(filter, info)
            condition = qdrant_filter(filter, info)
        # Qdrant estimates the number of all points without looking at them
        exact = self._count(info, None, exact=False) <= EXACT_ROWS or (
            condition is not None and self._count(info, condition) <= EXACT_ROWS
        )
        parameters = models.SearchParams(
            exact=exact,
            hnsw_ef=max(EF_SEARCH, 2 * k),
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING),
        )
        requests = [
            models.QueryRequest(
                query=vector.tolist(), filter=condition, params=parameters, limit=k, with_payload=True
            )
            for vector in queries
        ]
        answers = self._ask(lambda: self._client.query_batch_points(self._collection(info), requests))
        return [[_hit(point, info) for point in answer.points] for answer in answers]

    def upsert(self, items: Sequence[Item], vectors: Vectors, *, model: ModelIdentity | None = None) -> int:
        """See :class:`leanmatch.stores.Store`."""
        info = self.info
        check_model(model, info)
        incoming = checked_incoming(items, vectors, info)
        points = points_of(incoming, vectors, info, 0)
        known = len(self._there(info, [point.id for point in points]))
        self._ask(lambda: self._client.upsert(self._collection(info), points, wait=True))
        return len(points) - known

    def delete(self, ids: Iterable[str]) -> int:
        """See :class:`leanmatch.stores.Store`."""
        info = self.info
        wanted = [point_id(name) for name in dict.fromkeys(ids)]
        there = self._there(info, wanted)
        self._ask(lambda: self._client.delete(self._collection(info), wanted, wait=True))
        return len(there)

    def _there(self, info: StoreInfo, points: list[str]) -> list[Any]:
        return self._ask(lambda: self._client.retrieve(self._collection(info), points, with_payload=False))

    def sample(self, count: int) -> tuple[list[Item], Vectors]:
        """See :class:`leanmatch.stores.Store`. Points are ordered by their ids, which are hashes."""
        info = self.info
        points, _ = self._ask(
            lambda: self._client.scroll(self._collection(info), limit=count, with_vectors=True)
        )
        items = [
            Item(point.payload["id"], point.payload["body"], _metadata(point.payload, info))
            for point in points
        ]
        vectors = np.asarray([point.vector for point in points], np.float32)
        return items, vectors.reshape(len(points), info.model.dimension)

    def reference(self) -> bytes | None:
        """See :class:`leanmatch.stores.Store`."""
        info = self.info
        if not info.reference:
            return None
        point = _reference_point(self._collection(info))
        found = self._ask(lambda: self._client.retrieve(REGISTRY, [point], with_payload=True))
        return str(found[0].payload["reference"]).encode() if found else None

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def collection_of(name: str, generation: int) -> str:
    """The collection of a generation."""
    return f"{name}_g{generation}"


def points_of(items: Sequence[Item], vectors: Vectors, info: StoreInfo, first: int) -> list[Any]:
    """Items as Qdrant's points; ``first`` is the number of the first, for messages.

    Raises:
        DataError: a value that its column does not hold.
    """
    keys = payload_keys(info)
    points = []
    for row, (item, vector) in enumerate(zip(items, vectors, strict=True), start=first):
        payload: dict[str, Any] = {"id": item.id, "body": item.text}
        for name, kind in info.columns.items():
            value = converted(name, row, item.metadata.get(name), kind)
            if value is not None:
                payload[keys[name]] = value
        points.append(models.PointStruct(id=point_id(item.id), vector=vector.tolist(), payload=payload))
    return points


def _hit(point: Any, info: StoreInfo) -> Hit:
    payload = point.payload
    return Hit(payload["id"], payload["body"], float(point.score), _metadata(payload, info))


def _metadata(payload: dict[str, Any], info: StoreInfo) -> dict[str, Any]:
    return {name: payload[key] for name, key in payload_keys(info).items() if key in payload}


def read_registry(
    client: Any, name: str, patience: Patience | None = None
) -> tuple[StoreInfo | None, dict[str, Any] | None]:
    """What a store holds, and the unfinished push; each None if there is none."""
    if not attempted(lambda: client.collection_exists(REGISTRY), patience):
        return None, None
    found = attempted(lambda: client.retrieve(REGISTRY, [point_id(name)]), patience)
    if not found:
        return None, None
    info, pending = (json.loads(found[0].payload[key]) for key in ("info", "pending"))
    return None if info is None else StoreInfo.from_json(info), pending


def _reference_point(collection: str) -> str:
    """The point of the registry with the reference of a generation."""
    return point_id(f"{collection} reference")


def _write_reference(client: Any, collection: str, reference: bytes | None) -> None:
    if reference is not None:
        payload = {"reference": reference.decode()}
        point = models.PointStruct(id=_reference_point(collection), vector=[1.0], payload=payload)
        attempted(lambda: client.upsert(REGISTRY, [point], wait=True))


def _write_registry(client: Any, name: str, info: StoreInfo | None, pending: dict[str, Any] | None) -> None:
    payload = {
        "name": name,
        "info": json.dumps(None if info is None else info.to_json()),
        "pending": json.dumps(pending),
    }
    point = models.PointStruct(id=point_id(name), vector=[1.0], payload=payload)
    attempted(lambda: client.upsert(REGISTRY, [point], wait=True))


def push_to_qdrant(
    source: Source,
    url: str | None,
    *,
    precision: str = "float32",
    progress: Progress | None = None,
    client: Any = None,
    name: str = "",
) -> StoreInfo:
    """See :func:`leanmatch.stores.push_items`. Qdrant has no locks: let one push at a time run.

    Args:
        source, url, precision, progress: as there.
        client, name: an open client and the store's name, in place of a URL.
    """
    one_of("precision", precision, ("float32", "int8"))
    if url is not None:
        client, name = connect(url)
    if not attempted(lambda: client.collection_exists(REGISTRY)):
        only = models.VectorParams(size=1, distance=models.Distance.DOT)
        attempted(lambda: client.create_collection(REGISTRY, vectors_config=only))
    current, pending = read_registry(client, name)
    key = f"{source.key} {precision}"
    if current is not None and current.source == key and pending is None:
        digest = reference_digest(source.reference)
        if digest != current.reference:
            _write_reference(client, collection_of(name, current.generation), source.reference)
            current = replace(current, reference=digest)
            _write_registry(client, name, current, None)
        _clean(client, name, current.generation)
        return current
    generation = 1 if current is None else current.generation + 1
    info = source.info(generation, key)
    collection = collection_of(name, generation)
    if pending is None or (pending["key"], pending["generation"]) != (key, generation):
        _begin(client, collection, info, precision)
        pending = {"key": key, "generation": generation, "rows": 0}
        _write_registry(client, name, current, pending)
    batch = max(1, BATCH_BYTES // (16 * info.model.dimension))  # a number takes about 16 bytes in JSON
    for first, items, vectors in source.batches(batch, pending["rows"]):
        after = first + len(items)
        points = points_of(items, vectors, info, first)
        attempted(lambda points=points: client.upsert(collection, points, wait=True))  # type: ignore[misc]
        _write_registry(client, name, current, {**pending, "rows": after})
        if progress is not None:
            progress(after, info.rows)
    _write_reference(client, collection, source.reference)
    _write_registry(client, name, info, None)
    _clean(client, name, generation)
    return info


def _begin(client: Any, collection: str, info: StoreInfo, precision: str) -> None:
    if attempted(lambda: client.collection_exists(collection)):
        attempted(lambda: client.delete_collection(collection))
    int8 = models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    )
    attempted(
        lambda: client.create_collection(
            collection,
            vectors_config=models.VectorParams(size=info.model.dimension, distance=models.Distance.DOT),
            quantization_config=int8 if precision == "int8" else None,
        )
    )
    for name, key in payload_keys(info).items():
        schema = _KINDS[info.columns[name]]
        attempted(lambda key=key, schema=schema: client.create_payload_index(collection, key, schema))  # type: ignore[misc]


def _clean(client: Any, name: str, generation: int) -> None:
    """Delete the collections and references of other generations."""
    for collection in attempted(client.get_collections).collections:
        stem, _, number = collection.name.rpartition("_g")
        if stem == name and number.isdigit() and int(number) != generation:
            gone = collection.name
            attempted(lambda gone=gone: client.delete(REGISTRY, [_reference_point(gone)], wait=True))  # type: ignore[misc]
            attempted(lambda gone=gone: client.delete_collection(gone))  # type: ignore[misc]
