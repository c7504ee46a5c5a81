"""The protocol of a store: search with filters, changes, and the model that made the vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from leanmatch.errors import DataError, LeanmatchError, UsageError
from leanmatch.index.changes import Item, checked_items
from leanmatch.index.filters.expression import AllOf, AnyOf, Compare, Filter, IsIn, Missing, Not, shortened
from leanmatch.index.storage.manifest import ModelIdentity
from leanmatch.index.storage.staging import checked_vectors
from leanmatch.types import Vectors


class StoreError(LeanmatchError):
    """A store that cannot be reached, or that answers with an error of its own."""


class UnreachableError(StoreError):
    """A store that does not answer now but may answer later."""


class OtherModelError(StoreError):
    """The store holds vectors of another model than the queries are of."""


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds.

    Attributes:
        model: of the vectors.
        columns: type of each metadata column: text, integer, number or boolean.
        numeric: text columns whose values all read as numbers; filters compare them with numbers.
        rows: items that it holds.
        generation: counts the pushes.
        source: which push this is.
        reference: SHA-256 of what :meth:`Store.reference` gives; empty where that is None.
        candidates: how many a search of the index looks at, as the push measured; 0 where it did not.
        recall: recall@10 with so many candidates; 0 where it was not measured.
    """

    model: ModelIdentity
    columns: Mapping[str, str]
    numeric: tuple[str, ...]
    rows: int
    generation: int
    source: str
    reference: str = ""
    candidates: int = 0
    recall: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; the columns are pairs, because databases reorder the keys of objects."""
        columns = [list(pair) for pair in self.columns.items()]
        return {**asdict(self), "columns": columns, "numeric": list(self.numeric)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> StoreInfo:
        """What :meth:`to_json` gave."""
        model = ModelIdentity(**value["model"])
        columns, numeric = dict(value["columns"]), tuple(value["numeric"])
        counts = int(value["rows"]), int(value["generation"])
        measured = int(value.get("candidates", 0)), float(value.get("recall", 0.0))
        return cls(model, columns, numeric, *counts, value["source"], value.get("reference", ""), *measured)


@dataclass(frozen=True)
class Hit:
    """An item that a search found; the score is the cosine."""

    id: str
    text: str
    score: float
    metadata: dict[str, Any]


class Store(Protocol):
    """Items that lie somewhere. Implementations pass one contract test."""

    @property
    def info(self) -> StoreInfo:
        """What it holds now."""

    def __len__(self) -> int:
        """Number of items."""

    def search(
        self,
        queries: Vectors,
        k: int,
        filter: Filter | None = None,
        *,
        model: ModelIdentity | None = None,
    ) -> list[list[Hit]]:
        """The ``k`` items with the highest cosine for each query, best first.

        Args:
            queries: float32 ``(queries, dimension)``, unit length.
            k: how many.
            filter: which items may be found.
            model: what made the queries. It is compared with the model of the generation that is searched;
                None for no comparison.

        Raises:
            UsageError: a filter that does not fit the columns, or that the store cannot answer.
            OtherModelError: the items are of another model.
            StoreError: the store cannot be reached.
        """

    def upsert(self, items: Sequence[Item], vectors: Vectors, *, model: ModelIdentity | None = None) -> int:
        """Add items, and replace those whose id is there: all or nothing. Gives how many were added.

        Args:
            items: each id once.
            vectors: of the items, float32 ``(items, dimension)``, unit length.
            model: what made them, as in :meth:`search`.

        Raises:
            DataError: an item that is not sound or does not fit the columns.
            OtherModelError: the items that are there are of another model.
        """

    def delete(self, ids: Iterable[str]) -> int:
        """Delete items; gives how many were there."""

    def sample(self, count: int) -> tuple[list[Item], Vectors]:
        """Some items from all over the store, ``count`` at most, with their vectors."""

    def reference(self) -> bytes | None:
        """What the drift monitor compares queries with (``leanmatch index reference``).

        None where the catalogue that was pushed had none.
        """

    def close(self) -> None:
        """Close the connections."""


def reference_digest(reference: bytes | None) -> str:
    """What :attr:`StoreInfo.reference` says of a reference."""
    return "" if reference is None else hashlib.sha256(reference).hexdigest()


def check_filter(expression: Filter, info: StoreInfo) -> None:
    """Refuse a filter that does not fit the columns.

    Raises:
        UsageError: a column that is not there, or a value of another type than its.
    """
    if isinstance(expression, AllOf | AnyOf):
        for part in expression.parts:
            check_filter(part, info)
    elif isinstance(expression, Not):
        check_filter(expression.part, info)
    else:
        kind = info.columns.get(expression.column)
        if kind is None:
            names = ", ".join(info.columns) or "none"
            raise UsageError(
                f"there is no column {expression.column[:80]!r}", remedy=f"the columns are: {names}"
            )
        for value in _values(expression):
            _check_value(value, kind, expression.column, expression.column in info.numeric)


def _values(test: Compare | IsIn | Missing) -> tuple[Any, ...]:
    if isinstance(test, Missing):
        return ()
    return test.values if isinstance(test, IsIn) else (test.value,)


def _check_value(value: Any, kind: str, column: str, numeric: bool) -> None:
    given = "boolean" if isinstance(value, bool) else "number" if isinstance(value, int | float) else "text"
    held = "number" if kind == "integer" else kind
    if given != held and not (held == "text" and given == "number" and numeric):
        raise UsageError(
            f"the column {column[:80]!r} holds values of type {kind}, not {shortened(value)}",
            remedy={"text": "put the value in quotes", "number": "give a number"}.get(held, "true or false"),
        )


def check_model(model: ModelIdentity | None, info: StoreInfo) -> None:
    """Refuse vectors of another model than the store's.

    Raises:
        OtherModelError: they are of another model, precision, prompt or number of dimensions.
    """
    if model is not None and not model.goes_with(info.model):
        raise OtherModelError(
            f"the store now holds vectors of the model {info.model.name} ({info.model.fingerprint[:12]}..., "
            f"{info.model.dimension} dimensions), not of {model.name} ({model.fingerprint[:12]}..., "
            f"{model.dimension} dimensions)",
            remedy="use the store's model, or push the items of yours",
        )


def checked_incoming(items: Sequence[Item], vectors: Vectors, info: StoreInfo) -> list[Item]:
    """Items that a store can take with their vectors.

    Raises:
        DataError: an item that is not sound, or a column that the store has not.
        ModelError: vectors of another shape, or not of unit length.
    """
    incoming = checked_items(items)
    checked_vectors(vectors, len(incoming), info.model.dimension)
    new = [name for item in incoming for name in item.metadata if name not in info.columns]
    if new:
        raise DataError(
            f"the store has no column {new[0]!r}",
            column=new[0],
            remedy="leave the column out, or push all items again with it",
        )
    return incoming
