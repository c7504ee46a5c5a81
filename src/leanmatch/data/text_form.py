"""When two texts count as the same."""

from __future__ import annotations

import unicodedata

MEANINGFUL_PUNCTUATION = "#%&@*"
"""Punctuation that tells texts apart ("C#" is not "C"); symbols such as + and emoji stay anyway."""


class _Separators(dict[int, str]):
    """Maps punctuation, separators and control characters to a space; filled as characters come up."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        dropped = unicodedata.category(character)[0] in "PZC" and character not in MEANINGFUL_PUNCTUATION
        self[code] = " " if dropped else character
        return self[code]


_SEPARATORS = _Separators()


def normalized_text(text: str) -> str:
    """The form in which texts are compared: NFKC, case folded, punctuation and white space one space.

    A text of nothing but punctuation is only folded.

    >>> normalized_text("  How do I\\tinstall C++, on Ubuntu?! ")
    'how do i install c++ on ubuntu'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_SEPARATORS).split()) or " ".join(folded.split())


def text_ids(columns: list[list[str]]) -> tuple[list[str], list[list[int]]]:
    """Number the distinct normalized texts of several columns.

    Returns:
        the distinct normalized texts, and for each column the number of each of its texts.

    >>> text_ids([["A", "b"], ["a!", "c"]])
    (['a', 'b', 'c'], [[0, 1], [0, 2]])
    """
    raw: dict[str, int] = {}
    distinct: dict[str, int] = {}
    numbered = []
    for column in columns:
        ids = []
        for text in column:
            number = raw.get(text)
            if number is None:
                number = raw[text] = distinct.setdefault(normalized_text(text), len(distinct))
            ids.append(number)
        numbered.append(ids)
    return list(distinct), numbered
