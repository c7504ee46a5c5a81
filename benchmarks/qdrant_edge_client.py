"""Qdrant's engine in this process (``qdrant-edge-py``) behind what a store calls of ``qdrant_client``.

It is the engine of the server: segments, payload indexes, HNSW, quantization. What is not the server's: the
protocol, collections (each is a shard in a folder here), replication, and optimizers in the background
(:meth:`EdgeClient.optimize` runs them).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

INDEXING_THRESHOLD_KB = 10_000
"""Vectors of a segment that are more than this are indexed by HNSW; the server's own default."""
_SCHEMAS = {
    "keyword": edge.PayloadSchemaType.Keyword,
    "integer": edge.PayloadSchemaType.Integer,
    "float": edge.PayloadSchemaType.Float,
    "bool": edge.PayloadSchemaType.Bool,
}


class EdgeClient:
    """Collections as shards below a folder.

    Args:
        folder: where.
        indexing_threshold_kb: from how many kilobytes of vectors on a segment is indexed.
    """

    def __init__(self, folder: Path, indexing_threshold_kb: int = INDEXING_THRESHOLD_KB) -> None:
        self._folder, self._threshold = folder, indexing_threshold_kb
        there = folder.iterdir() if folder.is_dir() else ()
        self._shards: dict[str, Any] = {path.name: edge.EdgeShard.load(str(path)) for path in there}

    def collection_exists(self, name: str) -> bool:
        return name in self._shards

    def get_collections(self) -> Any:
        return SimpleNamespace(collections=[SimpleNamespace(name=name) for name in self._shards])

    def create_collection(self, name: str, vectors_config: Any, quantization_config: Any = None) -> None:
        assert vectors_config.distance == models.Distance.DOT
        int8 = edge.ScalarQuantizationConfig(type=edge.ScalarType.Int8, memory=edge.Memory.Pinned)
        config = edge.EdgeConfig(
            vectors=edge.EdgeVectorParams(size=vectors_config.size, distance=edge.Distance.Dot),
            quantization_config=None if quantization_config is None else int8,
            optimizers=edge.EdgeOptimizersConfig(
                default_segment_number=2, indexing_threshold=self._threshold
            ),
        )
        path = self._folder / name
        path.mkdir(parents=True)
        self._shards[name] = edge.EdgeShard.create(str(path), config)

    def delete_collection(self, name: str) -> None:
        self._shards.pop(name).close()
        shutil.rmtree(self._folder / name)

    def create_payload_index(self, name: str, key: str, schema: str) -> None:
        self._shards[name].update(edge.UpdateOperation.create_field_index(key, _SCHEMAS[schema]))

    def upsert(self, name: str, points: Sequence[Any], wait: bool = True) -> None:
        given = [edge.Point(point.id, point.vector, point.payload) for point in points]
        self._shards[name].update(edge.UpdateOperation.upsert_points(given))

    def delete(self, name: str, points: Sequence[str], wait: bool = True) -> None:
        self._shards[name].update(edge.UpdateOperation.delete_points(list(points)))

    def retrieve(self, name: str, ids: Sequence[str], with_payload: bool = True) -> list[Any]:
        return list(self._shards[name].retrieve(list(ids), with_payload, False))

    def scroll(self, name: str, limit: int, with_vectors: bool = False) -> Any:
        request = edge.ScrollRequest(limit=limit, with_payload=True, with_vector=with_vectors)
        return self._shards[name].scroll(request)

    def count(self, name: str, count_filter: Any = None, exact: bool = True) -> Any:
        request = edge.CountRequest(
            exact=exact, filter=None if count_filter is None else condition(count_filter)
        )
        return SimpleNamespace(count=self._shards[name].count(request))

    def query_batch_points(self, name: str, requests: Sequence[Any]) -> list[Any]:
        given = [
            edge.QueryRequest(
                limit=request.limit,
                query=edge.Query.Nearest(request.query),
                filter=None if request.filter is None else condition(request.filter),
                params=edge.SearchParams(
                    exact=request.params.exact,
                    hnsw_ef=request.params.hnsw_ef,
                    quantization=edge.QuantizationSearchParams(
                        rescore=request.params.quantization.rescore,
                        oversampling=request.params.quantization.oversampling,
                    ),
                ),
                with_payload=True,
            )
            for request in requests
        ]
        found = self._shards[name].query_batch(edge.QueryBatchRequest(given))
        return [SimpleNamespace(points=points) for points in found]

    def optimize(self) -> None:
        """Merge segments and build the indexes, as the server's optimizers do in the background."""
        for shard in self._shards.values():
            shard.optimize()

    def indexed(self, name: str) -> int:
        """Vectors of a collection that are in an HNSW graph."""
        return int(self._shards[name].info().indexed_vectors_count)

    def close(self) -> None:
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()


def condition(given: Any) -> Any:
    """A condition of ``qdrant_client`` as the engine's own class."""
    if isinstance(given, models.Filter):
        parts = {
            name: [condition(part) for part in getattr(given, name)]
            for name in ("must", "should", "must_not")
            if getattr(given, name) is not None
        }
        return edge.Filter(**parts)
    if isinstance(given, models.IsEmptyCondition):
        return edge.IsEmptyCondition(given.is_empty.key)
    assert isinstance(given, models.FieldCondition)
    if given.match is not None:
        if isinstance(given.match.value, bool):
            raise NotImplementedError("the engine's Python binding takes true and false for 1 and 0")
        return edge.FieldCondition(given.key, match=edge.MatchValue(given.match.value))
    limits = {name: getattr(given.range, name) for name in ("gte", "gt", "lte", "lt")}
    return edge.FieldCondition(given.key, range=edge.RangeFloat(**limits))
