"""Bad rows: raised at once, or skipped, counted and listed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias, get_args

from leanmatch.errors import DataError, UsageError
from leanmatch.types import JsonValue

OnError: TypeAlias = Literal["raise", "skip"]
"""What to do about a bad row."""


@dataclass(frozen=True, order=True)
class SkippedRow:
    """One row that could not be used.

    Attributes:
        path: the file.
        line: physical line of a text file (the header is line 1), row of a Parquet file, counted from 1.
        column: the column at fault; empty where the row as a whole is at fault.
        value: what stood there, in Python's repr, at most 80 characters.
        problem: what is wrong with it.
        remedy: what to do about it.
    """

    path: str
    line: int
    column: str
    value: str
    problem: str
    remedy: str

    def to_json(self) -> JsonValue:
        """As a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Problem:
    """A problem with one row, before it is known whether it stops the work."""

    line: int
    column: str
    value: object
    problem: str
    remedy: str


def shortened(value: object) -> str:
    """Python's repr, at most 80 characters."""
    text = repr(value[:100]) if isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class Problems:
    """Collects the bad rows of one source, or raises the first.

    Args:
        path: the file, for messages.
        on_error: ``"raise"`` stops at the first bad row, ``"skip"`` keeps a list.
    """

    def __init__(self, path: object, on_error: OnError) -> None:
        if on_error not in get_args(OnError):
            raise UsageError(f"on_error is {on_error!r}", remedy=f"one of: {', '.join(get_args(OnError))}")
        self.path, self.on_error = path, on_error
        self.skipped: list[SkippedRow] = []

    def report(self, problems: Iterable[Problem]) -> None:
        """Take the problems of one batch of rows: at most one a line is kept, in the order of lines.

        Raises:
            DataError: for the first of them, where ``on_error`` is ``"raise"``.
        """
        by_line: dict[int, Problem] = {}
        for problem in problems:
            by_line.setdefault(problem.line, problem)
        for line in sorted(by_line):
            bad = by_line[line]
            if self.on_error == "raise":
                raise DataError(
                    bad.problem,
                    path=self.path,
                    line=bad.line,
                    column=bad.column or None,
                    value=bad.value,
                    remedy=f"{bad.remedy}; or leave such rows out: on_error='skip'",
                    command=f"{bad.remedy}; or leave such rows out: --on-error skip",
                )
            self.skipped.append(
                SkippedRow(str(self.path), line, bad.column, shortened(bad.value), bad.problem, bad.remedy)
            )
