"""Arguments and options that the commands of ``leanmatch index`` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

CatalogueArgument = Annotated[Path, typer.Argument(metavar="CATALOGUE", help="The catalogue's folder.")]
OutputOption = Annotated[
    Path, typer.Option("-o", "--output", metavar="CATALOGUE", help="The catalogue's folder.")
]
KindOption = Annotated[
    str | None,
    typer.Option("--kind", help="auto (exact up to 200,000 items), exact, ivf or hnsw."),
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace a catalogue; texts that stay are not encoded again.")
]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="The model's folder, where it has moved.", show_default=False)
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda, where torch encodes.")]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Precision of encoding: stored (a new catalogue's default), float32, bfloat16 or int8; "
        "changes keep the catalogue's.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
