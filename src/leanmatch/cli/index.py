"""``leanmatch index``: make a catalogue, and change it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanmatch.cli.checks import check_models, check_writable
from leanmatch.cli.common import (
    delimiter_for,
    print_json,
    reported_errors,
    say,
    say_item_columns,
    say_skipped,
    stdout_console,
)
from leanmatch.cli.data.command import DelimiterOption, IdColumnOption, OnErrorOption, TextColumnsOption
from leanmatch.cli.terminal import visible
from leanmatch.errors import DataError, UsageError

if TYPE_CHECKING:
    from leanmatch.data import ItemTable, SkippedRow
    from leanmatch.index import Change, Item, Manifest, WriteOptions


@dataclass
class Reading:
    """How files are read: which columns, and what is done about bad rows; and how many were left out."""

    id_column: str | None
    text_columns: list[str] | None
    on_error: str
    delimiter: str | None = None
    skipped: int = 0
    partly: bool = False
    numbered: bool = False

    def of(self, manifest: Manifest) -> Reading:
        """Take the columns that the catalogue's own file had, where no option names others."""
        if manifest.source is not None:
            self.numbered = not (self.id_column or manifest.source.id)
            self.id_column = self.id_column or manifest.source.id or None
        self.partly = not self.text_columns
        self.text_columns = self.text_columns or list(manifest.text_columns or ()) or None
        return self

    def note(self, skipped: Sequence[SkippedRow]) -> None:
        """Count rows that were left out, and list them on stderr."""
        self.skipped += len(skipped)
        say_skipped(skipped)


def index(
    model: Annotated[
        str | None, typer.Argument(help="Model folder or name; changes take the catalogue's own by default.")
    ] = None,
    items: Annotated[
        Path | None, typer.Argument(help="Items: CSV, TSV, JSONL, Parquet, or a BEIR folder or corpus.jsonl.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--catalogue", help="The catalogue's folder.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    add: Annotated[
        Path | None, typer.Option("--add", help="Items to add, or to replace where the id is there.")
    ] = None,
    update: Annotated[
        Path | None,
        typer.Option("--update", help="Items to change; columns the file lacks keep their values."),
    ] = None,
    delete: Annotated[
        Path | None, typer.Option("--delete", help="Items to delete: one id a line, or a table with ids.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Encode the catalogue's own items with MODEL.")
    ] = False,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Training pairs or texts that live queries are compared with."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Read every file and compare checksums.")] = False,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="auto (exact up to 200,000 items), exact, ivf or hnsw."),
    ] = None,
    id_column: IdColumnOption = None,
    text_columns: TextColumnsOption = None,
    on_error: OnErrorOption = "raise",
    delimiter: DelimiterOption = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a catalogue; texts that stay are not encoded again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda, where torch encodes.")] = "auto",
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            help="Precision of encoding: stored (a new catalogue's default), float32, bfloat16 or int8; "
            "changes keep the catalogue's.",
        ),
    ] = None,
) -> None:
    """Make a catalogue of ITEMS, or change one; every change is all or nothing, also under kill -9."""
    with reported_errors():
        wanted = {
            "--add": add,
            "--update": update,
            "--delete": delete,
            "--rebuild": rebuild,
            "--reference": reference,
            "--check": check,
        }
        named = [name for name, value in wanted.items() if value]
        if len(named) > 1 and named != ["--delete"]:
            raise UsageError(f"{' and '.join(named)} together", remedy="give one of them a call")
        if not named and items is None:
            raise UsageError(
                "there is nothing to do", remedy=f"name MODEL and ITEMS, or one of: {', '.join(wanted)}"
            )
        if named and items is not None:
            raise UsageError(f"ITEMS does not go with {named[0]}", remedy="leave it out")
        reading = Reading(id_column, text_columns, on_error, delimiter)
        with _options(kind) as options:
            change = _run(
                model,
                items,
                output,
                named,
                add or update or delete or reference,
                reading,
                options,
                overwrite,
                {"device": device, "weights": weights},
            )
        if isinstance(change, dict):
            _show(change, as_json)
        else:
            _show({"catalogue": str(output), **change.to_json(), "skipped": reading.skipped}, as_json)


def _run(
    model: str | None,
    items: Path | None,
    folder: Path,
    named: list[str],
    file: Path | None,
    reading: Reading,
    options: WriteOptions,
    overwrite: bool,
    how: dict[str, Any],
) -> Change | dict[str, Any]:
    from leanmatch.index import (
        SourceColumns,
        create_catalogue,
        delete_items,
        items_of,
        open_encoder,
        read_manifest,
        rebuild_catalogue,
        upsert_items,
    )
    from leanmatch.index.encoders import encoder_for

    if not named:
        assert items is not None and model is not None
        check_models(model)
        check_writable(folder, folder=True)
        table = _table(items, reading)
        source = SourceColumns(table.id_column or "", table.text_columns)
        return create_catalogue(
            folder,
            items_of(table),
            open_encoder(model, **_named(how)),
            replace(options, source=source),
            overwrite=overwrite,
        )
    manifest = read_manifest(folder)
    if named == ["--check"]:
        return _checked(folder, manifest)
    if named == ["--rebuild"]:
        if model is None:
            raise UsageError("--rebuild needs a model", remedy="leanmatch index MODEL -o CATALOGUE --rebuild")
        return rebuild_catalogue(folder, open_encoder(model, **_named(how, manifest)), options)
    assert file is not None
    if named == ["--delete"]:
        return delete_items(folder, _ids(file, reading.of(manifest)), options)
    if named == ["--reference"]:
        encoder = encoder_for(manifest, model, **how)
        return _referenced(folder, file, reading, encoder)
    check_models(model)
    patch = named == ["--update"]
    reading.of(manifest)
    incoming = _changes(file, reading) if patch else _additions(file, reading)
    if model is None:
        encoder = encoder_for(manifest, None, **how)
    else:
        encoder = open_encoder(model, **_named(how, manifest))
    return upsert_items(folder, incoming, encoder, options, patch=patch)


def _named(how: dict[str, Any], manifest: Manifest | None = None) -> dict[str, Any]:
    """The precision where none was asked for: a catalogue keeps its own."""
    from leanmatch.index.encoders import own_weights

    own = "stored" if manifest is None else own_weights(manifest, how["device"])
    return {**how, "weights": how["weights"] or own}


def _referenced(folder: Path, file: Path, reading: Reading, encoder: Any) -> dict[str, Any]:
    """Make the profile that live queries are compared with; texts are the anchors of pairs, or lines."""
    from leanmatch.index import Catalogue, put_extra, read_manifest
    from leanmatch.serve.monitoring.drift import REFERENCE, build_reference

    if file.suffix == ".txt":
        found = _ids(file, reading)
    else:
        from leanmatch.cli.matchers import provenance_of
        from leanmatch.cli.pairs import read_table

        model = read_manifest(folder).model.name
        pairs = read_table(
            file,
            column=None,
            on_error=reading.on_error,
            delimiter=reading.delimiter,
            provenance=provenance_of(model),
            model=model,
        )
        reading.skipped += len(pairs.skipped)
        found = pairs.anchors
    texts = list(dict.fromkeys(found))
    reference = build_reference(Catalogue.open(folder), encoder, texts, file.name)
    manifest = put_extra(folder, REFERENCE, reference.write, ".json")
    return {
        "catalogue": str(folder),
        "generation": manifest.generation,
        "reference": file.name,
        "queries": reference.profile.queries,
        "words": len(reference.vocabulary),
        "category": reference.column or "none",
        "skipped": reading.skipped,
    }


def _changes(file: Path, reading: Reading) -> list[Item]:
    from leanmatch.data.readers.item_changes import read_changes
    from leanmatch.index.changes import changes_of

    changes = read_changes(
        file,
        id_column=reading.id_column,
        text_columns=reading.text_columns,
        on_error=reading.on_error,  # type: ignore[arg-type]
        delimiter=delimiter_for(file, reading.delimiter),
    )
    reading.note(changes.skipped)
    return changes_of(changes)


def _additions(file: Path, reading: Reading) -> list[Item]:
    """Items to add: rows must have identifiers, as numbers of rows would replace items that are there."""
    from leanmatch.index import items_of

    table = _table(file, reading)
    if reading.numbered and table.id_column is not None:
        raise DataError(
            f"the catalogue's items have row numbers for identifiers, those of this file are in "
            f"{table.id_column!r}: the same items would be there twice",
            path=file,
            remedy=f"make the catalogue anew with --id-column {table.id_column}; or, if these are other "
            "items, pass that with --add, too",
        )
    if table.id_column is None:
        raise DataError(
            "there is no column of identifiers, and numbers of rows would replace other items",
            path=file,
            remedy="name it: --id-column",
        )
    return items_of(table)


def _table(file: Path, reading: Reading) -> ItemTable:
    from leanmatch.data import read_items

    if file.is_dir():
        corpus = next(
            (file / name for name in ("corpus.jsonl", "corpus.jsonl.gz") if (file / name).is_file()), None
        )
        if corpus is None:
            raise DataError("the folder has no corpus.jsonl", path=file, remedy="name a file of items")
        file = corpus
    table = read_items(
        file,
        id_column=reading.id_column,
        text_columns=reading.text_columns,
        on_error=reading.on_error,  # type: ignore[arg-type]
        delimiter=delimiter_for(file, reading.delimiter),
        partly=reading.partly,
    )
    reading.note(table.skipped)
    say_item_columns(table, named=bool(reading.id_column and reading.text_columns))
    return table


def _ids(file: Path, reading: Reading) -> list[str]:
    """Identifiers: the lines of a .txt file, or the column of a table."""
    if file.suffix in {".txt", ""}:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"it is not UTF-8: {error}", path=file, remedy="convert it") from error
        ids = [line for line in lines if line.strip()]
    else:
        from leanmatch.data.readers.items import read_ids

        ids, skipped = read_ids(
            file,
            reading.id_column,
            on_error=reading.on_error,  # type: ignore[arg-type]
            delimiter=delimiter_for(file, reading.delimiter),
        )
        reading.note(skipped)
    if not ids:
        raise DataError("there are no identifiers", path=file, remedy="give one a line")
    return ids


def _checked(folder: Path, manifest: Manifest) -> dict[str, Any]:
    from leanmatch.index import Catalogue, check_files

    check_files(folder, manifest)
    catalogue = Catalogue.open(folder)
    return {
        "catalogue": str(folder),
        "items": len(catalogue),
        "generation": manifest.generation,
        "model": manifest.model.name,
        "weights": manifest.model.weights or "not recorded",
        "files": len(manifest.files),
        "bytes": sum(file.bytes for file in manifest.files),
    }


@contextmanager
def _options(kind: str | None) -> Iterator[WriteOptions]:
    """Options whose progress is a bar on stderr."""
    from tqdm import tqdm

    from leanmatch.index import WriteOptions

    bar: list[Any] = []

    def progress(done: int, total: int) -> None:
        if not bar:
            bar.append(tqdm(total=total, desc="encoding", unit=" texts", unit_scale=True))
        bar[0].update(done - bar[0].n)

    try:
        yield WriteOptions(kind=kind, progress=progress, say=say)
    finally:
        for one in bar:
            one.close()


def _show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in document.items():
        if value != 0 or name == "items":
            table.add_row(name, Text(f"{value:,}" if isinstance(value, int) else visible(str(value))))
    stdout_console().print(table)
