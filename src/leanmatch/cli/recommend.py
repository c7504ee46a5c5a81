"""``leanmatch recommend``: the best items of a catalogue for one or more texts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanmatch.cli.common import print_json, reported_errors, stdout_console
from leanmatch.errors import DataError, UsageError

if TYPE_CHECKING:
    from leanmatch.data import ItemTable
    from leanmatch.formats import Encoder
    from leanmatch.index import Recommendation
    from leanmatch.types import Vectors

SHOW_PROGRESS_FROM = 2_000
"""Catalogues of at least this many items show a bar while they are encoded."""


def recommend(
    model: Annotated[str, typer.Argument(help="Model folder, base model or hub name.")],
    items: Annotated[Path, typer.Argument(help="Catalogue: CSV, TSV, JSONL or Parquet with id and text.")],
    texts: Annotated[
        list[str], typer.Argument(metavar="TEXT...", help="What to recommend for; - reads lines from stdin.")
    ],
    k: Annotated[int, typer.Option("-k", help="Items a text.", min=1)] = 10,
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
) -> None:
    """Recommend the K items of a catalogue that match each TEXT best, by exact search."""
    with reported_errors():
        queries = _queries(texts)
        from leanmatch.data import read_items
        from leanmatch.formats import load_encoder
        from leanmatch.index import Recommender

        table = read_items(items)
        encoder = load_encoder(model, device)
        made = _item_vectors(encoder, table, vectors, batch_size)
        found = Recommender(encoder, table, vectors=made).recommend(queries, k, exclude_self=not include_self)
        if as_json:
            print_json(
                {
                    "model": model,
                    "items": len(table),
                    "queries": [
                        {"text": text, "recommendations": [one.to_json() for one in rows]}
                        for text, rows in zip(queries, found, strict=True)
                    ],
                }
            )
        else:
            for text, rows in zip(queries, found, strict=True):
                _print_table(text, rows)


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
    typer.echo(f"{file}: {stored.reason}; encoding {len(table):,} items", err=True)
    vectors = made()
    write_vectors(file, vectors, model=model, items=items)
    return vectors


def _print_table(text: str, rows: list[Recommendation]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(text), title_justify="left")
    for heading, justify in (("rank", "right"), ("score", "right"), ("id", "left"), ("text", "left")):
        table.add_column(heading, justify="right" if justify == "right" else "left", overflow="fold")
    for one in rows:
        table.add_row(str(one.rank), f"{one.score:.4f}", Text(one.id), Text(one.text))
    stdout_console().print(table)
