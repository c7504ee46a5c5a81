"""A new generation of a store in PostgreSQL: a table is filled, indexed and switched to; the old one goes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import psycopg
from pgvector import HalfVector, Vector
from psycopg import sql

from leanmatch.batch.options import one_of
from leanmatch.stores.pgvector import (
    EXACT_ROWS,
    REGISTRY,
    Connection,
    read_registry,
    row_of,
    table_of,
)
from leanmatch.stores.pgvector_filter import TYPES, column_names
from leanmatch.stores.pgvector_graph import build_graph
from leanmatch.stores.protocol import StoreError, StoreInfo, reference_digest
from leanmatch.stores.source import Progress, Source

BATCH_BYTES = 4 << 20
"""Most bytes of vectors in one transaction."""
MOST_DIMENSIONS = {"vector": 2_000, "halfvec": 4_000}
"""The longest vectors that pgvector indexes."""


def push_to_pgvector(
    source: Source, url: str, *, precision: str = "float32", progress: Progress | None = None
) -> StoreInfo:
    """See :func:`leanmatch.stores.push_items`."""
    one_of("precision", precision, ("float32", "float16"))
    connection = Connection(url)
    try:
        return _Push(source, connection, precision, progress).run()
    except psycopg.Error as error:
        raise StoreError(
            f"PostgreSQL says: {error}",
            remedy="see the server's log, then push again: rows that are there stay there",
        ) from error
    finally:
        connection.close()


class _Push:
    def __init__(
        self, source: Source, connection: Connection, precision: str, progress: Progress | None
    ) -> None:
        self._source, self._connection, self._progress = source, connection, progress
        self._type = "vector" if precision == "float32" else "halfvec"
        self._kind = Vector if precision == "float32" else HalfVector
        self._name = connection.name
        self._key = f"{source.key} {self._type}"

    def run(self) -> StoreInfo:
        session = self._connection.session()
        session.execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} "
                "(name text PRIMARY KEY, info jsonb, pending jsonb, reference text)"
            ).format(sql.Identifier(REGISTRY))
        )
        lock = session.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [self._name])
        if not lock.fetchone()[0]:
            raise StoreError(f"another push to {self._name!r} is under way", remedy="wait until it has ended")
        current, pending = read_registry(session, self._name)
        if current is not None and current.source == self._key and pending is None:
            current = self._refer(session, current)
            self._clean(session, current.generation)
            return current
        generation = 1 if current is None else current.generation + 1
        info = self._source.info(generation, self._key)
        if pending is None or (pending["key"], pending["generation"]) != (self._key, generation):
            self._begin(session, info)
            pending = {"key": self._key, "generation": generation, "rows": 0}
        self._fill(session, info, int(pending["rows"]))
        info = self._index(session, info)
        with session.transaction():
            session.execute(
                sql.SQL("UPDATE {} SET info = %s, pending = NULL, reference = %s WHERE name = %s").format(
                    sql.Identifier(REGISTRY)
                ),
                [json.dumps(info.to_json()), self._reference, self._name],
            )
        self._clean(session, generation)
        return info

    @property
    def _reference(self) -> str | None:
        return None if self._source.reference is None else self._source.reference.decode()

    def _refer(self, session: Any, current: StoreInfo) -> StoreInfo:
        """Replace the stored reference with the source's; the items stay."""
        digest = reference_digest(self._source.reference)
        if digest != current.reference:
            session.execute(
                sql.SQL(
                    "UPDATE {} SET info = jsonb_set(info, '{{reference}}', to_jsonb(%s::text)), "
                    "reference = %s WHERE name = %s"
                ).format(sql.Identifier(REGISTRY)),
                [digest, self._reference, self._name],
            )
        return replace(current, reference=digest)

    def _begin(self, session: Any, info: StoreInfo) -> None:
        names = column_names(info)
        columns = [
            sql.SQL(", {} ").format(sql.Identifier(names[name])) + sql.SQL(TYPES[kind])
            for name, kind in info.columns.items()
        ]
        table = table_of(self._name, info.generation)
        with session.transaction():
            session.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
            session.execute(
                sql.SQL(
                    'CREATE TABLE {} (id text COLLATE "C" PRIMARY KEY, body text NOT NULL, '
                    "vector {}({}) NOT NULL{})"
                ).format(
                    table,
                    sql.SQL(self._type),
                    sql.Literal(info.model.dimension),
                    sql.Composed(columns),
                )
            )
            self._note(session, info, 0)

    def _note(self, session: Any, info: StoreInfo, rows: int) -> None:
        pending = json.dumps({"key": self._key, "generation": info.generation, "rows": rows})
        session.execute(
            sql.SQL(
                "INSERT INTO {} (name, pending) VALUES (%s, %s) "
                "ON CONFLICT (name) DO UPDATE SET pending = EXCLUDED.pending"
            ).format(sql.Identifier(REGISTRY)),
            [self._name, pending],
        )

    def _fill(self, session: Any, info: StoreInfo, done: int) -> None:
        """Copy the rows from number ``done`` on; each transaction records its progress."""
        names = ["id", "body", "vector", *column_names(info).values()]
        types = ["text", "text", self._type]
        types += [TYPES[kind].split()[0] for kind in info.columns.values()]
        types = ["int8" if kind == "bigint" else "bool" if kind == "boolean" else kind for kind in types]
        copy = sql.SQL("COPY {} ({}) FROM STDIN WITH (FORMAT BINARY)").format(
            table_of(self._name, info.generation), sql.SQL(", ").join(map(sql.Identifier, names))
        )
        batch = max(1, BATCH_BYTES // (4 * info.model.dimension))
        for first, items, vectors in self._source.batches(batch, done):
            after = first + len(items)
            with session.transaction():
                with session.cursor() as cursor, cursor.copy(copy) as rows:
                    rows.set_types(types)
                    for row, (item, vector) in enumerate(zip(items, vectors, strict=True), start=first):
                        rows.write_row(row_of(item, self._kind(vector), info, row))
                self._note(session, info, after)
            if self._progress is not None:
                self._progress(after, info.rows)

    def _index(self, session: Any, info: StoreInfo) -> StoreInfo:
        """Build the indexes; what the store says, with how many candidates a search of the graph needs."""
        if info.rows <= EXACT_ROWS or info.model.dimension > MOST_DIMENSIONS[self._type]:
            return info
        table = table_of(self._name, info.generation)
        for column in column_names(info).values():
            session.execute(
                sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} ({})").format(
                    sql.Identifier(f"{self._name}_g{info.generation}_{column}"),
                    table,
                    sql.Identifier(column),
                )
            )
        # a vacuum lets rows that pass a filter be counted in the index alone
        session.execute(sql.SQL("VACUUM (ANALYZE) {}").format(table))
        candidates, recall = build_graph(session, self._source, info, self._name)
        return replace(info, candidates=candidates, recall=recall)

    def _clean(self, session: Any, generation: int) -> None:
        """Drop the tables of other generations."""
        tables = session.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname ~ %s AND pg_table_is_visible(oid)",
            [f"^{self._name}_g[0-9]+$"],
        ).fetchall()
        for (table,) in tables:
            if table != f"{self._name}_g{generation}":
                session.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(table)))
