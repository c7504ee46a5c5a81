"""Unlabelled texts that a command takes beside its pairs: ``train --target``, ``compress --texts``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from leanmatch.cli.common import delimiter_for, skipped_lines
from leanmatch.errors import UsageError


def read_unlabelled(
    file: Path | None,
    text_columns: Sequence[str] | None,
    *,
    option: str,
    on_error: Any,
    delimiter: str | None,
    say: Callable[[str], None],
) -> list[str]:
    """Read the texts of ``file``; an empty list if it is None.

    Args:
        file: a table of texts, or None.
        text_columns: columns that are joined into one text; None: columns of a usual name.
        option: the command's option for the file, for messages.
        on_error: ``"raise"`` or ``"skip"``.
        delimiter: of CSV.
        say: gets a line for each skipped row.

    Raises:
        UsageError: text columns without a file.
        DataError: the file has no texts or no text column, or a row has no text.
    """
    if file is None:
        if text_columns:
            raise UsageError(
                f"--text-column {text_columns[0]} names a column of {option}, which is not given",
                remedy=f"give {option} FILE, or name columns of the pairs with --column",
            )
        return []
    from leanmatch.data.readers.items import read_texts

    texts, skipped = read_texts(
        file, text_columns, on_error=on_error, delimiter=delimiter_for(file, delimiter)
    )
    for line in skipped_lines(skipped):
        say(line)
    return texts
