"""``leanmatch recommend``: the best items of a catalogue for one or more texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanmatch.cli.common import delimiter_for, print_json, reported_errors, say, say_skipped, stdout_console
from leanmatch.cli.data.command import DelimiterOption, IdColumnOption, OnErrorOption, TextColumnsOption
from leanmatch.cli.terminal import visible
from leanmatch.errors import DataError, UsageError

if TYPE_CHECKING:
    from leanmatch.data import ItemTable
    from leanmatch.formats import Encoder
    from leanmatch.index import Recommendation
    from leanmatch.types import Vectors

SHOW_PROGRESS_FROM = 2_000
"""Catalogues of at least this many items show a bar while they are encoded."""


def recommend(
    model: Annotated[
        str, typer.Argument(help="Model folder or name; or a catalogue made by leanmatch index.")
    ],
    items: Annotated[
        str,
        typer.Argument(
            metavar="ITEMS",
            help="CSV, TSV, JSONL or Parquet with id and text; with a catalogue, the first TEXT.",
        ),
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT...", help="What to recommend for; - reads lines from stdin."),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Items a text.", min=1)] = 10,
    where: Annotated[
        str | None,
        typer.Option("--where", help="With a catalogue: a filter, such as 'price < 20 and shop = \"A\"'."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Texts a forward pass.", min=1)] = 64,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    vectors: Annotated[
        Path | None,
        typer.Option("--vectors", help="Keep the catalogue's vectors in this .npz file and reuse them."),
    ] = None,
    include_self: Annotated[
        bool, typer.Option("--include-self", help="Also recommend items whose text is the query itself.")
    ] = False,
    id_column: IdColumnOption = None,
    text_columns: TextColumnsOption = None,
    on_error: OnErrorOption = "raise",
    delimiter: DelimiterOption = None,
) -> None:
    """Recommend the K items that match each TEXT best: MODEL ITEMS TEXT..., or CATALOGUE TEXT..."""
    with reported_errors():
        if Path(model, "manifest.json").is_file():
            of_items = {
                "--vectors": vectors,
                "--id-column": id_column,
                "--text-column": text_columns,
                "--on-error": on_error != "raise",
                "--delimiter": delimiter,
            }
            for name in (name for name, value in of_items.items() if value):
                raise UsageError(f"{name} does not go with a catalogue", remedy="leave it out")
            queries = _queries([items, *(texts or [])])
            found, name, count = _from_catalogue(Path(model), queries, k, where, device, include_self)
            skipped = 0
        else:
            if where is not None:
                raise UsageError("--where needs a catalogue", remedy="make one with leanmatch index")
            if not texts:
                raise UsageError(
                    "no TEXT is given, or the first argument is no catalogue",
                    remedy="leanmatch recommend MODEL ITEMS TEXT..., or CATALOGUE TEXT...",
                )
            queries = _queries(texts)
            from leanmatch.data import read_items
            from leanmatch.formats import load_encoder
            from leanmatch.index import Recommender

            table = read_items(
                items,
                id_column=id_column,
                text_columns=text_columns,
                on_error=on_error,  # type: ignore[arg-type]
                delimiter=delimiter_for(Path(items), delimiter),
            )
            say_skipped(table.skipped)
            encoder = load_encoder(model, device)
            made = _item_vectors(encoder, table, vectors, batch_size)
            recommender = Recommender(encoder, table, vectors=made)
            found = recommender.recommend(queries, k, exclude_self=not include_self)
            name, count, skipped = model, len(table), len(table.skipped)
        if as_json:
            print_json(
                {
                    "model": name,
                    "items": count,
                    "skipped": skipped,
                    "queries": [
                        {"text": text, "recommendations": [one.to_json() for one in rows]}
                        for text, rows in zip(queries, found, strict=True)
                    ],
                }
            )
        else:
            for text, rows in zip(queries, found, strict=True):
                _print_table(text, rows)


def _from_catalogue(
    folder: Path, queries: list[str], k: int, where: str | None, device: str, include_self: bool
) -> tuple[list[list[Recommendation]], str, int]:
    from leanmatch.index import Catalogue, parse_filter
    from leanmatch.index.encoders import encoder_for

    expression = None if where is None else parse_filter(where)
    catalogue = Catalogue.open(folder)
    if expression is not None:
        catalogue.select(expression)  # refused before the model is loaded
    encoder = encoder_for(catalogue.manifest, None, device=device)
    found = catalogue.recommend(encoder, queries, k, filter=expression, exclude_self=not include_self)
    return found, catalogue.manifest.model.name, len(catalogue)


def _queries(texts: list[str]) -> list[str]:
    queries: list[str] = []
    for text in texts:
        if text != "-":
            queries.append(text)
            continue
        try:
            lines = sys.stdin.buffer.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"stdin is not UTF-8: {error}", remedy="convert it to UTF-8") from error
        queries.extend(line for line in lines if line.strip())
    if not queries:
        raise UsageError("there is no text to recommend for: stdin was empty", remedy="give a text, or lines")
    for text in queries:
        if not text.strip():
            raise UsageError("a TEXT is blank", remedy="give a text")
    return queries


def _item_vectors(encoder: Encoder, table: ItemTable, file: Path | None, batch_size: int) -> Vectors:
    def made() -> Vectors:
        return encoder.encode(
            table.texts, batch_size=batch_size, show_progress=len(table) >= SHOW_PROGRESS_FROM
        )

    if file is None:
        return made()
    from leanmatch.formats import model_fingerprint
    from leanmatch.index import read_vectors, write_vectors

    if encoder.folder is None:
        raise UsageError(
            f"--vectors needs a model in a folder, {encoder.name} is a name on the hub",
            remedy="save the model to a folder and name that",
        )
    model, items = model_fingerprint(encoder.folder), table.fingerprint()
    stored = read_vectors(file, model=model, items=items, rows=len(table))
    if stored.vectors is not None:
        return stored.vectors
    say(f"{file}: {stored.reason}; encoding {len(table):,} items")
    vectors = made()
    write_vectors(file, vectors, model=model, items=items)
    return vectors


def _print_table(text: str, rows: list[Recommendation]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(visible(text)), title_justify="left")
    for heading, justify in (("rank", "right"), ("score", "right"), ("id", "left"), ("text", "left")):
        table.add_column(heading, justify="right" if justify == "right" else "left", overflow="fold")
    for one in rows:
        table.add_row(str(one.rank), f"{one.score:.4f}", Text(visible(one.id)), Text(visible(one.text)))
    stdout_console().print(table)
