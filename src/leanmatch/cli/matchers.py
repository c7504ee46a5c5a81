"""What commands that compare two matchers share: provenance, names, remarks, options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from leanmatch.cli.common import say

SlicesOption = Annotated[
    str | None,
    typer.Option(
        metavar="COL,...",
        help="A slice for each value of these columns; 'none'. Default: columns of few values.",
    ),
]
HoldOutOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="COL=VALUE", help="Rows out of distribution. Default: what MODEL was trained without."
    ),
]
AfterOption = Annotated[
    str | None, typer.Option(metavar="DATE", help="Rows from this date on are out of distribution, too.")
]
SplitOption = Annotated[
    str | None,
    typer.Option(help="Rows to use: all, train, valid or test. Default: the test rows, where there are any."),
]
SymmetricOption = Annotated[
    bool | None,
    typer.Option("--symmetric/--asymmetric", help="Whether both sides are of one kind. Default: found out."),
]


def provenance_of(model: str) -> dict[str, object] | None:
    """What the model's folder says of its making; None where it is no folder of ours."""
    if not Path(model, "leanmatch.json").is_file():
        return None
    from leanmatch.formats import read_provenance

    found: dict[str, object] | None = read_provenance(Path(model))
    return found


def slice_columns(option: str | None) -> tuple[str, ...] | Literal["auto"]:
    """``--slices``: columns by comma; ``none`` for none; left out for columns of few values."""
    if option is None:
        return "auto"
    return () if option == "none" else tuple(name.strip() for name in option.split(",") if name.strip())


def labels(model: str, rival: str | None, *, by_base: bool) -> tuple[str, str]:
    """Short names for tables: the last part of each path; a remark where both would be the same."""
    own = Path(model).name or model
    other = "base" if by_base or rival is None else Path(rival).name or rival
    return (own, other) if own != other else (f"{own} (model)", f"{other} (against)")


def load_any(model: str, device: str) -> Any:
    """An encoder whose tokens can be edited: sentence-transformers, or the runtime where it is missing."""
    from leanmatch.errors import MissingExtraError
    from leanmatch.formats import load_encoder

    say(f"loading {model}")
    try:
        return load_encoder(model, device=device)
    except MissingExtraError:
        from leanmatch.runtime import load

        say("sentence-transformers is not installed: leanmatch's own runtime encodes")
        return load(model)
