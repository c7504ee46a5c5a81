"""The HNSW graph of a table in PostgreSQL: how it is built, and how wide searches of it must look.

How many candidates a search needs depends on the vectors more than on their number, so a push measures it on
the graph that it has built: recall@10 of some of the items against a scan of all vectors. If the most
candidates that pgvector allows are too few, the next larger graph is built.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pgvector import HalfVector
from psycopg import sql

from leanmatch.stores.pgvector import MAX_CANDIDATES, scan_settings, table_of, vector_kind
from leanmatch.stores.protocol import StoreInfo
from leanmatch.stores.source import Source
from leanmatch.types import Vectors

GRAPHS = ((16, 64), (32, 200))
"""Links of a vector (``m``) and candidates while it is linked (``ef_construction``), cheapest first."""
CANDIDATES = (50, 100, 200, 400, 700, MAX_CANDIDATES)
RECALL_AT = 10
AIM = 0.985
QUERIES = 200
_TIE = 1e-5


def build_graph(session: Any, source: Source, info: StoreInfo, name: str) -> tuple[int, float]:
    """Build the index, and measure how many candidates a search needs.

    Args:
        session: a connection outside of a transaction.
        source: the items of the table, in float32.
        info: what the store is going to hold.
        name: of the store.

    Returns:
        The candidates and the recall@10 that they reached.
    """
    ids, queries, least = _queries(session, source, info, name)
    standing = [graph for graph in GRAPHS if _exists(session, index_name(name, info, graph[0]))]
    first = GRAPHS.index(standing[-1]) if standing else 0
    candidates, recall = 0, 0.0
    for number, (links, width) in enumerate(GRAPHS[first:], start=first):
        with session.transaction():
            _create(session, info, name, links, width)
            for smaller, _ in GRAPHS[:number]:
                old = sql.Identifier(index_name(name, info, smaller))
                session.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(old))
        candidates, recall = _tuned(session, info, name, ids, queries, least)
        if recall >= AIM:
            break
    return candidates, recall


def index_name(name: str, info: StoreInfo, links: int) -> str:
    """The index of a generation with so many links."""
    return f"{name}_g{info.generation}_hnsw{links}"


def _exists(session: Any, index: str) -> bool:
    return session.execute("SELECT to_regclass(%s)", [index]).fetchone()[0] is not None


def _create(session: Any, info: StoreInfo, name: str, links: int, width: int) -> None:
    kind = "halfvec" if vector_kind(info) is HalfVector else "vector"
    session.execute(
        sql.SQL(
            "CREATE INDEX IF NOT EXISTS {} ON {} USING hnsw (vector {}) WITH (m = {}, ef_construction = {})"
        ).format(
            sql.Identifier(index_name(name, info, links)),
            table_of(name, info.generation),
            sql.SQL(f"{kind}_ip_ops"),
            sql.Literal(links),
            sql.Literal(width),
        )
    )


def _queries(
    session: Any, source: Source, info: StoreInfo, name: str
) -> tuple[list[str], Vectors, NDArray[np.float32]]:
    """Some items, their vectors, and the score of each one's :data:`RECALL_AT`-th nearest other item."""
    percent = min(100.0, 150.0 * QUERIES / info.rows)
    rows = session.execute(
        sql.SQL("SELECT id, vector FROM {} TABLESAMPLE BERNOULLI (%s) REPEATABLE (0) LIMIT {}").format(
            table_of(name, info.generation), sql.Literal(QUERIES)
        ),
        [percent],
    ).fetchall()
    queries = np.asarray([row[1].to_list() for row in rows], np.float32).reshape(len(rows), -1)
    stored = np.float16 if vector_kind(info) is HalfVector else np.float32
    width = RECALL_AT + 1  # an item is its own nearest
    best = np.empty((len(rows), 0), np.float32)
    for _, vectors in source.blocks():
        scores = queries @ vectors.astype(stored).astype(np.float32).T
        best = np.concatenate([best, scores], axis=1)
        if best.shape[1] > width:
            best = np.partition(best, best.shape[1] - width, axis=1)[:, -width:]
    return [row[0] for row in rows], queries, best.min(axis=1)


def _tuned(
    session: Any, info: StoreInfo, name: str, ids: list[str], queries: Vectors, least: NDArray[np.float32]
) -> tuple[int, float]:
    """The fewest of :data:`CANDIDATES` that reach :data:`AIM`, or the most; and their recall.

    Hits are compared by score, so any of several equal items counts.
    """
    kind = vector_kind(info)
    query = sql.SQL("SELECT id, -(vector <#> %s) FROM {} ORDER BY vector <#> %s LIMIT {}").format(
        table_of(name, info.generation), sql.Literal(RECALL_AT + 1)
    )
    candidates, recall = 0, 0.0
    for candidates in CANDIDATES:
        found = 0
        with session.transaction():
            session.execute(scan_settings(candidates, info.rows))
            for own, vector, enough in zip(ids, queries, least, strict=True):
                rows = session.execute(query, [kind(vector), kind(vector)]).fetchall()
                others = [score for other, score in rows if other != own][:RECALL_AT]
                found += sum(score >= enough - _TIE for score in others)
        recall = found / (RECALL_AT * len(ids))
        if recall >= AIM:
            break
    return candidates, recall
