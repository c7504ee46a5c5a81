"""The words that carried a match: by how much the score falls when each is deleted.

What costs is the edited texts, one a word. Those of items do not depend on the query: their vectors are kept,
and a query over items that were explained before costs its own words only. The texts of a batch go through
the model some at a time; between, what nobody waits for any more is left out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leanmatch.interventions.adapt import as_readers
from leanmatch.interventions.readers import Reader
from leanmatch.types import Vectors

EXPLAINED_WORDS = 48
"""So many words of a text, from its beginning, are looked at."""

KEPT_VECTORS = 20_000
"""Vectors of edited items that are kept: 30 MB of 384 dimensions."""

CHARACTERS_AT_ONCE = 60_000
"""Characters of edited texts that go through the model in one pass; or one text's edits, if they are more."""

Effects = list[tuple[int, int, float]]
"""Words by their place in the text (start, end), with their effect on the score."""

Explained = tuple[Effects, Effects]
"""The words of a query and of an item."""

_Side = tuple[int, str]
"""A text, and which reader reads it: 0 for queries, 1 for items where they are read differently."""

Pairs = Sequence[tuple[str, Sequence[str]]]
"""Queries with their items."""


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
        tokens = hasattr(encoder, "encode_tokens") and hasattr(encoder, "encodings")
        self._readers = as_readers(_Threaded(encoder, threads) if tokens else encoder)
        self._item_side = 0 if self._readers.anchor is self._readers.positive else 1
        self._kept: OrderedDict[_Side, _Edited] = OrderedDict()
        self._vectors = 0

    def explain(self, jobs: Sequence[tuple[Pairs, Callable[[], bool]]]) -> list[list[list[Explained]] | None]:
        """For each job's queries and items the effects of the query's words and of the item's words.

        Args:
            jobs: pairs, and whether they are over: not wanted any more.

        Returns:
            None for a job that was over.
        """
        side = self._item_side
        texts = [
            dict.fromkeys(
                text for query, items in pairs for text in ((0, query), *((side, item) for item in items))
            )
            for pairs, _ in jobs
        ]
        edited: dict[_Side, _Edited] = {}
        while True:
            wanted = [some for some, (_, over) in zip(texts, jobs, strict=True) if not over()]
            for text in {text for some in wanted for text in some if text not in edited}:
                if text in self._kept:
                    edited[text] = self._kept[text]
            missing = list(dict.fromkeys(text for some in wanted for text in some if text not in edited))
            if not missing:
                break
            edited |= self._edited(_first(missing))
        for item in sorted(
            {(side, item) for pairs, _ in jobs for _, items in pairs for item in items} & edited.keys()
        ):
            self._keep(item, edited[item])
        return [
            [
                [
                    (
                        edited[0, query].effects(edited[side, item]),
                        edited[side, item].effects(edited[0, query]),
                    )
                    for item in items
                ]
                for query, items in pairs
            ]
            if all(text in edited for text in some)
            else None
            for (pairs, _), some in zip(jobs, texts, strict=True)
        ]

    def _edited(self, texts: list[_Side]) -> dict[_Side, _Edited]:
        out: dict[_Side, _Edited] = {}
        for side, reader in enumerate(self._readers):
            own = [text for of, text in texts if of == side]
            if own:
                edited = self._edited_by(reader, own)
                out |= {(side, text): edited[text] for text in own}
        return out

    @staticmethod
    def _edited_by(reader: Reader, texts: list[str]) -> dict[str, _Edited]:
        readings = reader.read(texts, "word")
        sources: list[Any] = []
        starts = []
        for reading in readings:
            starts.append(len(sources))
            sources.append(reading.source)
            count = min(EXPLAINED_WORDS, len(reading.units))
            sources += [reader.edit(reading, {unit: None}, "delete") for unit in range(count)]
        vectors = reader.encode(sources)
        out = {}
        for reading, start, end in zip(readings, starts, [*starts[1:], len(sources)], strict=True):
            spans = tuple((unit.start, unit.end) for unit in reading.units[: end - start - 1])
            out[reading.text] = _Edited(spans, vectors[start:end].copy())
        return out

    def _keep(self, item: _Side, edited: _Edited) -> None:
        if item in self._kept:
            self._kept.move_to_end(item)
            return
        self._kept[item] = edited
        self._vectors += len(edited.vectors)
        while self._vectors > KEPT_VECTORS and len(self._kept) > 1:
            _, gone = self._kept.popitem(last=False)
            self._vectors -= len(gone.vectors)


def _first(texts: list[_Side]) -> list[_Side]:
    """As many of the texts as one pass takes."""
    characters = 0
    for count, (_, text) in enumerate(texts):
        characters += len(text) * (1 + min(EXPLAINED_WORDS, len(text.split())))
        if characters > CHARACTERS_AT_ONCE:
            return texts[: max(1, count)]
    return texts


class _Threaded:
    """The runtime's encoder with a number of threads, in the form that ``as_reader`` takes."""

    def __init__(self, encoder: Any, threads: int | None) -> None:
        self.encodings, self.tokenizer = encoder.encodings, encoder.tokenizer
        self.prompts, self.roles_differ = encoder.prompts, encoder.roles_differ
        self._encoder, self._threads = encoder, threads

    def encode_tokens(self, rows: Any, *, add_special_tokens: bool) -> Vectors:
        vectors: Vectors = self._encoder.encode_tokens(
            rows, threads=self._threads, add_special_tokens=add_special_tokens
        )
        return vectors
