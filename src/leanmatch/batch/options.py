"""How files are encoded, and which share of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from leanmatch.data.problems import OnError
from leanmatch.errors import UsageError
from leanmatch.models import DOCUMENT, QUERY, PromptOptions

ROLES = (DOCUMENT, QUERY)
PRECISIONS = ("float32", "float16", "int8")
"""Number formats of stored vectors. ``int8``: ``v ~ scale * codes`` with one float32 scale a vector."""
ON_DUPLICATE = ("error", "last")
SLICE_BYTES = 8 << 20
"""Bytes of a text file that make one part, up to the next record's end."""


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among the choices.

    Raises:
        UsageError: with the choices.
    """
    if value not in choices:
        raise UsageError(f"{name} is {value!r}", remedy=f"one of: {', '.join(choices)}")


@dataclass(frozen=True)
class EncodeOptions:
    """How files are encoded.

    Attributes:
        id_column: column of identifiers; one of a usual name where not given. Rows of files without such a
            column are called ``FILE:LINE``.
        text_columns: columns that make the text, joined by a space; of usual names where not given.
        role: texts are ``document`` or ``query``, which decides the prompt.
        prompts: other prompts than the model's own.
        precision: number format of the vectors, one of :data:`PRECISIONS`.
        dimensions: leading dimensions of the vectors to keep, for models that were trained for it
            (Matryoshka); None for what the model's folder says, which is mostly all.
        on_error: ``raise`` at a bad row, or ``skip`` it and count it.
        on_duplicate: an identifier that comes twice is an ``error``, or the ``last`` row counts.
        delimiter: of CSV and TSV files; found by itself where not given.
        slice_bytes: see :data:`SLICE_BYTES`.
    """

    id_column: str | None = None
    text_columns: tuple[str, ...] = ()
    role: str = DOCUMENT
    prompts: PromptOptions = field(default_factory=PromptOptions)
    precision: str = "float32"
    on_error: OnError = "raise"
    on_duplicate: str = "error"
    delimiter: str | None = None
    slice_bytes: int = SLICE_BYTES
    dimensions: int | None = None

    def __post_init__(self) -> None:
        one_of("role", self.role, ROLES)
        one_of("precision", self.precision, PRECISIONS)
        one_of("on_error", self.on_error, get_args(OnError))
        one_of("on_duplicate", self.on_duplicate, ON_DUPLICATE)
        if self.dimensions is not None and self.dimensions < 1:
            raise UsageError(f"dimensions is {self.dimensions}", remedy="give 1 or more")
        if self.slice_bytes < 1:
            raise UsageError(f"slice_bytes is {self.slice_bytes}", remedy="give 1 or more")


@dataclass(frozen=True)
class Shard:
    """The share ``index`` (from 0) of ``count`` shares of the slices.

    >>> Shard(1, 3).of([10, 11, 12, 13, 14])
    [11, 14]
    """

    index: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise UsageError(
                f"shard {self.index} of {self.count}",
                remedy=f"shards count from 0: 0/{self.count} to {self.count - 1}/{self.count}"
                if self.count > 0
                else "there must be at least one shard",
            )

    def of(self, slices: list[int]) -> list[int]:
        """The slices of this share: every ``count``-th, from the ``index``-th on."""
        return slices[self.index :: self.count]

    @classmethod
    def parse(cls, text: str, environment: Mapping[str, str] = os.environ) -> Shard:
        """``i/n``; ``slurm`` for a Slurm job array; ``kubernetes/n`` for an indexed Kubernetes Job.

        Slurm sets ``SLURM_ARRAY_TASK_ID``, ``SLURM_ARRAY_TASK_MIN`` and ``SLURM_ARRAY_TASK_COUNT``;
        Kubernetes sets ``JOB_COMPLETION_INDEX`` and not the number of completions.

        Raises:
            UsageError: another text, or a variable that is missing.

        >>> Shard.parse("2/8"), Shard.parse("kubernetes/4", {"JOB_COMPLETION_INDEX": "3"})
        (Shard(index=2, count=8), Shard(index=3, count=4))
        """

        def variable(name: str) -> int:
            value = environment.get(name, "")
            if not value.isdigit():
                raise UsageError(
                    f"the shard {text!r} needs the variable {name}, which is "
                    f"{repr(value) if value else 'not set'}",
                    remedy="run it as a task of a job array, or name the shard, such as 0/8",
                )
            return int(value)

        scheduler, _, count = text.partition("/")
        if text == "slurm":
            first = variable("SLURM_ARRAY_TASK_MIN")
            return cls(variable("SLURM_ARRAY_TASK_ID") - first, variable("SLURM_ARRAY_TASK_COUNT"))
        if scheduler == "kubernetes" and count.isdigit():
            return cls(variable("JOB_COMPLETION_INDEX"), int(count))
        if not (scheduler.isdigit() and count.isdigit()):
            raise UsageError(f"the shard is {text!r}", remedy="write i/n, slurm, or kubernetes/n; e.g. 0/8")
        return cls(int(scheduler), int(count))
