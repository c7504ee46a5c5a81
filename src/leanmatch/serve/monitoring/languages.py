"""Which language a text is in, where py3langid is installed (extra ``serve``).

It is numpy and a file of 4 MB that it brings along (BSD-3-Clause); nothing is fetched. Short queries are
often guessed wrong, so what is compared is the mix, with rare guesses counted together (:func:`gathered`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

RARE = 0.02
"""Languages with a smaller share of both mixes are one, ``other``."""

ABSENT = "languages are not watched: py3langid is not installed (pip install 'leanmatch[serve]')"
UNKNOWN = (
    "languages are not watched: the reference was made without py3langid; "
    "leanmatch index --reference makes it anew"
)


@lru_cache(1)
def identifier() -> Callable[[str], str] | None:
    """A function from a text to its language's ISO 639 code; None without py3langid. First: a second."""
    try:
        import py3langid
    except ModuleNotFoundError:
        return None
    classify: Any = py3langid.classify
    classify("so that its model is loaded now")
    return lambda text: str(classify(text)[0])


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
