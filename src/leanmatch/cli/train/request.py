"""What ``leanmatch train`` was asked for: where things are, and the options that were typed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from leanmatch.errors import UsageError


@dataclass(frozen=True)
class TrainRequest:
    """The options of the command; what each means stands in its help.

    The mappings hold what a configuration file may set as well, under the names that it has there. None, or
    an empty list, is an option that was not typed.

    Attributes:
        data, column, on_error, delimiter: the table, and how it is read.
        target, text_columns: unlabelled texts, and the columns of that file that hold them.
        output, overwrite, resume: where the model goes.
        as_json: whether stdout is for one JSON document, so that the verdict goes to stderr.
        config: the configuration file.
        options: fields of :class:`leanmatch.training.TrainOptions`.
        regularizer: fields of its regularizer.
        schedule: fields of its schedule.
        prompts: fields of its prompts.
        split: fields of :class:`leanmatch.data.SplitOptions`.
    """

    data: Path
    output: Path
    column: list[str] | None = None
    on_error: str = "raise"
    delimiter: str | None = None
    target: Path | None = None
    text_columns: list[str] | None = None
    overwrite: bool = False
    resume: bool = True
    as_json: bool = False
    config: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)
    regularizer: dict[str, Any] = field(default_factory=dict)
    schedule: dict[str, Any] = field(default_factory=dict)
    prompts: dict[str, Any] = field(default_factory=dict)
    split: dict[str, Any] = field(default_factory=dict)


def number_or_auto(option: str, words: str | None) -> float | str | None:
    """A number, or ``auto`` as it is.

    Raises:
        UsageError: neither, or no finite number.

    >>> number_or_auto("--weight", "0.3"), number_or_auto("--weight", "auto")
    (0.3, 'auto')
    """
    if words is None or words == "auto":
        return words
    try:
        number = float(words)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{option} must be a finite number or auto (found {words!r})")
    return number
