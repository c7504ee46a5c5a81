"""What commands that compare two matchers share: provenance, names, remarks, options, dimensions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from leanmatch.cli.common import say
from leanmatch.cli.prompts import with_prompts
from leanmatch.errors import UsageError

if TYPE_CHECKING:
    from leanmatch.models import PromptOptions

SlicesOption = Annotated[
    str | None,
    typer.Option(
        metavar="COL,...",
        help="A slice for each value of these columns, or 'none'.",
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
    typer.Option("--symmetric/--asymmetric", help="Whether both sides are of one kind."),
]


def provenance_of(model: str) -> dict[str, object] | None:
    """What the model's folder says of its making; None where it is no folder of ours."""
    if not Path(model, "leanmatch.json").is_file():
        return None
    from leanmatch.formats import read_provenance

    provenance: dict[str, object] | None = read_provenance(Path(model))
    return provenance


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


def load_any(model: str, device: str, prompts: PromptOptions) -> Any:
    """An encoder whose tokens can be edited, in float32: the native runtime's, or sentence-transformers'.

    The two give the same numbers up to rounding, and on a CPU the native one takes a fraction of the time. It
    is not used where a GPU is asked for or found, nor for models that it has no code for (that is said).

    Raises:
        UsageError: a prompt name that the model does not have.
    """
    from leanmatch.native import NativeError
    from leanmatch.runtime.architectures import UnsupportedError

    say(f"loading {model}")
    if not wants_gpu(device):
        from leanmatch.runtime import load

        try:
            return with_prompts(load(model, precision="float32", runtime="native"), prompts)
        except (UnsupportedError, NativeError) as error:
            reason = error.problem
    else:
        reason = "it runs on the GPU"
    from leanmatch.formats.reader import load_encoder

    encoder = with_prompts(load_encoder(model, device=device), prompts)
    say(f"{model} runs on sentence-transformers, not on the native runtime: {reason}")
    return encoder


def wants_gpu(device: str) -> bool:
    """Whether ``--device`` names a GPU, or leaves the choice and there is one; torch is loaded to see it."""
    if device != "auto":
        return device != "cpu"
    devices = [file for name in ("nvidia[0-9]*", "dxg", "kfd") for file in Path("/dev").glob(name)]
    if sys.platform == "linux" and not devices:
        return False
    try:
        import torch
    except ModuleNotFoundError:
        return False
    return bool(torch.cuda.is_available())


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
