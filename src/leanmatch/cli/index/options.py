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
    str | None, typer.Option("--model", help="The model's folder, if it has moved.", show_default=False)
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda, where torch encodes.")]
PrecisionOption = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="Precision of encoding: stored, float32, bfloat16 or int8. "
        "Default: the catalogue's; stored in a new one.",
    ),
]
HybridOption = Annotated[
    bool | None,
    typer.Option(
        "--hybrid/--no-hybrid",
        help="Store the items' terms, so that part numbers are found by their letters (extra hybrid).",
        show_default=False,
    ),
]
HybridSearchOption = Annotated[
    bool | None,
    typer.Option(
        "--hybrid/--no-hybrid",
        help="Also search by terms. Default: if the catalogue was built with --hybrid.",
        show_default=False,
    ),
]
LexicalWeightOption = Annotated[
    float | None,
    typer.Option(
        "--lexical-weight",
        help="Weight of the terms, 0 to 1. Default: 0.5 if the query holds a part number, else 0.2.",
        min=0,
        max=1,
        show_default=False,
    ),
]
RerankOption = Annotated[
    str | None,
    typer.Option(
        "--rerank",
        metavar="MODEL",
        help="Rerank the best items with this cross-encoder (folder or name).",
        show_default=False,
    ),
]
RerankTopOption = Annotated[
    int, typer.Option("--rerank-top", help="How many items of each search are reranked.", min=1)
]
RerankWeightOption = Annotated[
    float,
    typer.Option(
        "--rerank-weight",
        help="Weight of the cross-encoder's score against the search's; 1: the cross-encoder alone.",
        min=0,
        max=1,
    ),
]
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
