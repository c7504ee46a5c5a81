"""Which columns of a file of items are the identifier and the text, where nobody names them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from leanmatch.data.columns.names import guess
from leanmatch.data.columns.roles import plain_name
from leanmatch.data.readers.plain_values import as_list
from leanmatch.errors import DataError

ID_COLUMNS = ("_id", "id", "item_id", "uid")
"""What is taken for the identifier where no column is named: the first that is there."""

OTHER_ID_COLUMNS = (
    *("sku", "product_id", "asin", "gtin", "ean", "article_id", "offer_id", "listing_id", "doc_id"),
    *("document_id", "docid", "passage_id", "corpus_id", "pid", "uuid", "key", "item_no", "item_number"),
)
"""Taken as well, where one alone is there and names each row once; lower case, ``_`` between words."""

TEXT_COLUMNS = (("title", "text"), ("text",), ("title",), ("name",), ("item",), ("content",))
"""What is taken for the text where no column is named: the first choice whose columns are all there."""

OTHER_TEXT_COLUMNS = (
    *("product_title", "product_name", "item_title", "item_name", "offer_title", "listing_title"),
    *("document", "passage", "product", "headline", "question"),
)
"""Taken as well, where one alone is there."""


def choose_id(
    path: object, columns: Mapping[str, Sequence[Any]], named: str | None, *, distinct: bool = True
) -> str | None:
    """The column of identifiers: the one that is named, or one of a usual name; None where there is none.

    Args:
        path: the file, for messages.
        columns: values by column name.
        named: the column that is named.
        distinct: whether a column of another usual name than ``id`` must name each row once.

    Raises:
        DataError: the column that is named is not there, or several may be meant.
    """
    if named:
        check_columns(path, list(columns), [named])
        return named
    for name in ID_COLUMNS:
        if name in columns:
            return name
    for usual in (ID_COLUMNS, OTHER_ID_COLUMNS):
        named_so = [name for name in columns if plain_name(name) in usual]
        likely = [name for name in named_so if not distinct or _names_rows(columns[name])]
        if len(likely) > 1:
            raise DataError(
                f"several columns may be the identifier: {', '.join(likely)}",
                path=path,
                remedy=f"name one: {' or '.join(f'id_column={name!r}' for name in likely)}",
                command=f"name one: {' or '.join(f'--id-column {shlex.quote(name)}' for name in likely)}",
            )
        if likely:
            return likely[0]
    return None


def need_id(path: object, columns: Mapping[str, Sequence[Any]], named: str | None, parameter: str) -> str:
    """:func:`choose_id`, where there must be one.

    Args:
        path: the file, for messages.
        columns: values by column name.
        named: the column that is named.
        parameter: what names it in Python.

    Raises:
        DataError: no column is named, and none has a usual name.
    """
    chosen = choose_id(path, columns, named, distinct=False)
    if chosen is not None:
        return chosen
    example = next(iter(columns), "NAME")
    raise DataError(
        f"there is no column of identifiers; the columns found are: {', '.join(columns)}",
        path=path,
        remedy=f"name it, e.g. {parameter}={example!r}",
        command=f"name it, e.g. --id-column {shlex.quote(example)}",
    )


def usual_text(names: Iterable[str]) -> tuple[str, ...]:
    """The columns that make the text, by their usual names; none where it is not clear which."""
    names = list(names)
    for choice in TEXT_COLUMNS:
        if all(name in names for name in choice):
            return choice
    plain = {plain_name(name): name for name in names}
    for choice in TEXT_COLUMNS:
        if all(name in plain for name in choice):
            return tuple(plain[name] for name in choice)
    likely = [plain[name] for name in OTHER_TEXT_COLUMNS if name in plain]
    return (likely[0],) if len(likely) == 1 else ()


def choose_text(path: object, names: Sequence[str], identifier: str | None) -> tuple[str, ...]:
    """The columns that make the text: of a usual name, or the only one beside the identifier.

    Raises:
        DataError: no column is known to hold the text.
    """
    usual = usual_text(name for name in names if name != identifier)
    if usual:
        return usual
    others = [name for name in names if name != identifier]
    if len(others) == 1:
        return (others[0],)
    example = next(iter(others), "NAME")
    raise DataError(
        f"no column is known to hold the text; the columns found are: {', '.join(names)}",
        path=path,
        remedy=f"name one or several of them as the text, e.g. text_columns=[{example!r}]",
        command=f"name one or several of them as the text, e.g. --text-column {shlex.quote(example)}",
    )


def item_remark(identifier: str | None, text: Sequence[str]) -> str | None:
    """How a file of items was read, for the command line; None where both have their standard names."""
    if identifier in ID_COLUMNS and tuple(text) in TEXT_COLUMNS:
        return None
    name = "row numbers" if identifier is None else identifier
    return f"Reading {name} as the id, {' + '.join(text)} as the text; --id-column, --text-column to change"


def check_columns(path: object, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse columns that a file has not.

    Raises:
        DataError: the first of them, with the columns that there are.
    """
    for name in wanted:
        if name not in names:
            near = guess(name, names)
            hint = f"did you mean {near!r}? " if near else ""
            raise DataError(
                f"there is no column {name!r}; the columns found are: {', '.join(names)}",
                path=path,
                remedy=f"{hint}name it: id_column= or text_columns=",
                command=f"{hint}name it: --id-column or --text-column",
            )


def _names_rows(values: Sequence[Any]) -> bool:
    """Whether every row has its own value."""
    listed = as_list("", values, range(len(values)), [])
    texts = {str(value) for value in listed if value is not None and str(value).strip()}
    return len(texts) == len(listed)
