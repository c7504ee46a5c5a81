"""``leanmatch diagnose``: what a matcher's scores hang on, and how training moved that from its base."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanmatch.cli.checks import check_writable
from leanmatch.cli.common import JsonOption, print_json, reported_errors, say, stdout_console
from leanmatch.cli.data.command import ColumnOption, DelimiterOption, OnErrorOption
from leanmatch.cli.matchers import (
    AfterOption,
    HoldOutOption,
    SlicesOption,
    SplitOption,
    SymmetricOption,
)
from leanmatch.cli.matchers import load_any as _load
from leanmatch.cli.prompts import DocumentPromptOption, PromptNameOption, QueryPromptOption, prompt_options

if TYPE_CHECKING:
    from leanmatch.report import Diagnosis

MOST_WORDS = 8
"""Words that gained and words that lost, in the terminal."""


def diagnose(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or name of the matcher.")],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="CSV, TSV, JSONL, Parquet, BEIR or XMC folder.")
    ],
    against: Annotated[
        str,
        typer.Option(
            metavar="MODEL", help="The matcher to compare with; 'base': the one MODEL was trained from."
        ),
    ] = "base",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write the page (HTML)."),
    ] = None,
    slices: SlicesOption = None,
    hold_out: HoldOutOption = None,
    after: AfterOption = None,
    split: SplitOption = None,
    symmetric: SymmetricOption = None,
    intervention: Annotated[
        str, typer.Option(help="What is done to a word: delete, mask or replace.")
    ] = "delete",
    max_rows: Annotated[int, typer.Option(min=1, help="Rows to evaluate, at most.")] = 4000,
    max_pairs: Annotated[int, typer.Option(min=1, help="Pairs whose words are looked at, at most.")] = 1000,
    minutes: Annotated[float, typer.Option(help="Time for looking at words; the metrics come on top.")] = 3.0,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Tokens that each model may read for words, in place of --minutes: exactly repeatable.",
        ),
    ] = None,
    shown: Annotated[int, typer.Option(min=1, help="Pairs in the page's explorer.")] = 200,
    seed: Annotated[int, typer.Option(help="Seed of the samples.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    query_prompt: QueryPromptOption = None,
    document_prompt: DocumentPromptOption = None,
    prompt_name: PromptNameOption = None,
    column: ColumnOption = None,
    on_error: OnErrorOption = "raise",
    delimiter: DelimiterOption = None,
    json: JsonOption = False,
) -> None:
    """Show what training changed: metrics, words and pairs, against the base, as a page."""
    with reported_errors(resumes=output is not None):
        from leanmatch.report import DiagnoseOptions

        options = DiagnoseOptions(
            intervention=intervention,
            max_rows=max_rows,
            max_pairs=max_pairs,
            budget=budget,
            minutes=minutes,
            shown=shown,
            seed=seed,
        )
        prompts = prompt_options(query_prompt, document_prompt, prompt_name)
        if output is not None:
            _check_output(output)
        from leanmatch.cli.evaluate.plan import compare_on
        from leanmatch.report import diagnose as run_diagnosis
        from leanmatch.report.kept import KeptVectors

        comparison = compare_on(
            data,
            model,
            against,
            hold_out=hold_out,
            after=after,
            split=split,
            slices=slices,
            symmetric=symmetric,
            column=column,
            on_error=on_error,
            delimiter=delimiter,
        )
        plan, rival = comparison.plan, comparison.rival
        assert rival is not None, "--against has a default"
        models = _load(model, device, prompts), _load(rival, device, prompts)
        kept = KeptVectors(_work_folder(output), (_identity(models[0], model), _identity(models[1], rival)))
        if kept.folder is not None and kept.folder.is_dir():
            say(f"continuing the run in {kept.folder}")
        diagnosis = run_diagnosis(
            models[0],
            plan.table,
            against=models[1],
            options=options,
            evaluation=plan.options,
            name=comparison.names[0],
            against_name=comparison.names[1],
            train_label_counts=plan.train,
            rows_in_words=plan.rows,
            notes=plan.remarks,
            show_progress=True,
            **_training_of(comparison.provenance),
            kept=kept,
            report=say,
        )
        if output is not None:
            from leanmatch.report import write_page

            write_page(diagnosis, output)
            kept.remove()
            say(f"written: {output}")
        if json:
            print_json({**diagnosis.to_json(), "skipped": len(comparison.table.skipped)})
        else:
            _show(diagnosis)
            if output is None:
                say("no page was written: name one with -o report.html")


def _check_output(output: Path) -> None:
    """Refuse at once what would fail after minutes of work."""
    from leanmatch.report.page import require_jinja

    check_writable(output, folder=False)
    require_jinja()
    output.parent.mkdir(parents=True, exist_ok=True)


def _training_of(provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """Share and steps of the training, as the model's provenance has them."""
    training = (provenance or {}).get("training")
    if not isinstance(training, Mapping):
        return {}
    runs = training.get("history") or {}
    return {
        "average": training.get("average"),
        "steps": max((run["steps"] for run in runs.values()), default=None),
    }


def _work_folder(output: Path | None) -> Path | None:
    """Where vectors lie until the page is written; nothing is kept where there is none."""
    return None if output is None else output.parent / f".{output.name}.diagnosing"


def _identity(encoder: Any, name: str) -> str:
    """What tells a model's vectors from another's."""
    from leanmatch.formats import model_fingerprint

    folder, precision = getattr(encoder, "folder", None), getattr(encoder, "precision", "")
    prompts = getattr(encoder, "prompts", None)
    texts = (prompts.query, prompts.document) if prompts else ()
    return " ".join([name if folder is None else model_fingerprint(folder), precision, *map(repr, texts)])


def _show(diagnosis: Diagnosis) -> None:
    from rich.markup import escape
    from rich.table import Table

    from leanmatch.metrics.tables import LAYOUT, summary_table

    console = stdout_console()
    for line in (diagnosis.source, *diagnosis.sampling):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(summary_table(diagnosis.evaluation))
    words = Table(title="words whose importance moved most surely", **LAYOUT)
    for heading in ("word", "pairs", diagnosis.against, diagnosis.name, "change", "interval"):
        words.add_column(escape(heading), justify="left" if heading == "word" else "right", overflow="fold")
    for moved in (*diagnosis.gained()[:MOST_WORDS], *diagnosis.lost()[:MOST_WORDS]):
        words.add_row(
            escape(moved.word),
            f"{moved.pairs:,}",
            f"{moved.base:.3f}",
            f"{moved.model:.3f}",
            f"[{'green' if moved.difference > 0 else 'red'}]{moved.difference:+.3f}[/]",
            escape(f"[{moved.low:+.3f}, {moved.high:+.3f}]"),
        )
    console.print(words if words.row_count else "no word surely moved")
    parts = Table(title="share of the score that the top word carries, and drift", **LAYOUT)
    for heading in ("slice", "pairs", diagnosis.against, diagnosis.name, "drift"):
        parts.add_column(escape(heading), justify="left" if heading == "slice" else "right", overflow="fold")
    for name, part in diagnosis.parts.items():
        cells = [_percent(part.base.value), _percent(part.model.value)]
        drift = "" if part.drift.value is None else f"{part.drift.value:.2f}"
        parts.add_row(escape(name), f"{part.pairs:,}", *cells, drift)
    console.print(parts)
    for line in (
        *diagnosis.evaluation.verdicts(),
        "What to do now:",
        *(f"- {line}" for line in diagnosis.advice),
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"
