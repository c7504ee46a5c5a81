"""The one family of errors that leanmatch raises on purpose.

Each message says what was wrong (with the value or shape that was found), where, and what to do
about it. The command line prints the message without a traceback: :class:`UsageError` ends with exit
code 2, every other member with exit code 1.
"""

from __future__ import annotations


class LeanmatchError(Exception):
    """Base of the family.

    Args:
        problem: what was wrong, with the value that was found.
        remedy: what the reader can do about it, in Python; printed after the problem.
        command: what to type on the command line instead, where that is something else.
    """

    def __init__(self, problem: str, *, remedy: str | None = None, command: str | None = None) -> None:
        self.problem = problem
        self.remedy = remedy
        self.command = command
        super().__init__(_message(problem, remedy))

    def for_command_line(self) -> str:
        """The message with the remedy of the command line."""
        return str(self) if self.command is None else _message(self._what(), self.command)

    def _what(self) -> str:
        """What was wrong and where, as the message has it, without the remedy."""
        return str(self).removesuffix(_message("", self.remedy))


def _message(problem: str, remedy: str | None) -> str:
    return problem if remedy is None else f"{problem}\n  remedy: {remedy}"


class UsageError(LeanmatchError):
    """Options that do not exist, contradict one another or are out of range (exit code 2)."""


class DataError(LeanmatchError):
    """Input data that cannot be used as it is.

    Args:
        problem: what was wrong.
        path: the file, where there is one.
        line: line (text formats) or row (Parquet) in that file, counted from 1.
        column: the column's name.
        value: what stood there, shown in Python's repr, shortened to 80 characters.
        remedy: what to do about it, in Python.
        command: what to type on the command line instead, where that is something else.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: object | None = None,
        line: int | None = None,
        column: str | None = None,
        value: object = ...,
        remedy: str | None = None,
        command: str | None = None,
    ) -> None:
        self.path, self.line, self.column, self.value = path, line, column, value
        where = "" if path is None else f"{path}"
        where += "" if line is None else f":{line}" if where else f"row {line}"
        where += "" if column is None else f" column {column!r}" if where else f"column {column!r}"
        text = f"{where}: {problem}" if where else problem
        if value is not ...:
            shown = repr(value)
            text += f" (found {shown if len(shown) <= 80 else shown[:77] + '...'})"
        super().__init__(text, remedy=remedy, command=command)


class ModelError(LeanmatchError):
    """A model, or a folder that should hold one, that cannot be used as asked."""


class FormatError(LeanmatchError):
    """A file or folder that does not follow its format: truncated, out of range, inconsistent."""


class MissingExtraError(LeanmatchError, ImportError):
    """A library that belongs to an extra that is not installed."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        self.library, self.extra = library, extra
        super().__init__(
            f"{purpose} needs {library}, which is not installed",
            remedy=f'pip install "leanmatch[{extra}]"',
        )
