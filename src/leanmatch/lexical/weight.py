"""How much the lexical part counts: ``score = (1 - weight) cosine + weight lexical``.

The two defaults were fitted on training splits alone (docs/LOG.md): on questions a weight above .2
costs what it gains, and on queries that hold a part number .5 gains more than twice as much as .2.
"""

from __future__ import annotations

from leanmatch.errors import UsageError
from leanmatch.lexical.terms import holds_part_number

WORD_WEIGHT = 0.2
"""For queries without a part number."""
PART_NUMBER_WEIGHT = 0.5
"""For queries that hold one."""


def lexical_weight(query: str, weight: float | None = None) -> float:
    """The weight of a query: the one given, or the default for what it holds.

    Raises:
        UsageError: a weight outside 0..1.

    >>> lexical_weight("camera case"), lexical_weight("case for XJ-200"), lexical_weight("XJ-200", 0.3)
    (0.2, 0.5, 0.3)
    """
    if weight is None:
        return PART_NUMBER_WEIGHT if holds_part_number(query) else WORD_WEIGHT
    if not 0 <= weight <= 1:
        raise UsageError(f"lexical_weight is {weight}", remedy="give 0 (dense alone) to 1 (lexical alone)")
    return float(weight)
