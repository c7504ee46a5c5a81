"""The columns of a pair table: which names mean something, and how a user's names map onto them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from leanmatch.errors import DataError, UsageError

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
_OFTEN_MEANT = {
    "anchor": ("query", "question", "question1", "sentence1", "text1", "text_a", "source", "left", "title"),
    "positive": (
        "answer",
        "document",
        "question2",
        "sentence2",
        "text2",
        "text_b",
        "target",
        "right",
        "item",
    ),
}


def negative_columns(names: Iterable[str]) -> list[str]:
    """The columns of given negatives, in the order of their numbers (``negative`` first).

    >>> negative_columns(["negative_10", "anchor", "negative_2", "negative"])
    ['negative', 'negative_2', 'negative_10']
    """
    found = [(int(match[1] or -1), name) for name in names if (match := _NEGATIVE.fullmatch(name))]
    return [name for _, name in sorted(found)]


def is_known(name: str) -> bool:
    """Whether a column has a meaning of its own, so that it is no slice column."""
    return name in KNOWN or _NEGATIVE.fullmatch(name) is not None


def guess(wanted: str, names: Sequence[str]) -> str | None:
    """The column that was probably meant by ``wanted``: a usual other name for it, or a similar spelling.

    >>> guess("anchor", ["id", "Query", "doc"])
    'Query'
    """
    lower = {name.casefold(): name for name in names}
    for often in _OFTEN_MEANT.get(wanted, ()):
        if often in lower:
            return lower[often]
    close = difflib.get_close_matches(wanted.casefold(), list(lower), n=1)
    return lower[close[0]] if close else None


def renamed(names: Sequence[str], columns: Mapping[str, str] | None, *, path: object = None) -> list[str]:
    """Our name for each of a file's columns.

    Args:
        names: the file's column names, in order.
        columns: from the user's name to ours, e.g. ``{"query": "anchor"}``.
        path: the file, for messages.

    Raises:
        DataError: a name that the file has not, or a column name that stands twice afterwards.
        UsageError: two columns are to get one name.
    """
    columns = dict(columns or {})
    if len(set(columns.values())) < len(columns):
        raise UsageError(
            f"two columns are to be read as one: {columns}",
            remedy="name one file column for each column of ours",
        )
    shown = ", ".join(names)
    for name, ours in columns.items():
        if name not in names:
            near = guess(name, names)
            raise DataError(
                f"there is no column {name!r} to read as {ours!r}; the columns are: {shown}",
                path=path,
                remedy=f"--column {ours}={near or 'NAME'}, where NAME is one of the columns",
            )
    result = [columns.get(name, name) for name in names]
    for name in result:
        if result.count(name) > 1:
            raise DataError(
                f"column {name!r} stands {result.count(name)} times among the columns {shown}",
                path=path,
                remedy="rename one of them in the file, or read it as another: --column other_name=NAME",
            )
    return result


def require(names: Sequence[str], *, path: object = None) -> None:
    """Refuse a table without the required columns.

    Raises:
        DataError: which columns are missing, which there are, and what to type.
    """
    missing = [name for name in REQUIRED if name not in names]
    if not missing:
        return
    free = [name for name in names if not is_known(name)]
    hints = " ".join(f"--column {name}={guess(name, free) or 'NAME'}" for name in missing)
    raise DataError(
        f"required column{'s' * (len(missing) > 1)} missing: {', '.join(missing)}; "
        f"the columns found are: {', '.join(names) or 'none'}",
        path=path,
        remedy=f"say which of the columns to use: {hints}",
    )
