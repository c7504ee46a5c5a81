"""How ``leanmatch train`` ends: its own test rows against the base, what follows, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanmatch.cli.matchers import load_any
from leanmatch.errors import LeanmatchError

if TYPE_CHECKING:
    from rich.console import Console

    from leanmatch.data import PairTable
    from leanmatch.metrics import Evaluation, EvaluationOptions

VERDICT_METRICS = ("MRR@10", "P@1")
MOST_ROWS = 4000
"""Rows of the verdict; ``leanmatch evaluate`` takes all."""


def held_out_verdict(
    output: Path, base: str, table: PairTable, device: str, say: Callable[[str], None]
) -> Evaluation | None:
    """The saved model against its base on the test rows of its split; None where there are none.

    Args:
        output: the saved model.
        base: what it was trained from.
        table: all rows.
        device: where sentence-transformers would encode.
        say: gets how long it will take, and why there is no verdict.
    """
    from leanmatch.cli.evaluate.plan import plan_evaluation, propensity_constants
    from leanmatch.formats import read_provenance
    from leanmatch.metrics import evaluate
    from leanmatch.metrics.pace import in_words, text_seconds
    from leanmatch.models import PromptOptions
    from leanmatch.report.sampling import occurring

    try:
        plan = plan_evaluation(
            table,
            read_provenance(output),
            hold_out=(),
            after=None,
            split=None,
            slices=(),
            symmetric="auto",
            propensity=propensity_constants("default"),
        )
        rows, sample = _at_most(plan.table, plan.options)
        encoders = [load_any(str(name), device, PromptOptions()) for name in (output, base)]
        texts = [*rows.anchors, *rows.positives]
        seconds = text_seconds(encoders[0], texts) * len({*texts}) * len(encoders)
        say(f"testing on {len(rows):,} held-out rows{sample} takes about {in_words(seconds)}")
        return evaluate(
            encoders[0],
            rows,
            options=replace(
                plan.options, metrics=VERDICT_METRICS, hold_out=occurring(plan.options.hold_out, rows)
            ),
            against=encoders[1],
            name=output.name,
            against_name="base",
        )
    except LeanmatchError as error:  # the model is saved: that it could not be tested does not undo it
        say(f"no test against the base: {error.problem}")
        return None


def _at_most(table: PairTable, options: EvaluationOptions) -> tuple[PairTable, str]:
    """The rows, or as many from each slice as its share of them allows, and a remark on that."""
    if len(table) <= MOST_ROWS:
        return table, ""
    from leanmatch.metrics.slices import make_slices
    from leanmatch.report.sampling import sample_rows, strata_of

    chosen = sample_rows(strata_of(make_slices(table, options), len(table)), MOST_ROWS, seed=0)
    return table.take(chosen), f" (a random sample of {len(table):,}; leanmatch evaluate takes all)"


def show_verdict(evaluation: Evaluation, result: Any, console: Console) -> None:
    """Print the table, a warning for each significant loss, and what to do about it."""
    from leanmatch.metrics.advice import advice, warnings
    from leanmatch.metrics.tables import summary_table

    console.print(summary_table(evaluation))
    steps = max((run["steps"] for run in result.history.values()), default=None)
    for line in (*warnings(evaluation), *advice(evaluation, average=result.average, steps=steps)):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def next_command(output: Path, data: Path, *, tested: bool) -> str:
    """What to type next: the diagnosis, on validation rows where there are no test rows."""
    rows = [] if tested else ["--split", "valid"]
    words = ["leanmatch", "diagnose", str(output), str(data), *rows, "-o", "report.html"]
    return f"next: {shlex.join(words)}"
