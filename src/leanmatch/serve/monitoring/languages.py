"""Which language a text is in, where it is long enough to tell and py3langid is installed (extra ``serve``).

py3langid is numpy and a file of 4 MB that it brings along (BSD-3-Clause); nothing is fetched. It names a
language for every text, and for a few words often a wrong and rare one. So a language counts only where the
text has :data:`ENOUGH_LETTERS` and the language, among :data:`LANGUAGES`, has a probability of
:data:`CONFIDENT`. Of 195 short queries in five languages (110 to choose the rule by, 85 to check it) that
tells 87 and none of them wrongly; py3langid alone has 133 right and 62 wrong. What is compared is the mix of
those that were told.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

_CODES = """
    ar bg bn ca cs da de el en es et fa fi fr he hi hr hu id it ja ko lt lv ms nl no pl pt ro ru sk sl sr sv
    ta te th tr uk ur vi zh
"""
LANGUAGES = frozenset(_CODES.split())
"""Languages that many people shop and ask in. Rarer ones are mostly what py3langid takes a short text for."""

ENOUGH_LETTERS = 12
"""Letters as bytes of UTF-8: a Chinese character says as much as three Latin ones."""

CONFIDENT = 0.999
RULE = "12 letters, probability 0.999, 43 languages"
"""What a reference's mix was counted by; one that was counted otherwise is not compared."""

ENOUGH_TOLD = 50
"""Queries whose language is told; with fewer, here or in the reference, the mix is not compared."""

RARE = 0.02
"""Languages with a smaller share of both mixes are one, ``other``."""

ABSENT = "Languages are not watched: py3langid is not installed (pip install 'leanmatch[serve]')."
OLD = (
    "Languages are not watched: the reference was made without py3langid or by an earlier version; "
    "leanmatch index reference makes it anew."
)
FEW = (
    "Languages are not compared: of most texts they cannot be told, because the texts are short "
    "({live} live queries can be told, {reference} texts of the reference)."
)


@lru_cache(1)
def identifier() -> Callable[[str], str | None] | None:
    """A function from a text to its language's ISO 639 code, None where it cannot be told.

    None without py3langid. The first call takes a second.
    """
    try:
        import py3langid
    except ModuleNotFoundError:
        return None
    rank: Any = py3langid.rank
    rank("so that its model is loaded now")

    def language_of(text: str) -> str | None:
        if (
            sum(len(letter.encode("utf-8", "replace")) for letter in text if letter.isalpha())
            < ENOUGH_LETTERS
        ):
            return None
        likely = [(name, float(score)) for name, score in rank(text) if name in LANGUAGES]
        best, highest = likely[0]
        return best if 1 / sum(math.exp(score - highest) for _, score in likely) >= CONFIDENT else None

    return language_of


def why_not_compared(reference: Mapping[str, int], live: Mapping[str, int]) -> str | None:
    """Why the two mixes are not compared; None where they are."""
    if identifier() is None:
        return ABSENT
    if not reference:
        return OLD
    totals = sum(reference.values()), sum(live.values())
    if min(totals) < ENOUGH_TOLD:
        return FEW.format(reference=f"{totals[0]:,}", live=f"{totals[1]:,}")
    return None


def gathered(reference: Mapping[str, int], live: Mapping[str, int]) -> tuple[Counter[str], Counter[str]]:
    """Both mixes, with what is rare in both counted as ``other``.

    >>> gathered({"en": 99, "la": 1}, {"en": 50, "de": 50})
    (Counter({'en': 99, 'other': 1}), Counter({'en': 50, 'de': 50}))
    """
    totals = max(1, sum(reference.values())), max(1, sum(live.values()))
    out: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for name in dict.fromkeys([*reference, *live]):
        counts = reference.get(name, 0), live.get(name, 0)
        rare = all(count < RARE * total for count, total in zip(counts, totals, strict=True))
        for mix, count in zip(out, counts, strict=True):
            if count:
                mix["other" if rare else name] += count
    return out
