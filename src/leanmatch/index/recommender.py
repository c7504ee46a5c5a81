"""From texts to recommended items: encode, search, look up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leanmatch.data import ItemTable
from leanmatch.errors import DataError
from leanmatch.index.search.exact import ExactIndex
from leanmatch.models import ByRole, RoleEncoder
from leanmatch.types import EncodeFunction, JsonValue, Vectors


@dataclass(frozen=True)
class Recommendation:
    """One recommended item.

    Attributes:
        score: what items are ordered by: the cosine, the weighted sum of a hybrid search, or the score of a
            reranker.
        rank: counts from 1.
        cosine: after a hybrid search or a reranker; else None, as the score is the cosine.
        lexical: the share of the query's terms that the item holds, weighted by rarity; of a hybrid search.
        matched: those terms, the rarest first; of a hybrid search.
    """

    id: str
    text: str
    score: float
    rank: int
    metadata: dict[str, Any]
    cosine: float | None = None
    lexical: float | None = None
    matched: tuple[str, ...] | None = None

    def to_json(self) -> JsonValue:
        """Plain values; metadata that JSON has no form for (dates) becomes text."""
        plain = {
            name: value if isinstance(value, str | int | float | bool | list | dict) else str(value)
            for name, value in self.metadata.items()
        }
        parts: dict[str, Any] = {
            "cosine": self.cosine,
            "lexical": self.lexical,
            "matched": None if self.matched is None else list(self.matched),
        }
        return {
            "rank": self.rank,
            "score": self.score,
            **{name: value for name, value in parts.items() if value is not None},
            "id": self.id,
            "text": self.text,
            "metadata": plain,
        }


class Recommender:
    """Recommends items of a catalogue for texts, by exact search.

    Args:
        encoder: an encoder, which puts its prompts before queries and items, or a function from texts to
            normalized vectors.
        items: the catalogue.
        vectors: the catalogue's vectors where they are known already, shape ``(items, dimension)``; made with
            ``encoder`` where not.

    Raises:
        DataError: an empty catalogue, or vectors that do not fit it.
    """

    def __init__(
        self, encoder: EncodeFunction | ByRole, items: ItemTable, *, vectors: Vectors | None = None
    ) -> None:
        self.items = items
        self._encoder = RoleEncoder(encoder)
        if not len(items):
            raise DataError("there are no items to recommend", remedy="give at least one item")
        self.index = ExactIndex.build(
            self._encoder.encode_document(items.texts) if vectors is None else vectors, items.ids
        )
        self._row = {name: row for row, name in enumerate(items.ids)}
        self._ids_of: dict[str, list[str]] = defaultdict(list)
        for name, text in zip(items.ids, items.texts, strict=True):
            self._ids_of[same_text(text)].append(name)

    def recommend(
        self, texts: Sequence[str], k: int = 10, *, exclude_self: bool = True
    ) -> list[list[Recommendation]]:
        """The ``k`` best items for each text, fewer where the catalogue is smaller.

        Args:
            texts: the queries.
            k: how many items.
            exclude_self: leave out items whose text is the query itself (up to case and white space).

        Raises:
            DataError: a blank text.
            UsageError: ``k`` below 1.
        """
        for row, text in enumerate(texts):
            if not isinstance(text, str) or not text.strip():
                raise DataError("a text is missing or blank", line=row + 1, value=text, remedy="give a text")
        if not texts:
            return []
        exclude = [self._ids_of.get(same_text(text), []) for text in texts] if exclude_self else None
        scores, ids = self.index.search(self._encoder.encode_query(texts), k, exclude=exclude)
        return [
            [
                self._recommendation(name, float(score), rank)
                for rank, (name, score) in enumerate(zip(names, row, strict=True), start=1)
                if name is not None
            ]
            for names, row in zip(ids, scores, strict=True)
        ]

    def _recommendation(self, name: str, score: float, rank: int) -> Recommendation:
        row = self._row[name]
        return Recommendation(name, self.items.texts[row], score, rank, self.items.metadata(row))


def same_text(text: str) -> str:
    """What two texts have in common that differ only in case and white space."""
    return " ".join(text.split()).casefold()
