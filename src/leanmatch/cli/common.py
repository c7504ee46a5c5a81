"""What all commands share: results to stdout, progress to stderr, errors to exit codes."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from leanmatch.cli.help import GroupedCommand, PlainGroup
from leanmatch.cli.terminal import safe_console, visible, visible_json
from leanmatch.errors import LeanmatchError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from leanmatch.data import ItemTable
    from leanmatch.data.problems import SkippedRow
    from leanmatch.types import JsonValue  # loads numpy, which --help need not wait for

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
FULL_DISK = ("No space left on device", "Disk quota exceeded", "file write failed")
"""What the operating system, safetensors, torch and ONNX say when a disk is full."""
UNLIMITED = 100_000
"""Columns of what is written to no terminal."""
SKIPPED_SHOWN = 10
"""Rows left out by ``--on-error skip`` that are listed one by one."""

_documents: list[TextIO] = []
"""The real stdout, once it is reserved."""
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


class Commands(typer.Typer):
    """A group of commands whose help shows options in groups, and whose numbers are finite.

    ``nan`` and ``inf`` are usage errors in every option.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"cls": PlainGroup, **settings})

    def command(  # type: ignore[override]
        self, *names: Any, **settings: Any
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register a command, as :meth:`typer.Typer.command` does."""
        register = super().command(*names, **{"cls": GroupedCommand, **settings})
        return lambda function: register(_with_finite_numbers(function))


def _with_finite_numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def checked(**values: Any) -> Any:
        for name, value in values.items():
            for number in value if isinstance(value, list | tuple) else (value,):
                if isinstance(number, float) and not math.isfinite(number):
                    raise typer.BadParameter(
                        f"{number} is no finite number", param_hint=f"--{name.replace('_', '-')}"
                    )
        return function(**values)

    return checked


def stdout_console() -> Console:
    """The console for results.

    Tables have the width of the terminal. Where there is none (a pipe, a file), nothing is cut or folded,
    unless the variable ``COLUMNS`` sets a width.
    """
    console = safe_console(soft_wrap=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = UNLIMITED
    return console


def stderr_console() -> Console:
    """The console for progress and remarks."""
    return safe_console(stderr=True)


def say(remark: str) -> None:
    """A remark on stderr, as it is: brackets are no markup and lines are not cut."""
    stderr_console().print(remark, markup=False, highlight=False, soft_wrap=True)


def say_skipped(skipped: Sequence[SkippedRow]) -> None:
    """Tell what ``--on-error skip`` left out."""
    for line in skipped_lines(skipped):
        say(line)


def skipped_lines(skipped: Sequence[SkippedRow]) -> list[str]:
    """What ``--on-error skip`` left out: a count, then file, line and reason of the first rows."""
    if not skipped:
        return []
    lines = [f"{len(skipped):,} bad {'row' if len(skipped) == 1 else 'rows'} skipped"]
    for row in skipped[:SKIPPED_SHOWN]:
        column = f" column {row.column!r}" if row.column else ""
        lines.append(f"  {row.path}:{row.line}{column}: {row.problem} (found {row.value})")
    if len(skipped) > SKIPPED_SHOWN:
        lines.append(f"  and {len(skipped) - SKIPPED_SHOWN:,} more")
    return lines


def say_item_columns(table: ItemTable, *, named: bool) -> None:
    """Tell which columns were read as the id and the text, unless they were named or are what all expect."""
    from leanmatch.data.columns.items import item_remark

    remark = item_remark(table.id_column, table.text_columns)
    if remark is not None and not named:
        say(remark)


def delimiter_for(file: Path, option: str | None) -> str | None:
    """The delimiter that a reader is given; an unusual one that was found in the file is told on stderr.

    Args:
        file: the table.
        option: what ``--delimiter`` says.

    Raises:
        UsageError: an option that is no delimiter.
        DataError: gzip data that is damaged.
    """
    from leanmatch.data.readers.delimited import DELIMITERS, delimiter_named, sniff_delimiter
    from leanmatch.data.readers.sources import FORMATS

    chosen = delimiter_named(option)
    stem = file.with_suffix("") if file.suffix.lower() == ".gz" else file
    if chosen is None and FORMATS.get(stem.suffix.lower()) == "csv" and file.is_file():
        sniffed = sniff_delimiter(file)
        if sniffed != ",":
            say(f"{file}: fields are separated by a {DELIMITERS[sniffed]} (--delimiter sets another)")
            return sniffed
    return chosen


def text_lines(content: bytes) -> list[str]:
    r"""The lines of UTF-8 text, by line feeds alone: texts may hold what ``str.splitlines`` cuts at.

    Raises:
        UnicodeDecodeError: it is something else.

    >>> text_lines("a\u2028b\r\nc\n".encode())
    ['a\u2028b', 'c']
    """
    lines = content.decode("utf-8-sig").replace("\r\n", "\n").split("\n")
    return lines[:-1] if not lines[-1] else lines


def reserve_stdout() -> None:
    """From here on, only :func:`print_json` writes to stdout; what libraries print there goes to stderr."""
    if not _documents and sys.stdout is not None:
        sys.stdout.flush()
        encoding, errors = sys.stdout.encoding, sys.stdout.errors
        _documents.append(os.fdopen(os.dup(1), "w", encoding=encoding, errors=errors))
        os.dup2(2, 1)


def print_json(value: JsonValue) -> None:
    """Write one JSON document to stdout. NaN is refused: it is not JSON."""
    stream = _documents[0] if _documents else sys.stdout
    stream.write(visible_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)) + "\n")
    stream.flush()


@contextmanager
def reported_errors(*, resumes: bool = False) -> Iterator[None]:
    """Turn leanmatch's own errors into a message on stderr and an exit code, without a traceback.

    Args:
        resumes: whether the command, given again after Ctrl-C, keeps what it had done.
    """
    try:
        yield
    except LeanmatchError as error:
        typer.echo(visible(f"error: {error.for_command_line()}"), err=True)
        raise typer.Exit(EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED) from error
    except KeyboardInterrupt:
        typer.echo(f"interrupted{'; give the same command again to resume' if resumes else ''}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except Exception as error:
        if from_full_disk(error):
            file = getattr(error, "filename", None) or "a file"
            words = (
                f"{file} could not be written: the disk is full, or the quota is used up\n"
                "  remedy: make room or name another place, then give the same command again"
            )
        elif isinstance(error, OSError) and error.errno is not None:
            words = str(error)
        else:
            raise
        typer.echo(visible(f"error: {words}"), err=True)
        raise typer.Exit(EXIT_FAILED) from error


def from_full_disk(error: BaseException | None) -> bool:
    """Whether an error says that the disk is full. Those of libraries carry no ``errno``.

    >>> from_full_disk(RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"))
    True
    >>> from_full_disk(RuntimeError("no"))
    False
    """
    while error is not None:
        if any(words in str(error) for words in FULL_DISK):
            return True
        error = error.__cause__ or error.__context__
    return False
