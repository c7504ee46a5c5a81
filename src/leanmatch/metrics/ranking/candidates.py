"""Who are the queries of a table, what are the items, and which belong together.

A query is its identifier where the data has identifiers and its text where not: rows that share an
``anchor_id`` (or an anchor text) are one query with several relevant items. An item is its text: items with
different identifiers and the same text are one candidate, because no matcher of texts can tell them apart.
Rows with label 0 bring candidates, never relevances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.table import PairTable
from leanmatch.errors import DataError

LEAST_SHARED = 0.001
"""Share of distinct texts (or ids) that must stand on both sides for ``symmetric="auto"`` to say yes."""
CHANCE_SHARED = 0.1
"""A single text (or id) on both sides is taken for chance where it is less than this share of all."""
LEAST_QUERIES_IN_CORPUS = 0.5
"""With a corpus, pairs are symmetric where more than this share of the queries are documents of it."""


class Symmetry(NamedTuple):
    """Whether pairs are symmetric, and why, in words."""

    symmetric: bool
    reason: str


@dataclass(frozen=True)
class Identities:
    """Integer names for the texts, queries and items of a table; arrays are int64.

    ``texts``: the distinct texts. ``anchor_texts``, ``positive_texts``: text of each row, ``(rows,)``.
    ``queries``,
    ``items``: who they are, ``(rows,)``; one numbering for both sides. ``text_of``: the text of each
    identity. ``corpus``: identities of the corpus, or None. ``item_names``: the ids (or the text) of each
    identity; several where items with one text are one. ``conflicts``: identifiers that came with more than
    one text (the first one counts). ``repeated``: items that have the text of an earlier item.
    """

    texts: list[str]
    anchor_texts: NDArray[np.int64]
    positive_texts: NDArray[np.int64]
    queries: NDArray[np.int64]
    items: NDArray[np.int64]
    text_of: NDArray[np.int64]
    corpus: NDArray[np.int64] | None
    item_names: list[tuple[str, ...]]
    conflicts: int
    repeated: int

    def roles(self, *, symmetric: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Numbers of the texts that are queries, and of those that are documents."""
        queries = [self.anchor_texts, self.text_of[self.queries]]
        documents = [self.positive_texts, self.text_of[self.items]]
        if self.corpus is not None:
            documents.append(self.text_of[self.corpus])
        if symmetric:
            documents += queries
        return np.unique(np.concatenate(queries)), np.unique(np.concatenate(documents))


def decide_symmetric(table: PairTable, wanted: bool | Literal["auto"] = "auto") -> Symmetry:
    """Whether anchors and positives are things of one kind.

    The rule of ``"auto"``, by what the data has:

    - a corpus and ``anchor_id``: pairs are symmetric where most queries are documents of the corpus, with the
      same id and the same text. One document that happens to share both with a query decides nothing.
    - ``anchor_id`` and ``positive_id``: where at least 0.1% of the ids stand on both sides with the same
      text, and most of the ids that stand on both sides do.
    - ids of items alone: they are not symmetric.
    - no ids: where at least 0.1% of the distinct texts stand in both columns. Questions, offers and products
      recur on either side, queries and their items hardly ever do. A text that is paired with itself does
      not count: a query may well be the name of an item.

    One shared id or text is chance, unless it is at least a tenth of all.
    """
    if wanted != "auto":
        return Symmetry(bool(wanted), "as asked for")
    if table.corpus is None and not table.has("positive_id"):
        return _shared_texts(table)
    if not table.has("anchor_id"):
        return Symmetry(False, "items have ids, anchors have none")
    queries = dict(zip(map(str, table.column("anchor_id")), table.anchors, strict=True))
    if table.corpus is not None:
        documents = dict(zip(table.corpus.ids, table.corpus.texts, strict=True))
        same = sum(documents.get(name) == text for name, text in queries.items())
        reason = f"{same:,} of {len(queries):,} queries are documents of the corpus, by id and text"
        return Symmetry(same > LEAST_QUERIES_IN_CORPUS * len(queries), reason)
    items = dict(zip(map(str, table.column("positive_id")), table.positives, strict=True))
    common = queries.keys() & items.keys()
    same = sum(queries[name] == items[name] for name in common)
    total = len(queries.keys() | items.keys())
    reason = f"{same:,} of {total:,} ids stand with the same text on both sides"
    if same < len(common):
        reason += f", {len(common) - same:,} with another text"
    return Symmetry(_more_than_chance(same, total) and 2 * same > len(common), reason)


def _shared_texts(table: PairTable) -> Symmetry:
    left, right = set(table.anchors), set(table.positives)
    with_themselves = {a for a, p in zip(table.anchors, table.positives, strict=True) if a == p}
    shared, total = len((left & right) - with_themselves), len(left | right)
    reason = f"{shared:,} of {total:,} distinct texts stand on both sides"
    if with_themselves:
        reason += f", without {len(with_themselves):,} that are paired with themselves"
    return Symmetry(_more_than_chance(shared, total), reason)


def _more_than_chance(shared: int, total: int) -> bool:
    return shared >= max(LEAST_SHARED * total, 2 if total * CHANCE_SHARED > 1 else 1)


def identify(table: PairTable, *, symmetric: bool) -> Identities:
    """Number the texts, queries and items of a table.

    Args:
        table: the rows.
        symmetric: queries and items share their identities: ids where both sides have them, with the same
            text (an id that has another text on the other side is someone else there), else texts.
    """
    numbers: dict[str, int] = {}
    anchor_texts = _numbered(table.anchors, numbers)
    positive_texts = _numbered(table.positives, numbers)
    has_ids = table.has("anchor_id"), table.has("positive_id")
    query_ids = _ids(table, "anchor_id") if has_ids[0] and (has_ids[1] or not symmetric) else None
    item_ids = _ids(table, "positive_id") if has_ids[1] and (has_ids[0] or not symmetric) else None
    names = _Names(shared=symmetric)
    queries = names.number("query", query_ids, table.anchors, anchor_texts)
    items = names.number("item", item_ids, table.positives, positive_texts)
    corpus = None
    if table.corpus is not None:
        ids = [str(name) for name in table.corpus.ids] if item_ids is not None else None
        corpus = names.number("item", ids, table.corpus.texts, _numbered(table.corpus.texts, numbers))
    text_of = np.array(names.text_of, np.int64)
    everything = items if corpus is None else corpus
    first_with_text = _first_with_text(text_of, np.concatenate([everything, items]))
    item_names: list[tuple[str, ...]] = [(name,) for name in names.names]
    for identity in np.unique(np.concatenate([everything, items])).tolist():
        first = int(first_with_text[identity])
        if first != identity:
            item_names[first] = (*item_names[first], names.names[identity])
    return Identities(
        list(numbers),
        anchor_texts,
        positive_texts,
        queries,
        first_with_text[items],
        text_of,
        None if corpus is None else distinct_in_order(first_with_text[corpus]),
        item_names,
        names.conflicts,
        len(np.unique(everything)) - len(np.unique(text_of[everything])),
    )


def _first_with_text(text_of: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each identity the first item with its text, or itself where no item has it."""
    first: dict[int, int] = {}
    for identity in items.tolist():
        first.setdefault(int(text_of[identity]), identity)
    return np.array([first.get(text, identity) for identity, text in enumerate(text_of.tolist())], np.int64)


class _Names:
    """Numbers identities in the order in which they come up."""

    def __init__(self, *, shared: bool) -> None:
        self._shared = shared
        self._of_text: dict[tuple[str, str], int] = {}
        self._of_id: dict[str, dict[str, int]] = {"query": {}, "item": {}}
        self.text_of: list[int] = []
        self.names: list[str] = []
        self._conflicting: set[int] = set()

    @property
    def conflicts(self) -> int:
        return len(self._conflicting)

    def number(
        self,
        side: str,
        ids: list[str | None] | list[str] | None,
        texts: Sequence[str],
        numbers: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        identities = np.empty(len(texts), np.int64)
        for row, (text, number) in enumerate(zip(texts, numbers.tolist(), strict=True)):
            name = ids[row] if ids is not None else None
            if name is None:
                key = ("" if self._shared else side, text)
                identity = self._of_text.get(key)
                if identity is None:
                    identity = self._of_text[key] = self._new(text, number)
            else:
                identity = self._by_id(side, name, number)
            identities[row] = identity
        return identities

    def _by_id(self, side: str, name: str, number: int) -> int:
        identity = self._of_id[side].get(name)
        if identity is not None:
            if self.text_of[identity] != number:
                self._conflicting.add(identity)
            return identity
        if self._shared:
            other = self._of_id["item" if side == "query" else "query"].get(name)
            if other is not None and self.text_of[other] == number:
                identity = other
        if identity is None:
            identity = self._new(name, number)
        self._of_id[side][name] = identity
        return identity

    def _new(self, name: str, number: int) -> int:
        self.text_of.append(number)
        self.names.append(name)
        return len(self.names) - 1


def _numbered(texts: Sequence[str], numbers: dict[str, int]) -> NDArray[np.int64]:
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)


def _ids(table: PairTable, name: str) -> list[str | None]:
    return [None if value is None else str(value) for value in table.column(name)]


def distinct_in_order(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """The distinct values in the order of their first appearance."""
    _, first = np.unique(values, return_index=True)
    return values[np.sort(first)]


def grades(table: PairTable) -> NDArray[np.int64]:
    """How relevant each row is: the column ``relevance`` (whole numbers from 1), else 1; shape ``(rows,)``.

    Raises:
        DataError: the relevance of a row with label 1 is no whole number, or below 1.
    """
    result = np.ones(len(table), np.int64)
    if not table.has("relevance"):
        return result
    for row, value in enumerate(table.column("relevance")):
        if value is None or table.labels[row] != 1:
            continue
        number = float(str(value))
        if number != int(number) or number < 1:
            raise DataError(
                "the relevance of a matching pair must be a whole number from 1",
                path=table.source or None,
                line=row + 1,
                column="relevance",
                value=value,
                remedy="scale and round the grades, or leave the column out",
            )
        result[row] = int(number)
    return result
