"""What ``encode`` is given: one text, a collection of texts, or a stream of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from leanmatch.errors import DataError, UsageError


def is_single(inputs: Any) -> bool:
    """Whether this is one text. Raises where it is neither a text nor something to read texts from.

    Raises:
        DataError: an object of another kind.
    """
    if isinstance(inputs, str):
        return True
    if not isinstance(inputs, Iterable) or isinstance(inputs, bytes | dict):
        raise DataError(
            f"encode was given a {type(inputs).__name__}", value=inputs, remedy="give a text or texts"
        )
    return False


def is_stream(inputs: Any) -> bool:
    """Whether texts can be read only once, one after the other: iterators and generators."""
    return not hasattr(inputs, "__len__")


def as_list(inputs: Any) -> list[str]:
    """The texts of a collection: a list, tuple, array, column or series.

    Raises:
        DataError: an entry that is not text.
    """
    texts = inputs if type(inputs) is list else list(inputs)
    _check(texts, 0)
    return texts


def windows(inputs: Iterable[Any], size: int) -> Iterator[list[str]]:
    """The texts in lists of ``size``, read no further than they are asked for.

    Raises:
        DataError: an entry that is not text; the row is counted over the whole input.
        UsageError: ``size`` below 1.
    """
    if size < 1:
        raise UsageError(f"window is {size}", remedy="give 1 or more")
    rows, start = iter(inputs), 0
    while window := list(islice(rows, size)):
        _check(window, start)
        yield window
        start += len(window)


def _check(texts: list[Any], start: int) -> None:
    for row, text in enumerate(texts, start + 1):
        if not isinstance(text, str):
            raise DataError(f"a text is a {type(text).__name__}", line=row, value=text, remedy="give str")
