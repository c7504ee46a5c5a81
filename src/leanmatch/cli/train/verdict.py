"""How ``leanmatch train`` ends: its own test rows against the base, what follows, and the next command."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanmatch.cli.matchers import load_any
from leanmatch.errors import DataError

if TYPE_CHECKING:
    from leanmatch.data import PairTable
    from leanmatch.metrics import Evaluation

VERDICT_METRICS = ("MRR@10", "P@1")


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
        encoders = [load_any(str(name), device, PromptOptions()) for name in (output, base)]
        texts = [*plan.table.anchors, *plan.table.positives]
        seconds = text_seconds(encoders[0], texts) * len({*texts}) * len(encoders)
        say(f"testing on {len(plan.table):,} held-out rows takes about {in_words(seconds)}")
        return evaluate(
            encoders[0],
            plan.table,
            options=replace(plan.options, metrics=VERDICT_METRICS),
            against=encoders[1],
            name=output.name,
            against_name="base",
        )
    except DataError as error:
        say(f"no test against the base: {error.problem}")
        return None


def show_verdict(evaluation: Evaluation, result: Any, say: Callable[[str], None]) -> None:
    """The table, a warning for each significant loss, and what to do about it."""
    from leanmatch.cli.common import stderr_console
    from leanmatch.metrics.advice import advice, warnings
    from leanmatch.metrics.tables import summary_table

    stderr_console().print(summary_table(evaluation))
    steps = max((run["steps"] for run in result.history.values()), default=None)
    for line in (*warnings(evaluation), *advice(evaluation, average=result.average, steps=steps)):
        say(line)


def next_command(output: Path, data: Path) -> str:
    """What to type next: the diagnosis of the model, or making a page of it."""
    return f"next: {shlex.join(['leanmatch', 'diagnose', str(output), str(data), '-o', 'report.html'])}"
