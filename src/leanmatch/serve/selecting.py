"""A request's filter, in either form, to the rows that it leaves."""

from __future__ import annotations

import math
from threading import Event
from typing import Any

from leanmatch.index import Catalogue
from leanmatch.index.filters.expression import filter_from_json
from leanmatch.index.filters.text import parse_filter
from leanmatch.serve.engine import Selected

SELECTED_ON_LOOP = 20_000_000
"""Characters of a filter times rows: up to this, a filter is answered without a thread."""

COUNTED_CHARACTERS = 2_000


def select(given: dict[str, Any] | str, catalogue: Catalogue, over: Event | None = None) -> Selected:
    """Read a filter in either form, and find the rows that it leaves.

    Args:
        given: the filter.
        catalogue: the generation.
        over: ends the work when it is set.

    Raises:
        UsageError: it is none, or does not fit the columns.
        TimeoutError: it is over.
    """

    def check() -> None:
        if over is not None and over.is_set():
            raise TimeoutError

    check()
    expression = parse_filter(given) if isinstance(given, str) else filter_from_json(given)
    return Selected(expression, catalogue, catalogue.select(expression, check))


def takes_long(given: Any, rows: int) -> bool:
    """Whether reading a filter and selecting among so many rows may take more than a millisecond or so."""
    return _size(given) * (rows + 1_000) > SELECTED_ON_LOOP


def _size(given: Any) -> float:
    """About how many characters a filter has; infinite where it is not worth counting."""
    if isinstance(given, str):
        return len(given)
    size, rest = 0, [given]
    while rest:
        value = rest.pop()
        size += len(value) if isinstance(value, str) else 10
        if size > COUNTED_CHARACTERS:
            return math.inf
        if isinstance(value, dict):
            rest += [*value, *value.values()][:COUNTED_CHARACTERS]
        elif isinstance(value, list):
            rest += value[:COUNTED_CHARACTERS]
    return size
