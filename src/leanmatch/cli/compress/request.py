"""What ``leanmatch compress`` was asked for: one typed field an option, as it was typed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CompressRequest:
    """The options of the command; what each means stands in its help.

    ``keep``, ``size``, ``macs`` and ``faster`` are words such as ``99%``, ``10MB`` and ``1.6x``, which
    :mod:`leanmatch.cli.compress.amounts` reads.
    """

    model: str
    data: Path
    output: Path
    task: str
    keep: str | None
    size: str | None
    macs: str | None
    faster: str | None
    workload: str
    menu: bool
    plot: Path | None
    pick: int | None
    spec: Path | None
    start: Path | None
    method: str
    minutes: float | None
    allow_lower: bool
    column: list[str] | None
    texts: Path | None
    text_columns: list[str] | None
    on_error: str
    delimiter: str | None
    batch_size: int
    lr: float | None
    seed: int
    device: str
    resume: bool
    overwrite: bool
