"""How long encoding takes on this machine, measured, and times in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from leanmatch.types import EncodeFunction

PROBED_TEXTS = 64


def text_seconds(
    encode: EncodeFunction, texts: Sequence[str], clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds to encode one text, measured on a few of them; 0 where there are none."""
    distinct = list(dict.fromkeys(texts))
    sample = distinct[:: max(1, len(distinct) // PROBED_TEXTS)][:PROBED_TEXTS]
    if not sample:
        return 0.0
    encode(sample[:1])
    begun = clock()
    encode(sample)
    return (clock() - begun) / len(sample)


def in_words(seconds: float) -> str:
    """A time as people say it.

    >>> [in_words(s) for s in (0.4, 42, 65, 200, 5400, 86000)]
    ['a second', '42 seconds', '1 minute', '3 minutes', '1.5 hours', '23.9 hours']
    """
    if seconds < 1.5:
        return "a second"
    if seconds < 60:
        return f"{seconds:.0f} seconds"
    minutes = round(seconds / 60)
    if minutes < 60:
        return "1 minute" if minutes == 1 else f"{minutes} minutes"
    return f"{seconds / 3600:.1f} hours"
