"""How commands read pairs and unlabelled texts.

Columns are those that are named, those that the model's training remembered, or those that are recognized.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanmatch.cli.common import delimiter_for, skipped_lines
from leanmatch.cli.common import say as say_aloud
from leanmatch.errors import UsageError

if TYPE_CHECKING:
    from leanmatch.cli.compress.request import CompressRequest
    from leanmatch.cli.train.request import TrainRequest
    from leanmatch.data import PairTable
    from leanmatch.data.columns.mapping import ColumnMapping


def parse_columns(options: list[str] | None) -> dict[str, str]:
    """``["anchor=query"]`` becomes ``{"anchor": "query"}``, as :func:`leanmatch.data.read_pairs` takes it.

    Raises:
        UsageError: an option without ``=``, or a name of ours that is given twice.
    """
    columns: dict[str, str] = {}
    for option in options or []:
        ours, equals, theirs = (part.strip() for part in option.partition("="))
        if not equals or not ours or not theirs:
            raise UsageError(f"--column is {option!r}", remedy="OURS=THEIRS, e.g. --column anchor=query")
        if ours in columns:
            raise UsageError(
                f"--column names {ours!r} twice: {columns[ours]!r} and {theirs!r}",
                remedy="name one column of the file for each of ours",
            )
        columns[ours] = theirs
    return columns


def read_table(
    file: Path,
    *,
    column: list[str] | None,
    on_error: str,
    delimiter: str | None,
    provenance: Mapping[str, Any] | None = None,
    model: str = "the model",
    say: Callable[[str], None] = say_aloud,
    list_skipped: bool = True,
) -> PairTable:
    """Read pairs, and tell by ``say`` how the columns were read and what was left out.

    Args:
        file: the file or folder.
        column: what ``--column`` says.
        on_error: what ``--on-error`` says.
        delimiter: what ``--delimiter`` says.
        provenance: of the model that the pairs are read for; its columns are those of the table, too.
        model: its name, for messages.
        say: takes a remark.
        list_skipped: whether to list rows that were left out one by one.
    """
    from leanmatch.data import read_pairs

    given = parse_columns(column)
    mark = delimiter_for(file, delimiter)
    remembered = remembered_columns(provenance)
    if remembered and not file.is_dir():
        from leanmatch.data.columns.mapping import columns_for
        from leanmatch.data.readers.pairs import column_names

        names = column_names(file, mark)
        given, remarks = columns_for(names, remembered, given, model=model, path=file)
        for remark in remarks:
            say(remark)

    def tell(mapping: ColumnMapping) -> None:
        for line in mapping.remarks(command=True):
            say(line)

    table = read_pairs(
        file,
        columns=given,
        on_error=on_error,  # type: ignore[arg-type]  # it is checked there
        delimiter=mark,
        tell=tell,
    )
    for line in skipped_lines(table.skipped)[: None if list_skipped else 1]:
        say(line)
    return table


def remembered_columns(provenance: Mapping[str, Any] | None) -> dict[str, str]:
    """Our name to the file's, as the training of a model recorded it."""
    data = (provenance or {}).get("data")
    columns = data.get("columns") if isinstance(data, Mapping) else None
    if not isinstance(columns, Mapping):
        return {}
    return {str(ours): str(theirs) for ours, theirs in columns.items()}


def read_unlabelled(
    file: Path | None, option: str, request: CompressRequest | TrainRequest, say: Callable[[str], None]
) -> list[str]:
    """Read the texts of ``file``; an empty list if it is None.

    Args:
        file: a table of texts, or None.
        option: the command's option for the file, for messages.
        request: names the columns of the text, the separator of fields, and what to do with bad rows.
        say: gets a line for each skipped row.

    Raises:
        UsageError: text columns without a file.
        DataError: the file has no texts or no text column, or a row has no text.
    """
    if file is None:
        if request.text_columns:
            raise UsageError(
                f"--text-column {request.text_columns[0]} names a column of {option}, which is not given",
                remedy=f"give {option} FILE, or name columns of the pairs with --column",
            )
        return []
    from leanmatch.data.readers.items import read_texts

    texts, skipped = read_texts(
        file,
        request.text_columns,
        on_error=request.on_error,  # type: ignore[arg-type]
        delimiter=delimiter_for(file, request.delimiter),
    )
    for line in skipped_lines(skipped):
        say(line)
    return texts
