"""``leanmatch inspect``: what a compressed model consists of, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanmatch.cli.common import JsonOption, print_json, reported_errors, stderr_console, stdout_console

if TYPE_CHECKING:
    from leanmatch.formats.artifact import Artifact


def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of leanmatch compress.")],
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw it: a .svg, .png or .pdf file.")
    ] = None,
    runtime: Annotated[
        bool,
        typer.Option("--runtime", help="Show which kernels run each layer here; for stock models too."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Show bytes, multiply-adds and error of each layer of a compressed model, and its measured quality."""
    with reported_errors():
        if runtime:
            _show_runtime(model, json)
            return
        from leanmatch.formats.artifact.reader import read_artifact

        artifact = read_artifact(model)
        layers = layer_rows(artifact)
        if plot is not None:
            from leanmatch.cli.inspect.layer_plot import draw

            draw(layers, plot)
            stderr_console().print(f"drawn in {plot}", markup=False, highlight=False, soft_wrap=True)
        if json:
            report = {name: value for name, value in artifact.report.items() if name != "layers"}
            print_json(
                {"model": str(model), **report, "base": artifact.provenance.get("base"), "layers": layers}
            )
        else:
            _show(artifact, layers)


def _show_runtime(model: Path, as_json: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from leanmatch.formats.artifact.reader import is_artifact, read_artifact
    from leanmatch.runtime import runtime_choices
    from leanmatch.runtime.kernels.planned import worth_here
    from leanmatch.runtime.loading import load_timed
    from leanmatch.runtime.tables import COLUMNS, runtime_rows

    encoder = load_timed(model)
    worth = worth_here(read_artifact(model), encoder) if is_artifact(model) else None
    if as_json:
        print_json(
            {
                "model": str(model),
                "precision": encoder.precision,
                "bytes": encoder.bytes,
                "worth": worth,
                "layers": runtime_choices(encoder),
            }
        )
        return
    console = stdout_console()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in COLUMNS:
        table.add_column(title, overflow="fold")
    for row in runtime_rows(encoder):
        table.add_row(*map(escape, row))
    console.print(table)
    console.print(f"weights in memory: {encoder.bytes:,} bytes", highlight=False)
    if worth is not None:
        for line in _worth_words(worth):
            console.print(line, markup=False, highlight=False, soft_wrap=True)


def _worth_words(worth: dict[str, Any]) -> list[str]:
    planned, here = worth["planned"], worth["here"]
    unit = (
        f"as fast as int8 of the uncompressed model ({planned['texts']} x {planned['tokens']} tokens, "
        "one core)"
    )
    noise = f"; times differed by {here['spread']:.0%}" if here["noisy"] else ""
    lines = []
    if planned.get("faster") is not None:
        lines.append(f"planned on {planned['cpu']} ({planned['level']}): {planned['faster']:.2f}x {unit}")
    lines.append(f"here, {here['cpu']} ({here['level']}): {here['faster']:.2f}x{noise}")
    if here["faster"] < 1:
        lines.append("here it is slower than int8: it saves bytes only, so compress for this machine, too")
    return lines


def layer_rows(artifact: Artifact) -> list[dict[str, Any]]:
    """A row a layer: name, form in words, shape, costs of it and of the dense layer, error."""
    return [
        {
            "name": name,
            "kind": layer.kind,
            "form": form_words(layer.factors),
            "shape": list(layer.factors.shape),
            "stack": layer.stack,
            **layer.report,
        }
        for name, layer in artifact.layers.items()
    ]


def form_words(factors: Any) -> str:
    """The form of a matrix in a few words.

    >>> import numpy as np
    >>> from leanmatch.factorization import IntMatrix
    >>> form_words(IntMatrix(np.ones((4, 8), np.int8), np.ones((4, 2), np.float32), bits=4))
    'int4, groups of 4'
    """
    name = type(factors).__name__
    if name == "IntMatrix":
        group = "" if factors.group == factors.shape[1] else f", groups of {factors.group}"
        return f"int{factors.bits}{group}"
    if name == "MixedIntMatrix":
        return f"int2 to int6, {factors.average_bits:.2f} bits on average"
    if name == "LowRank":
        bits = getattr(factors.left, "bits", None)
        return f"rank {factors.rank}, " + ("floats" if bits is None else f"int{bits}")
    if name in ("DenseSparse", "QuantizedDenseSparse"):
        bits = getattr(factors, "value_bits", None)
        values = "floats" if bits is None else f"int{bits}"
        if factors.identity:
            return f"{factors.nonzeros} of {factors.block}, {values}"
        return f"b{factors.block} r{factors.atom_count} k{factors.nonzeros}, {values}"
    return "dense"


def _show(artifact: Artifact, layers: list[dict[str, Any]]) -> None:
    from rich.table import Table

    console = stdout_console()
    report = artifact.report
    sizes, dense, quality = report["bytes"], report["dense"], report.get("quality") or {}
    base = artifact.provenance.get("base")
    for line in (
        f"{artifact.folder}: {artifact.architecture} ({artifact.task}), made from {base}",
        *_quality_lines(quality),
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("layer", "form"):
        table.add_column(title, overflow="fold")
    for title in ("shape", "bytes", "smaller", "MACs", "fewer", "error"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in layers:
        table.add_row(*_cells(row["name"], row["form"], f"{row['shape'][0]} x {row['shape'][1]}", row))
    total = {
        "bytes": sizes["layers"],
        "dense_bytes": dense["layer_bytes"],
        "macs": report["layer_macs"],
        "dense_macs": dense["layer_macs"],
        "error": None,
    }
    table.add_row(*_cells("all layers", "", "", total), style="bold")
    console.print(table)
    for line in (
        f"weights: {sizes['weights']:,} bytes (layers {sizes['layers']:,}, other tensors "
        f"{sizes['tensors']:,}, header {sizes['header']:,}), {dense['bytes'] / sizes['weights']:.2f}x fewer "
        f"than {dense['bytes']:,} in float32",
        f"other files (tokenizer, configurations): {sizes['files']:,} bytes",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _cells(name: str, form: str, shape: str, row: dict[str, Any]) -> list[str]:
    from rich.markup import escape

    return [
        escape(name),
        escape(form),
        shape,
        f"{row['bytes']:,}",
        f"{row['dense_bytes'] / max(1, row['bytes']):.2f}x",
        f"{row['macs']:,}",
        f"{row['dense_macs'] / row['macs']:.2f}x" if row["macs"] and row["dense_macs"] else "",
        "" if row["error"] is None else f"{row['error']:.4f}",
    ]


def _quality_lines(stored: dict[str, Any]) -> list[str]:
    from leanmatch.compression.planner.quality import Quality

    try:
        quality = Quality.within(stored)
        keep = (stored.get("asked") or {}).get("keep")
        verdict = [] if keep is None else [quality.verdict_sentence(keep)]
        return [quality.sentence(), *verdict, *(f"  {line}" for line in quality.slice_sentences(keep))]
    except (KeyError, TypeError, ValueError, AttributeError):
        return ["no quality was measured when it was saved"]
