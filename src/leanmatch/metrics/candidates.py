"""Who are the queries of a table, what are the items, and which belong together.

Identity is the identifier where the data has identifiers and the text where not: rows that share an
``anchor_id`` (or an anchor text) are one query with several relevant items. Rows with label 0 bring
candidates, never relevances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.table import PairTable
from leanmatch.errors import DataError

LEAST_SHARED_TEXTS = 0.001
"""Share of distinct texts that must stand on both sides for ``symmetric="auto"`` to say yes."""


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
    identity. ``corpus``: identities of the corpus, or None. ``item_names``: the id or text of each identity.
    ``conflicts``: identifiers that came with more than one text (the first one counts).
    """

    texts: list[str]
    anchor_texts: NDArray[np.int64]
    positive_texts: NDArray[np.int64]
    queries: NDArray[np.int64]
    items: NDArray[np.int64]
    text_of: NDArray[np.int64]
    corpus: NDArray[np.int64] | None
    item_names: list[str]
    conflicts: int


def decide_symmetric(table: PairTable, wanted: bool | Literal["auto"] = "auto") -> Symmetry:
    """Whether anchors and positives are things of one kind.

    The rule of ``"auto"``: with ``anchor_id`` and ids of items (``positive_id``, or a corpus) pairs are
    symmetric where an id stands on both sides with the same text. With ids of positives alone they are not.
    Without ids they are where at least 0.1% of the distinct texts (one or more) stand in both columns:
    questions, offers and products recur on either side, queries and their items hardly ever do.
    """
    if wanted != "auto":
        return Symmetry(bool(wanted), "as asked for")
    left, right = set(table.anchors), set(table.positives)
    if table.corpus is not None or table.has("positive_id"):
        if not table.has("anchor_id"):
            return Symmetry(False, "items have ids, anchors have none")
        known = dict(zip(map(str, table.column("anchor_id")), table.anchors, strict=True))
        if table.corpus is not None:
            others = zip(table.corpus.ids, table.corpus.texts, strict=True)
        else:
            others = zip(map(str, table.column("positive_id")), table.positives, strict=True)
        shared = len({name for name, text in others if known.get(name) == text})
        return Symmetry(shared > 0, f"{shared:,} ids stand with the same text on both sides")
    shared, total = len(left & right), len(left | right)
    enough = shared > 0 and shared >= LEAST_SHARED_TEXTS * total
    return Symmetry(enough, f"{shared:,} of {total:,} distinct texts stand on both sides")


def identify(table: PairTable, *, symmetric: bool) -> Identities:
    """Number the texts, queries and items of a table.

    Args:
        table: the rows.
        symmetric: queries and items share their identities (ids where both sides have them, else texts).
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
        found = names.number("item", ids, table.corpus.texts, _numbered(table.corpus.texts, numbers))
        corpus = distinct_in_order(found)
    text_of = np.array(names.text_of, np.int64)
    return Identities(
        list(numbers),
        anchor_texts,
        positive_texts,
        queries,
        items,
        text_of,
        corpus,
        names.names,
        names.conflicts,
    )


class _Names:
    """Numbers identities in the order in which they come up."""

    def __init__(self, *, shared: bool) -> None:
        self._shared, self._numbers = shared, dict[tuple[str, str, str], int]()
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
        place = "" if self._shared else side
        found = np.empty(len(texts), np.int64)
        for row, (text, number) in enumerate(zip(texts, numbers.tolist(), strict=True)):
            name = ids[row] if ids is not None else None
            key = (place, "text", text) if name is None else (place, "id", name)
            identity = self._numbers.setdefault(key, len(self._numbers))
            if identity == len(self.text_of):
                self.text_of.append(number)
                self.names.append(text if name is None else name)
            elif self.text_of[identity] != number:
                self._conflicting.add(identity)
            found[row] = identity
        return found


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
