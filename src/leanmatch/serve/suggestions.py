"""Item texts that hold what someone has typed so far."""

from __future__ import annotations

import re

import numpy as np

from leanmatch.index import Catalogue

SUGGESTIONS = 8
SAMPLES = 6

_MOST_ROWS = 5_000
_LOOKED_AT = 1_000
_SENTENCE_END = re.compile(r"[.!?;](?=\s|$)")
_SHORTEST, _LONGEST = 8, 48
_BETWEEN = "\0"


class Suggester:
    """Looks what was typed up in all texts of a catalogue, in one string that is made once."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        folded = [text.casefold() for text in catalogue.texts]
        self._all = _BETWEEN.join(folded)
        self._ends = np.cumsum([len(text) + 1 for text in folded]) if folded else np.zeros(0, np.int64)

    def __call__(self, typed: str) -> list[str]:
        """Texts that hold it up to case: those that begin with it first, then the shorter ones."""
        wanted = " ".join(typed.split()).casefold()
        if not wanted or _BETWEEN in wanted:
            return []
        matches: list[tuple[bool, int, int]] = []  # ranked: does it stand at the beginning, length, row
        at = self._all.find(wanted)
        while at >= 0 and len(matches) < _MOST_ROWS:
            row = int(np.searchsorted(self._ends, at, side="right"))
            begin = int(self._ends[row - 1]) if row else 0
            end = int(self._ends[row])
            matches.append((at > begin, end - begin, row))
            at = self._all.find(wanted, end)
        texts = (self.catalogue.text(row) for _, _, row in sorted(matches)[: 2 * SUGGESTIONS])
        return list(dict.fromkeys(texts))[:SUGGESTIONS]


def sample_queries(catalogue: Catalogue) -> list[str]:
    """Queries to begin with: short items or first sentences from all over the catalogue, else first words.

    No two begin with the same word, as long as there are others.
    """
    rows = range(0, len(catalogue), max(1, len(catalogue) // _LOOKED_AT))
    texts = dict.fromkeys(" ".join(catalogue.text(row)[: 8 * _LONGEST].split()) for row in rows)
    sentences = dict.fromkeys(_SENTENCE_END.split(text, maxsplit=1)[0].rstrip(" .,;:") for text in texts)
    ranked = [text for text in sentences if _SHORTEST <= len(text) <= _LONGEST]
    if len(ranked) < SAMPLES:
        ranked += [text for text in map(_first_words, sentences) if text and text not in ranked]
    by_word: dict[str, str] = {}
    for text in ranked:
        by_word.setdefault(text.split()[0].casefold(), text)
    chosen = list(by_word.values())
    chosen += [text for text in ranked if by_word[text.split()[0].casefold()] != text]
    distinct = max(SAMPLES, len(by_word))
    return chosen[:distinct][:: max(1, distinct // SAMPLES)][:SAMPLES]


def _first_words(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST + 1].rpartition(" ")[0] or text[:_LONGEST]
