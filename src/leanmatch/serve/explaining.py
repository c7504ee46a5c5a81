"""The words that carried a match: by how much the score falls when each is deleted.

All that one batch asks for is one pass through the model. What costs is the edited texts, one a word. Those
of items do not depend on the query: their vectors are kept, and a query over items that were explained before
costs its own words only.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leanmatch.interventions.adapt import as_reader
from leanmatch.types import Vectors

EXPLAINED_WORDS = 48
"""So many words of a text, from its beginning, are looked at."""

KEPT_VECTORS = 20_000
"""Vectors of edited items that are kept: 30 MB of 384 dimensions."""

Effects = list[tuple[int, int, float]]
"""Words by their place in the text (start, end), with their effect on the score."""


@dataclass(frozen=True)
class _Edited:
    """A text's words, and its vectors: row 0 whole, row ``i + 1`` without word ``i``."""

    spans: tuple[tuple[int, int], ...]
    vectors: Vectors

    def effects(self, other: _Edited) -> Effects:
        scores = self.vectors.astype(np.float64) @ other.vectors[0].astype(np.float64)
        return [
            (start, end, float(scores[0] - score))
            for (start, end), score in zip(self.spans, scores[1:], strict=True)
        ]


class Explainer:
    """Explains pairs for one encoder. :meth:`explain` is for one thread.

    Args:
        encoder: a function from texts to vectors, or leanmatch's runtime, whose token ids are edited.
        threads: threads of a pass through the runtime.
    """

    def __init__(self, encoder: Any, threads: int | None = None) -> None:
        tokens = hasattr(encoder, "encode_tokens") and hasattr(encoder, "tokenize")
        self._reader = as_reader(_Threaded(encoder, threads) if tokens else encoder)
        self._kept: OrderedDict[str, _Edited] = OrderedDict()
        self._vectors = 0

    def explain(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> list[list[tuple[Effects, Effects]]]:
        """For each query and each of its items the effects of the query's words and of the item's words."""
        items = {item for _, some in pairs for item in some}
        known = {item: self._kept[item] for item in items if item in self._kept}
        wanted = dict.fromkeys([*(query for query, _ in pairs), *(one for one in items if one not in known)])
        found = self._edited([one for one in wanted if one not in known]) | known
        for item in sorted(items):
            self._keep(item, found[item])
        return [
            [(found[query].effects(found[item]), found[item].effects(found[query])) for item in some]
            for query, some in pairs
        ]

    def _edited(self, texts: list[str]) -> dict[str, _Edited]:
        if not texts:  # everything asked for was kept, the query as an item's text
            return {}
        readings = self._reader.read(texts, "word")
        sources: list[Any] = []
        starts = []
        for reading in readings:
            starts.append(len(sources))
            sources.append(reading.source)
            count = min(EXPLAINED_WORDS, len(reading.units))
            sources += [self._reader.edit(reading, {unit: None}, "delete") for unit in range(count)]
        vectors = self._reader.encode(sources)
        out = {}
        for reading, start, end in zip(readings, starts, [*starts[1:], len(sources)], strict=True):
            spans = tuple((unit.start, unit.end) for unit in reading.units[: end - start - 1])
            out[reading.text] = _Edited(spans, vectors[start:end].copy())
        return out

    def _keep(self, item: str, edited: _Edited) -> None:
        if item in self._kept:
            self._kept.move_to_end(item)
            return
        self._kept[item] = edited
        self._vectors += len(edited.vectors)
        while self._vectors > KEPT_VECTORS and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._vectors -= len(gone.vectors)


class _Threaded:
    """The runtime's encoder with a number of threads, in the form that ``as_reader`` takes."""

    def __init__(self, encoder: Any, threads: int | None) -> None:
        self.tokenize, self.tokenizer = encoder.tokenize, encoder.tokenizer
        self.prompt = encoder.prompt
        self._encoder, self._threads = encoder, threads

    def encode_tokens(self, rows: Any, *, add_special_tokens: bool) -> Vectors:
        vectors: Vectors = self._encoder.encode_tokens(
            rows, threads=self._threads, add_special_tokens=add_special_tokens
        )
        return vectors
