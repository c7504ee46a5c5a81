"""``leanmatch export``: a model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanmatch.cli.common import JsonOption, print_json, reported_errors, stderr_console, stdout_console


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or name of a model.")],
    to: Annotated[
        str,
        typer.Option(
            "--to", help="onnx or openvino; of compressed models sentence-transformers, transformers."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the export.")],
    int8: Annotated[bool, typer.Option("--int8", help="Weights in 8 bits (onnx, openvino).")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT if it exists.")] = False,
    json: JsonOption = False,
) -> None:
    """Write a model as others read it; it is compared with the model before it is saved.

    ONNX and OpenVINO get pooling, Dense layers and normalization inside: token ids and mask in, vectors out.
    """
    with reported_errors():
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
