"""Items in PostgreSQL with pgvector: one table a generation, and one row that says which is read.

Vectors are of unit length, so the inner product is the cosine. Small tables and narrow filters are searched
exactly; others through an HNSW index with iterative scans, which go on until enough rows pass the filter. How
many candidates a search looks at was measured by the push (:mod:`leanmatch.stores.pgvector_graph`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, TypeVar
from urllib.parse import urldefrag

import numpy as np

from leanmatch.errors import DataError, MissingExtraError, UsageError
from leanmatch.index.changes import Item
from leanmatch.index.filters.expression import Filter
from leanmatch.index.storage.columns import converted
from leanmatch.index.storage.manifest import ModelIdentity
from leanmatch.stores.pgvector_filter import column_names, condition
from leanmatch.stores.protocol import (
    Hit,
    StoreError,
    StoreInfo,
    UnreachableError,
    check_filter,
    check_model,
    checked_incoming,
)
from leanmatch.stores.retrying import Patience
from leanmatch.types import Vectors

try:
    import psycopg
    from pgvector import HalfVector, Vector
    from pgvector.psycopg import register_vector
    from psycopg import sql
except ModuleNotFoundError as error:
    raise MissingExtraError(error.name or "psycopg", "pgvector", "a store in PostgreSQL") from error

DEFAULT_NAME = "leanmatch"
REGISTRY = "leanmatch_stores"
EXACT_ROWS = 20_000
"""Up to this many rows are compared one by one; more are searched through the index."""
BELIEVED_ROWS = 2 * EXACT_ROWS
"""If the planner expects more rows than this to pass a filter, they are not counted."""
CANDIDATES = 200
"""For stores whose push did not measure how many are needed."""
MAX_CANDIDATES = 1_000
"""pgvector's own limit (``hnsw.ef_search``)."""
OVERSAMPLING = 3
"""With a filter, a scan of the graph goes on until so many times ``k`` rows pass; the best ``k`` count."""
MAX_SCAN_TUPLES = 100_000
SCAN_MEMORY = 8
"""Memory of a scan that goes on, in units of ``work_mem``."""
SWITCHES = 5
"""How often a read starts again because a push has replaced its generation."""

_LOST = psycopg.OperationalError, psycopg.InterfaceError

Result = TypeVar("Result")


def split_url(url: str) -> tuple[str, str]:
    """The connection's URL, and the store's name behind ``#``.

    Raises:
        UsageError: a name that is none.

    >>> split_url("postgresql://localhost/shop#items")
    ('postgresql://localhost/shop', 'items')
    """
    address, name = urldefrag(url)
    name = name or DEFAULT_NAME
    if not name.replace("_", "a").isalnum() or not name.isascii() or len(name) > 40:
        raise UsageError(
            f"the store's name is {name[:60]!r}", remedy="use up to 40 letters, digits and _ behind the #"
        )
    return address, name


class Connection:
    """A connection that is opened again after it breaks.

    Args:
        url: ``postgresql://...#NAME``.
        patience: how often the server is asked.
    """

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        self.address, self.name = split_url(url)
        self._patience = patience or Patience()
        self._connection: Any = None

    def run(self, work: Callable[[Any], Result]) -> Result:
        """Run some work in one transaction, and return its result.

        Raises:
            UnreachableError: the server cannot be reached.
            StoreError: it answers with an error.
        """

        def once() -> Result:
            connection = self._open()
            with connection.transaction():
                return work(connection)

        def is_passing(error: Exception) -> bool:
            if not isinstance(error, _LOST):
                return False
            self.close()
            return True

        try:
            return self._patience.attempted(once, is_passing)
        except _LOST as error:
            raise UnreachableError(
                f"PostgreSQL cannot be reached: {error}",
                remedy="check the address, the password and the server; nothing was changed by the last step",
            ) from error
        except psycopg.errors.UndefinedTable:
            raise
        except psycopg.Error as error:
            raise StoreError(f"PostgreSQL says: {error}", remedy="see the server's log") from error

    def session(self) -> Any:
        """The connection itself, for work in several transactions."""
        self.run(lambda _: None)
        return self._connection

    def close(self) -> None:
        """Close it."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
        self._connection = None

    def _open(self) -> Any:
        if self._connection is None:
            seconds = max(1, round(self._patience.answer_seconds))
            connection = psycopg.connect(self.address, autocommit=True, connect_timeout=seconds)
            try:
                register_vector(connection)
            except psycopg.ProgrammingError:
                self._install(connection)
            self._connection = connection
        return self._connection

    def _install(self, connection: Any) -> None:
        try:
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            register_vector(connection)
        except psycopg.Error as error:
            connection.close()
            raise StoreError(
                f"the database has no pgvector: {error}",
                remedy="install pgvector 0.8 or later, and let an administrator run: CREATE EXTENSION vector",
            ) from error


def read_registry(connection: Any, name: str) -> tuple[StoreInfo | None, dict[str, Any] | None]:
    """What a store holds, and the unfinished push; each None if there is none."""
    found = connection.execute("SELECT to_regclass(%s)", [REGISTRY]).fetchone()[0]
    if found is None:
        return None, None
    row = connection.execute(
        sql.SQL("SELECT info, pending FROM {} WHERE name = %s").format(sql.Identifier(REGISTRY)), [name]
    ).fetchone()
    if row is None:
        return None, None
    return None if row[0] is None else StoreInfo.from_json(row[0]), row[1]


def table_of(name: str, generation: int) -> Any:
    """The table of a generation."""
    return sql.Identifier(f"{name}_g{generation}")


class PgVectorStore:
    """A store in PostgreSQL. Safe to use from several threads; they take turns.

    Args:
        url: ``postgresql://...#NAME``.
        patience: how often the server is asked.

    Raises:
        UsageError: nothing was pushed there.
        UnreachableError: the server cannot be reached.
    """

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        self._connection = Connection(url, patience)
        self.info  # noqa: B018 - refuses a place where nothing was pushed

    @property
    def info(self) -> StoreInfo:
        """What it holds now."""
        return self._connection.run(self._info)

    def _info(self, connection: Any) -> StoreInfo:
        info, _ = read_registry(connection, self._connection.name)
        if info is None:
            raise UsageError(
                f"nothing was pushed to {self._connection.name!r} in this database",
                remedy="push a catalogue: leanmatch push CATALOGUE postgresql://...",
            )
        return info

    def __len__(self) -> int:
        return int(self._read(self._count))

    def _count(self, connection: Any, info: StoreInfo) -> int:
        query = sql.SQL("SELECT count(*) FROM {}").format(self._table(info))
        return int(connection.execute(query).fetchone()[0])

    def _table(self, info: StoreInfo) -> Any:
        return table_of(self._connection.name, info.generation)

    def _read(self, work: Callable[[Any, StoreInfo], Result]) -> Result:
        """Run some work on the current generation; again if a push replaced it meanwhile."""
        for _ in range(SWITCHES):
            try:
                return self._connection.run(lambda connection: work(connection, self._info(connection)))
            except psycopg.errors.UndefinedTable as error:
                failure = error
        raise StoreError(f"PostgreSQL says: {failure}", remedy="push the items again") from failure

    def search(
        self,
        queries: Vectors,
        k: int,
        filter: Filter | None = None,
        *,
        model: ModelIdentity | None = None,
    ) -> list[list[Hit]]:
        """See :class:`leanmatch.stores.Store`."""

        def work(connection: Any, info: StoreInfo) -> list[list[Hit]]:
            check_model(model, info)
            return self._search(connection, info, queries, k, filter)

        return self._read(work)

    def _search(
        self, connection: Any, info: StoreInfo, queries: Vectors, k: int, filter: Filter | None
    ) -> list[list[Hit]]:
        where = "TRUE"
        values: list[Any] = []
        if filter is not None:
            check_filter(filter, info)
            where, values = condition(filter, info)
        names = column_names(info)
        columns = [sql.SQL(", ") + sql.Identifier(column) for column in names.values()]
        table = self._table(info)
        passing = info.rows
        if filter is not None and info.rows > EXACT_ROWS:
            passing = self._passing(connection, table, where, values)
        exact = passing <= EXACT_ROWS
        wide = k if filter is None else OVERSAMPLING * k
        if not exact:
            connection.execute(scan_settings(candidates_for(info, k, passing), passing))

        def query(exact: bool) -> Any:
            # `+ 0` keeps the index out: every row that passes is compared
            return sql.SQL(
                "SELECT id, body{columns}, -(vector <#> %s) FROM {table} WHERE {where} "
                "ORDER BY (vector <#> %s){exact} LIMIT {limit}"
            ).format(
                columns=sql.Composed(columns),
                table=table,
                where=sql.SQL(where),
                exact=sql.SQL(" + 0" if exact else ""),
                limit=sql.Literal(k if exact else wide),
            )

        kind = vector_kind(info)
        out = []
        for vector in queries:
            given = kind(vector)
            parameters = [given, *values, given]
            rows = connection.execute(query(exact), parameters).fetchall()
            if not exact and len(rows) < wide:  # the scan ended before enough rows passed
                rows = connection.execute(query(True), parameters).fetchall()
            rows.sort(key=lambda row: -row[-1])  # a relaxed scan gives them nearly in order
            out.append([_hit(row, info) for row in rows[:k]])
        return out

    def _passing(self, connection: Any, table: Any, where: str, values: list[Any]) -> int:
        """Number of rows that pass a filter; an estimate if it is above the limit for exact search.

        The planner's estimate is returned if it is far above that limit. Otherwise the rows are counted, up
        to one more than the limit, because a full count takes longer than the search.
        """
        passing = sql.SQL("SELECT 1 FROM {} WHERE {}").format(table, sql.SQL(where))
        explain = sql.SQL("EXPLAIN (FORMAT JSON) {}").format(passing)
        ((document,),) = connection.execute(explain, values).fetchall()
        expected = int(document[0]["Plan"]["Plan Rows"])
        if expected > BELIEVED_ROWS:
            return expected
        count = sql.SQL("SELECT count(*) FROM ({} LIMIT {}) AS passing").format(
            passing, sql.Literal(EXACT_ROWS + 1)
        )
        counted = int(connection.execute(count, values).fetchone()[0])
        return counted if counted <= EXACT_ROWS else max(counted, expected)

    def upsert(self, items: Sequence[Item], vectors: Vectors, *, model: ModelIdentity | None = None) -> int:
        """See :class:`leanmatch.stores.Store`."""

        def work(connection: Any, info: StoreInfo) -> int:
            check_model(model, info)
            incoming = checked_incoming(items, vectors, info)
            there = sql.SQL("SELECT count(*) FROM {} WHERE id = ANY(%s)").format(self._table(info))
            (known,) = connection.execute(there, [[item.id for item in incoming]]).fetchone()
            names = ["id", "body", "vector", *column_names(info).values()]
            query = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}").format(
                self._table(info),
                sql.SQL(", ").join(map(sql.Identifier, names)),
                sql.SQL(", ").join([sql.Placeholder()] * len(names)),
                sql.SQL(", ").join(
                    sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(name)) for name in names[1:]
                ),
            )
            kind = vector_kind(info)
            rows = [
                row_of(item, kind(vector), info, row)
                for row, (item, vector) in enumerate(zip(incoming, vectors, strict=True))
            ]
            with connection.cursor() as cursor:
                cursor.executemany(query, rows)
            added = len(incoming) - int(known)
            self._count_changed(connection, info, added)
            return added

        return self._read(work)

    def delete(self, ids: Iterable[str]) -> int:
        """See :class:`leanmatch.stores.Store`."""
        wanted = list(dict.fromkeys(ids))

        def work(connection: Any, info: StoreInfo) -> int:
            query = sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self._table(info))
            deleted = int(connection.execute(query, [wanted]).rowcount)
            self._count_changed(connection, info, -deleted)
            return deleted

        return self._read(work)

    def _count_changed(self, connection: Any, info: StoreInfo, by: int) -> None:
        """Store the number of items. Call it last in a transaction: other writers wait until it ends."""
        query = sql.SQL(
            "UPDATE {} SET info = jsonb_set(info, '{{rows}}', to_jsonb((info->>'rows')::bigint + %s)) "
            "WHERE name = %s AND (info->>'generation')::bigint = %s"
        ).format(sql.Identifier(REGISTRY))
        if by:
            connection.execute(query, [by, self._connection.name, info.generation])

    def sample(self, count: int) -> tuple[list[Item], Vectors]:
        """See :class:`leanmatch.stores.Store`. Pages of the table are drawn, so that few are read."""

        def work(connection: Any, info: StoreInfo) -> tuple[list[Item], Vectors]:
            columns = [sql.SQL(", ") + sql.Identifier(column) for column in column_names(info).values()]
            percent = min(100.0, 200.0 * count / max(info.rows, 1))
            query = sql.SQL(
                "SELECT id, body{}, vector FROM {} TABLESAMPLE SYSTEM (%s) REPEATABLE (0) LIMIT %s"
            ).format(sql.Composed(columns), self._table(info))
            rows = connection.execute(query, [percent, count]).fetchall()
            items = [Item(row[0], row[1], _metadata(row[2:-1], info)) for row in rows]
            vectors = [row[-1].to_list() for row in rows]
            return items, np.asarray(vectors, np.float32).reshape(len(rows), info.model.dimension)

        return self._read(work)

    def reference(self) -> bytes | None:
        """See :class:`leanmatch.stores.Store`."""

        def work(connection: Any) -> bytes | None:
            query = sql.SQL("SELECT reference FROM {} WHERE name = %s").format(sql.Identifier(REGISTRY))
            (text,) = connection.execute(query, [self._connection.name]).fetchone()
            return None if text is None else str(text).encode()

        return self._connection.run(work) if self.info.reference else None

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()


def candidates_for(info: StoreInfo, k: int, passing: int) -> int:
    """How many candidates a search looks at; more if fewer rows pass.

    The 10 best of a tenth of the rows lie among the 100 best of all rows, so a scan has to be right at ten
    times the depth. Measured, that takes as many candidates as the square root of ten, not ten times.

    >>> from leanmatch.index import ModelIdentity
    >>> info = StoreInfo(ModelIdentity("m", "", "", 8), {}, (), 100_000, 1, "", candidates=100)
    >>> [candidates_for(info, 10, passing) for passing in (100_000, 25_000, 1_000)]
    [100, 200, 1000]
    """
    needed = max(info.candidates or CANDIDATES, 2 * k) * math.sqrt(max(info.rows, 1) / max(passing, 1))
    return min(MAX_CANDIDATES, math.ceil(needed))


def scan_settings(candidates: int, passing: int) -> str:
    """Settings of a transaction that searches through the index.

    If few rows near the query pass, the scan goes on; it ends when comparing all rows that pass would cost
    about as much.
    """
    tuples = min(MAX_SCAN_TUPLES, max(EXACT_ROWS, passing // 4))
    return (
        "SET LOCAL hnsw.iterative_scan = relaxed_order; "
        f"SET LOCAL hnsw.ef_search = {candidates}; "
        f"SET LOCAL hnsw.max_scan_tuples = {tuples}; "
        f"SET LOCAL hnsw.scan_mem_multiplier = {SCAN_MEMORY}"
    )


def vector_kind(info: StoreInfo) -> Any:
    """The class of a store's vectors. A push writes their type behind the key of its content."""
    return HalfVector if info.source.endswith(" halfvec") else Vector


def row_of(item: Item, vector: Any, info: StoreInfo, row: int) -> list[Any]:
    """An item as a row of its table.

    Raises:
        DataError: a value that its column does not hold, or a NUL character, which PostgreSQL cannot store.
    """
    values = [converted(name, row, item.metadata.get(name), kind) for name, kind in info.columns.items()]
    for value in (item.id, item.text, *values):
        if isinstance(value, str) and "\0" in value:
            raise DataError(
                f"item {item.id!r:.60} holds a NUL character, which PostgreSQL cannot store",
                line=row + 1,
                value=value,
                remedy="remove the character",
            )
    return [
        item.id,
        item.text,
        vector,
        *(_stored(value, kind) for value, kind in zip(values, info.columns.values(), strict=True)),
    ]


def _stored(value: Any, kind: str) -> Any:
    """Numbers as decimals; floats keep their fraction: 5.0 is not 5."""
    return Decimal(repr(value)) if kind == "number" and value is not None else value


def _hit(row: Sequence[Any], info: StoreInfo) -> Hit:
    return Hit(row[0], row[1], float(row[-1]), _metadata(row[2:-1], info))


def _metadata(values: Sequence[Any], info: StoreInfo) -> dict[str, Any]:
    return {
        name: _number(value) if kind == "number" else value
        for (name, kind), value in zip(info.columns.items(), values, strict=True)
        if value is not None
    }


def _number(value: Any) -> int | float:
    """A stored decimal as the integer or float that it was; whole floats were stored with a fraction."""
    return float(value) if "." in str(value) or "E" in str(value) else int(value)
