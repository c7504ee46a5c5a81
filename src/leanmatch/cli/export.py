"""``leanmatch export``: a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanmatch.cli.common import (
    JsonOption,
    print_json,
    reported_errors,
    say,
    stderr_console,
    stdout_console,
)
from leanmatch.errors import UsageError


def export(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Folder or name of a model; for web also a catalogue's folder."),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to", help="onnx, openvino or web; of compressed models sentence-transformers, transformers."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the export.")],
    int8: Annotated[bool, typer.Option("--int8", help="Weights in 8 bits (onnx, openvino).")] = False,
    title: Annotated[
        str | None, typer.Option("--title", help="Heading of a catalogue's page (web); default: leanmatch.")
    ] = None,
    model_folder: Annotated[
        str | None, typer.Option("--model", help="The catalogue's model, if it has moved (web).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT if it exists.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a model as others read it; it is compared with the model before it is saved.

    ONNX and OpenVINO get pooling, Dense layers and normalization inside: token ids and mask in, vectors out.
    Of a catalogue, --to web makes a folder of static files: a page that searches in the visitor's browser.
    """
    with reported_errors():
        if to == "web" and is_catalogue_folder(model):
            if int8:
                raise UsageError(
                    "int8 with the export of a catalogue", remedy="leave it out: vectors have 8 bits"
                )
            export_catalogue(model, output, title=title, model=model_folder, overwrite=overwrite, json=json)
            return
        given = [name for name, value in (("--title", title), ("--model", model_folder)) if value is not None]
        if given:
            raise UsageError(f"{given[0]} without a catalogue", remedy="it is for export CATALOGUE --to web")
        if to == "web":
            if int8:
                raise UsageError("int8 with an export to web", remedy="leave it out: its weights have 8 bits")
            export_model_for_web(model, output, overwrite=overwrite, json=json)
            return
        from leanmatch.formats.exports import export_model

        stderr_console().print(f"exporting {model} to {to}", markup=False, highlight=False, soft_wrap=True)
        saved = export_model(model, to, output, int8=int8, overwrite=overwrite)
        if json:
            print_json(
                {
                    "output": str(saved.folder),
                    "to": saved.target,
                    "bytes": saved.bytes,
                    "min_cosine": saved.parity.min_cosine,
                    "notes": list(saved.notes),
                }
            )
            return
        console = stdout_console()
        lines = [f"note: {note}" for note in saved.notes]
        lines.append(
            f"saved to {saved.folder}: {saved.bytes:,} bytes (compared on {saved.parity.texts} texts: cosine "
            f"at least {saved.parity.min_cosine:.6f})"
        )
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def is_catalogue_folder(folder: str) -> bool:
    """Does the folder hold a catalogue?"""
    from leanmatch.index import is_catalogue

    return is_catalogue(folder)


def export_model_for_web(model: str, output: Path, *, overwrite: bool, json: bool) -> None:
    """Export a model alone for the runtime in a web page, and show the size of each file."""
    from leanmatch.runtime.web import export_web_model

    say(f"exporting {model} for web pages")
    saved = export_web_model(model, output, overwrite=overwrite)
    total = sum(saved.bytes.values())
    if json:
        print_json({"output": str(saved.folder), "to": "web", "bytes": total, "files": dict(saved.bytes)})
        return
    sizes = ", ".join(f"{name} {size:,}" for name, size in saved.bytes.items())
    stdout_console().print(
        f"saved to {saved.folder}: {total:,} bytes ({sizes})", markup=False, highlight=False, soft_wrap=True
    )


def export_catalogue(
    catalogue: str, output: Path, *, title: str | None, model: str | None, overwrite: bool, json: bool
) -> None:
    """Export a catalogue as a site, and show its size by part."""
    from leanmatch.cli.terminal import visible
    from leanmatch.web import export_site

    say(f"exporting the catalogue {catalogue} as a site")
    options = {} if title is None else {"title": title}
    saved = export_site(catalogue, output, model=model, overwrite=overwrite, **options)
    if json:
        print_json(
            {
                "output": str(saved.folder),
                "to": "web",
                "items": saved.items,
                "bytes": sum(saved.bytes.values()),
                "parts": dict(saved.bytes),
                "notes": list(saved.notes),
            }
        )
        return
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    table.add_column()
    for part, size in saved.bytes.items():
        table.add_row(part, f"{size / 1e6:,.2f} MB", CONTENTS[part])
    table.add_row("all", f"{sum(saved.bytes.values()) / 1e6:,.2f} MB", f"{saved.items:,} items")
    console = stdout_console()
    console.print(table)
    for note in saved.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    place = visible(str(saved.folder))
    console.print(
        f"saved to {place}. To look at it: python -m http.server -d {place}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


CONTENTS = {
    "model": "weights and tokenizer",
    "runtime": "WebAssembly, two builds; a visitor loads one",
    "scripts": "leanmatch.js and its worker",
    "page": "the page, its service worker, licences",
    "vectors": "8 bits a number; every visitor who searches loads them",
    "items": "texts and metadata; loaded as they are shown",
    "columns": "for filters; loaded when a filter needs them",
}
"""Parts of a site: what they hold."""
