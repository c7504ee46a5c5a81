"""The layers of a compressed model as a picture: bytes, multiply-adds and error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leanmatch.cli.checks import figure_class
from leanmatch.files import atomic_file


def draw(layers: list[dict[str, Any]], path: Path) -> None:
    """Three bars a layer: kept share of the dense bytes and multiply-adds, and the relative squared error.

    Raises:
        UsageError: another format than :data:`leanmatch.cli.checks.PICTURES`.
        MissingExtraError: matplotlib is not installed.
    """
    names = [layer["name"] for layer in layers]
    figure = figure_class(path, "drawing layers")(
        figsize=(11, 1.2 + 0.22 * len(layers)), layout="constrained"
    )
    panels: Any = figure.subplots(1, 3, sharey=True)
    columns = (
        ("bytes, share of float32", [layer["bytes"] / max(1, layer["dense_bytes"]) for layer in layers]),
        (
            "multiply-adds, share of dense",
            [layer["macs"] / layer["dense_macs"] if layer["dense_macs"] else 0.0 for layer in layers],
        ),
        ("relative squared error", [layer["error"] or 0.0 for layer in layers]),
    )
    for panel, (title, values) in zip(panels, columns, strict=True):
        panel.barh(range(len(layers)), values, color="#3b6ea5")
        panel.set_title(title, fontsize=9)
        panel.grid(axis="x", alpha=0.3)
        panel.tick_params(labelsize=7)
        panel.margins(y=0.01)
    panels[0].set_yticks(range(len(layers)), names)
    panels[0].invert_yaxis()
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower()[1:], dpi=150)
