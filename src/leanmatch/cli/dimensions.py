"""``--dimensions``: how many of the leading numbers of a model's vectors are kept."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from leanmatch.errors import UsageError

DimensionsOption = Annotated[
    int | None,
    typer.Option(
        "--dimensions",
        metavar="N",
        help="Keep the first N dimensions of the vectors (for models trained with --dimensions). "
        "Default: all, or those of the catalogue.",
        show_default=False,
    ),
]


def dimension_list(text: str | None) -> tuple[int, ...] | None:
    """The numbers of a list such as ``384,192,96``, each once, the largest first; None without an option.

    Raises:
        UsageError: something that is no whole number from 1, or nothing.

    >>> dimension_list("96, 384,192")
    (384, 192, 96)
    """
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(
            f"--dimensions is {text!r}", remedy="give whole numbers from 1, with commas: --dimensions 384,192"
        )
    return tuple(sorted({int(part) for part in parts}, reverse=True))


def with_dimensions(encoder: Any, dimensions: int | None) -> Any:
    """The encoder, which keeps so many dimensions of its vectors from now on.

    Raises:
        UsageError: fewer than 1, or more than the model has.
    """
    if dimensions is None:
        return encoder
    check_dimensions(encoder, (dimensions,))
    encoder.truncate_dim = dimensions
    return encoder


def check_dimensions(encoder: Any, dimensions: tuple[int, ...]) -> None:
    """Refuse dimensions that a model does not have.

    Raises:
        UsageError: fewer than 1, or more than the model has.
    """
    whole = int(encoder.whole_dimension)
    for number in dimensions:
        if not 1 <= number <= whole:
            raise UsageError(
                f"--dimensions {number}, and the vectors of {encoder.name} have {whole} dimensions",
                remedy=f"give 1 to {whole}",
            )
