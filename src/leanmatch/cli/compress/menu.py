"""The menu of ``leanmatch compress``: as a table, as JSON, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leanmatch.cli.checks import figure_class
from leanmatch.files import atomic_file


def show_menu(summary: Mapping[str, Any], as_json: bool) -> None:
    """Print it on stdout."""
    from rich.table import Table

    from leanmatch.cli.common import print_json, stdout_console

    if as_json:
        print_json(dict(summary))
        return
    console = stdout_console()
    table = Table(box=None, padding=(0, 2, 0, 0))
    worst = summary["worst_slice"]
    titles = ["--pick", "weights, MB", "texts/s here", "than int8", "layers out", "expected to keep"]
    for title in [*titles, *([] if worst is None else [f"on {worst}"])]:
        table.add_column(title, justify="right")
    int8 = summary["int8"]
    table.add_row("int8", f"{int8['bytes'] / 1e6:.2f}", _rate(int8["texts_a_second"]), "1.00x", "0", "")
    for row in summary["rows"]:
        table.add_row(
            str(row["number"]),
            f"{row['bytes'] / 1e6:.2f}",
            _rate(row["texts_a_second"]),
            "" if row["faster"] is None else f"{row['faster']:.2f}x",
            str(len(row["dropped"])),
            *(_share(row[name]) for name in ("expected", "worst") if row[name] is not None),
        )
    console.print(table)
    for line in _notes(summary):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def draw(summary: Mapping[str, Any], path: Path) -> None:
    """Expected quality against time and against bytes.

    Raises:
        UsageError: another format than :data:`leanmatch.cli.checks.PICTURES`.
        MissingExtraError: matplotlib is not installed.
    """
    rows = summary["rows"]
    axes = [("weights, MB", [row["bytes"] / 1e6 for row in rows], summary["int8"]["bytes"] / 1e6)]
    if all(row["faster"] is not None for row in rows):
        axes.append(("times as fast as int8 here", [row["faster"] for row in rows], 1.0))
    kept = [100 * row["expected"]["kept"] for row in rows]
    reach = [
        [100 * (row["expected"]["kept"] - row["expected"]["low"]) for row in rows],
        [100 * (row["expected"]["high"] - row["expected"]["kept"]) for row in rows],
    ]
    figure = figure_class(path, "drawing the menu")(figsize=(4.5 * len(axes), 3.6), layout="constrained")
    panels: Any = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    for panel, (title, values, int8) in zip(panels, axes, strict=True):
        panel.errorbar(values, kept, yerr=reach, fmt="o", capsize=3, color="#3b6ea5")
        panel.plot([int8], [100.0], "s", color="#888888", label="int8, untrained")
        for row, value in zip(rows, values, strict=True):
            near = (value, 100 * row["expected"]["kept"])
            panel.annotate(str(row["number"]), near, textcoords="offset points", xytext=(5, 4))
        panel.set_xlabel(title)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("expected to keep, %")
    panels[0].legend(loc="lower right")
    with atomic_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix.lower()[1:], dpi=150)


def _share(expected: Mapping[str, float]) -> str:
    return f"{expected['kept']:.1%} ({expected['low']:.1%} to {expected['high']:.1%})"


def _rate(texts: float | None) -> str:
    return "" if texts is None else f"{texts:,.0f}"


def _notes(summary: Mapping[str, Any]) -> list[str]:
    machine = summary["machine"]
    notes = []
    if machine is not None:
        noise = f", noisy: times differed by {machine['spread']:.0%}" if machine["noisy"] else ""
        notes.append(
            f"texts a second of {summary['workload']} from token ids, one core here ({machine['cpu']}, "
            f"{machine['level']}{noise})"
        )
    notes += [
        "expected quality: from the first factors of one row, and from what training left of such losses in "
        "other runs; a picked row is measured",
        "take a row: the same command with --pick N in place of --menu",
    ]
    return notes
