"""``leanmatch demo``: train, evaluate, diagnose, compress, index and serve real text in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanmatch.cli.common import print_json, reported_errors, stderr_console, stdout_console

if TYPE_CHECKING:
    from leanmatch.cli.demo.stages import Execute

MINUTES, QUICK_MINUTES = 12, 3


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for everything it makes.")] = Path(
        "demo-output"
    ),
    quick: Annotated[
        bool, typer.Option("--quick", help="A few steps only: a look at the road, no result.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what an earlier run has done.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.")] = False,
) -> None:
    """The whole road on "See Also" lists: train on numpy and scipy, hold out pandas and scikit-learn.

    Every step is a command that works on your own data, too, and is shown. What is done is not done again; a
    run that was stopped goes on.
    """
    with reported_errors(resumes=True):
        summary = run(output, quick=quick, fresh=fresh)
        if json:
            print_json(summary)
            return
        from leanmatch.cli.demo.summary import show

        show(summary, stdout_console())


def run(
    output: Path, *, quick: bool = False, fresh: bool = False, execute: Execute | None = None
) -> dict[str, Any]:
    """All stages.

    Args:
        output: folder.
        quick: few steps.
        fresh: drop what earlier runs recorded.
        execute: how commands run; None for processes of their own.

    Returns:
        see :func:`leanmatch.cli.demo.summary.summarize`.
    """
    import time

    from leanmatch.cli.demo.road import road
    from leanmatch.cli.demo.stages import Road, cpu_seconds, only_one, run_leanmatch
    from leanmatch.cli.demo.summary import summarize

    console = stderr_console()
    console.print(
        f"about {QUICK_MINUTES if quick else MINUTES} minutes on 2 cores, seconds when it was done before; "
        f"files go to {output}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    begun, cpu = time.monotonic(), cpu_seconds()
    folder = output / "stages"
    with only_one(folder):
        if fresh:
            for record in folder.glob("*.*"):
                record.unlink()
        records = Road(folder, execute or run_leanmatch, console).run(road(output, quick))
        return summarize(output, records, time.monotonic() - begun, cpu_seconds() - cpu)
