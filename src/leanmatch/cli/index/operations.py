"""What the commands of ``leanmatch index`` do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanmatch.cli.checks import check_models, check_writable
from leanmatch.cli.common import print_json, say, stdout_console
from leanmatch.cli.index.reading import Reading, read_added, read_changed, read_named, read_table
from leanmatch.cli.prompts import with_prompts
from leanmatch.cli.terminal import visible
from leanmatch.errors import DataError, UsageError

if TYPE_CHECKING:
    from leanmatch.index import Change, Manifest, WriteOptions
    from leanmatch.models import PromptOptions


@dataclass(frozen=True)
class Encoding:
    """Which encoder runs, and how: on which device, in which precision (None: the catalogue's own).

    ``dimensions`` and ``prompts`` are for a catalogue that is made or rebuilt.
    """

    model: str | None
    device: str = "auto"
    precision: str | None = None
    prompts: PromptOptions | None = None
    dimensions: int | None = None

    def open(self, manifest: Manifest) -> Any:
        """The encoder that a catalogue was made with, from ``model`` where that names another place."""
        from leanmatch.index import open_encoder
        from leanmatch.index.encoders import encoder_for, own_precision, with_catalogue_settings

        if self.model is None:
            return encoder_for(manifest, None, device=self.device, precision=self.precision)
        precision = self.precision or own_precision(manifest, self.device)
        encoder = open_encoder(self.model, device=self.device, precision=precision)
        return with_catalogue_settings(encoder, manifest.model)

    def open_anew(self, manifest: Manifest | None = None) -> Any:
        """The encoder of a catalogue that is made or rebuilt: its prompts and dimensions may be chosen.

        Without a choice, the same model keeps those that the catalogue recorded.
        """
        from leanmatch.models import keep_dimensions

        return keep_dimensions(self._open_anew(manifest), self.dimensions)

    def _open_anew(self, manifest: Manifest | None) -> Any:
        from leanmatch.index import open_encoder
        from leanmatch.index.encoders import own_precision, with_catalogue_settings
        from leanmatch.index.identity import identity_of, known_as

        recorded = manifest is not None and manifest.model.document_prompt is not None
        own = "stored" if manifest is None else own_precision(manifest, self.device)
        if self.model is None and manifest is not None and recorded:
            encoder = self.open(manifest)
        else:
            name = manifest.model.name if self.model is None and manifest is not None else str(self.model)
            encoder = open_encoder(name, device=self.device, precision=self.precision or own)
        if manifest is not None and recorded:
            fingerprint = known_as(identity_of(encoder), encoder, manifest.model).fingerprint
            if fingerprint == manifest.model.fingerprint:
                encoder = with_catalogue_settings(encoder, manifest.model)
        return with_prompts(encoder, self.prompts) if self.prompts else encoder


def build(
    items: Path,
    folder: Path,
    encoding: Encoding,
    reading: Reading,
    options: WriteOptions,
    *,
    overwrite: bool,
) -> Change:
    """Make a catalogue of a file's items."""
    from leanmatch.index import SourceColumns, create_catalogue, items_of

    check_models(encoding.model)
    check_writable(folder, folder=True)
    table = read_table(items, reading)
    source = SourceColumns(table.id_column or "", table.text_columns)
    return create_catalogue(
        folder, items_of(table), encoding.open_anew(), replace(options, source=source), overwrite=overwrite
    )


def refuse_with_vectors(options: Mapping[str, object]) -> None:
    """Refuse what was decided when vectors were made.

    Raises:
        UsageError: one of the options is given.
    """
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise UsageError(
            f"{given[0]} is given together with --vectors, where it is decided already",
            remedy=f"leave out {', '.join(given)}",
        )


def build_from_vectors(vectors: str, folder: Path, options: WriteOptions, *, overwrite: bool) -> Change:
    """Make a catalogue of what leanmatch encode wrote; no model is opened."""
    from leanmatch.batch import EncodedFiles
    from leanmatch.index import SourceColumns, create_from_blocks

    check_writable(folder, folder=True)
    encoded = EncodedFiles.open(vectors)
    plan = encoded.plan
    if plan.role != "document":
        raise DataError(
            f"the vectors were made with the role {plan.role!r}, not as items of a catalogue",
            path=vectors,
            remedy="encode the items with --role document",
        )
    columns, _ = encoded.column_types()
    source = SourceColumns(plan.id_column or "", plan.text_columns)
    return create_from_blocks(
        folder,
        encoded.items(),
        encoded.rows,
        columns,
        plan.model,
        replace(options, source=source),
        overwrite=overwrite,
    )


def change(
    file: Path,
    folder: Path,
    encoding: Encoding,
    reading: Reading,
    options: WriteOptions,
    *,
    patch: bool,
) -> Change:
    """Add a file's items; with ``patch``, change items that are there."""
    from leanmatch.index import read_manifest, upsert_items

    manifest = read_manifest(folder)
    check_models(encoding.model)
    reading.of(manifest)
    incoming = read_changed(file, reading) if patch else read_added(file, reading)
    return upsert_items(folder, incoming, encoding.open(manifest), options, patch=patch)


def delete(file: Path, folder: Path, reading: Reading, options: WriteOptions) -> Change:
    """Delete the items that a file names."""
    from leanmatch.index import delete_items, read_manifest

    return delete_items(folder, read_named(file, reading.of(read_manifest(folder))), options)


def rebuild(folder: Path, encoding: Encoding, options: WriteOptions) -> Change:
    """Encode a catalogue's own items with a model."""
    from leanmatch.index import read_manifest, rebuild_catalogue

    return rebuild_catalogue(folder, encoding.open_anew(read_manifest(folder)), options)


def reference(file: Path, folder: Path, encoding: Encoding, reading: Reading) -> dict[str, Any]:
    """Make the profile that live queries are compared with."""
    from leanmatch.index import read_manifest
    from leanmatch.index.encoders import encoder_for

    encoder = encoder_for(
        read_manifest(folder), encoding.model, device=encoding.device, precision=encoding.precision
    )
    return _referenced(folder, file, reading, encoder)


def check(folder: Path) -> dict[str, Any]:
    """Read every file and compare it with its checksum, then open the catalogue."""
    from leanmatch.index import read_manifest

    return _checked(folder, read_manifest(folder))


def _referenced(folder: Path, file: Path, reading: Reading, encoder: Any) -> dict[str, Any]:
    """Make the profile that live queries are compared with; texts are the anchors of pairs, or lines."""
    from leanmatch.index import Catalogue, put_extra, read_manifest
    from leanmatch.index.storage.manifest import REFERENCE
    from leanmatch.serve.monitoring.drift import build_reference

    if file.suffix == ".txt":
        queries = read_named(file, reading)
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
        queries = pairs.anchors
    texts = list(dict.fromkeys(queries))
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


def _checked(folder: Path, manifest: Manifest) -> dict[str, Any]:
    from leanmatch.index import Catalogue, check_files

    check_files(folder, manifest)
    catalogue = Catalogue.open(folder)
    return {
        "catalogue": str(folder),
        "items": len(catalogue),
        "generation": manifest.generation,
        "model": manifest.model.name,
        "dimensions": manifest.model.dimension,
        "weights": manifest.model.weights or "not recorded",
        "files": len(manifest.files),
        "bytes": sum(file.bytes for file in manifest.files),
    }


@contextmanager
def write_options(kind: str | None = None, hybrid: bool | None = None) -> Iterator[WriteOptions]:
    """Options whose progress is a bar on stderr."""
    from tqdm import tqdm

    from leanmatch.index import WriteOptions

    bar: list[Any] = []

    def progress(done: int, total: int) -> None:
        if not bar:
            bar.append(tqdm(total=total, desc="encoding", unit=" texts", unit_scale=True))
        bar[0].update(done - bar[0].n)
        if done == total:
            bar[0].close()  # before the result is printed

    try:
        yield WriteOptions(kind=kind, progress=progress, say=say, hybrid=hybrid)
    finally:
        for opened in bar:
            opened.close()


def show(result: Change | dict[str, Any], folder: Path, reading: Reading, as_json: bool) -> None:
    """Print what came of a command."""
    document = (
        result
        if isinstance(result, dict)
        else {"catalogue": str(folder), **result.to_json(), "skipped": reading.skipped}
    )
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
