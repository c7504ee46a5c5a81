"""The columns of a pair table: which names mean something."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

from leanmatch.errors import DataError

REQUIRED = ("anchor", "positive")
SPLIT_NAMES = {
    "train": "train",
    "valid": "valid",
    "test": "test",
    "val": "valid",
    "dev": "valid",
    "validation": "valid",
}
"""What may stand in ``split``, and what it is read as."""
SPLITS = ("train", "valid", "test")
KNOWN = (*REQUIRED, "negative", "label", "split", "timestamp", "anchor_id", "positive_id", "relevance")
"""Columns with a meaning of their own, besides ``negative_1``, ``negative_2``, ...; others can be slices."""

_NEGATIVE = re.compile(r"negative(?:_(\d+))?")


def negative_columns(names: Iterable[str]) -> list[str]:
    """The columns of given negatives, in the order of their numbers (``negative`` first).

    >>> negative_columns(["negative_10", "anchor", "negative_2", "negative"])
    ['negative', 'negative_2', 'negative_10']
    """
    numbered = [(int(match[1] or -1), name) for name in names if (match := _NEGATIVE.fullmatch(name))]
    return [name for _, name in sorted(numbered)]


def is_known(name: str) -> bool:
    """Whether a column has a meaning of its own, so that it is no slice column."""
    return name in KNOWN or _NEGATIVE.fullmatch(name) is not None


def guess(wanted: str, names: Sequence[str]) -> str | None:
    """The column that was probably meant by ``wanted``, by a similar spelling.

    >>> guess("titel", ["id", "Title", "doc"])
    'Title'
    """
    lower = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(wanted.casefold(), list(lower), n=1)
    return lower[close[0]] if close else None


def require(names: Sequence[str], *, path: object = None) -> None:
    """Refuse a table in memory without the required columns.

    Raises:
        DataError: which columns are missing, and which there are.
    """
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise DataError(
            f"required column{'s' * (len(missing) > 1)} missing: {', '.join(missing)}; "
            f"the columns found are: {', '.join(names) or 'none'}",
            path=path,
            remedy=f"rename the columns of the texts to {' and '.join(missing)}",
        )
