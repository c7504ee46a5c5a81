"""``leanmatch evaluate``: a matcher's metrics in and out of distribution, against another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanmatch.cli.common import JsonOption, print_json, reported_errors, say, stdout_console
from leanmatch.cli.data.command import ColumnOption, DelimiterOption, OnErrorOption
from leanmatch.cli.evaluate.dimensions import by_dimension
from leanmatch.cli.index.options import LexicalWeightOption, RerankOption, RerankTopOption, RerankWeightOption
from leanmatch.cli.matchers import (
    AfterOption,
    HoldOutOption,
    SlicesOption,
    SplitOption,
    SymmetricOption,
    dimension_list,
    load_any,
)
from leanmatch.cli.prompts import (
    DocumentPromptOption,
    PromptNameOption,
    QueryPromptOption,
    prompt_options,
    prompts_in_words,
    with_prompts,
)

if TYPE_CHECKING:
    from leanmatch.metrics import Evaluation, Ranking
    from leanmatch.models import PromptOptions, RoleEncoder, TokenTally

MOST_TABLES = 12
"""With more slices than this, those of column values get no table of their own, just a row in one."""


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or name of the matcher.")],
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="CSV, TSV, JSONL, Parquet, BEIR or XMC folder.")
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Compare with this matcher; 'base': the one MODEL was trained from."
        ),
    ] = None,
    slices: SlicesOption = None,
    hold_out: HoldOutOption = None,
    after: AfterOption = None,
    split: SplitOption = None,
    symmetric: SymmetricOption = None,
    propensity: Annotated[
        str, typer.Option(help="Constants of PSP: default, amazon or wikipedia.")
    ] = "default",
    runtime: Annotated[
        bool, typer.Option("--runtime", help="Encode as leanmatch serve does: with leanmatch's own runtime.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a forward pass.")] = 64,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    query_prompt: QueryPromptOption = None,
    document_prompt: DocumentPromptOption = None,
    prompt_name: PromptNameOption = None,
    hybrid: Annotated[
        bool,
        typer.Option(
            "--hybrid", help="Rank by terms, too, as a hybrid catalogue does; --against stays as it is."
        ),
    ] = False,
    lexical_weight: LexicalWeightOption = None,
    rerank: RerankOption = None,
    rerank_top: RerankTopOption = 50,
    rerank_weight: RerankWeightOption = 0.5,
    dimensions: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="Measure MODEL with these numbers of leading dimensions: 384,192. Without --against, each "
            "is compared with the largest.",
        ),
    ] = None,
    column: ColumnOption = None,
    on_error: OnErrorOption = "raise",
    delimiter: DelimiterOption = None,
    json: JsonOption = False,
) -> None:
    """Measure a matcher on pairs: overall, in and out of distribution, by slice, with intervals."""
    with reported_errors():
        from leanmatch.cli.evaluate.plan import compare_on
        from leanmatch.metrics import evaluate as run_evaluation
        from leanmatch.models import TokenTally

        prompts = prompt_options(query_prompt, document_prompt, prompt_name)
        ranking = _ranking(hybrid, lexical_weight, (rerank, rerank_top, rerank_weight), device)
        comparison = compare_on(
            data,
            model,
            against,
            hold_out=hold_out,
            after=after,
            split=split,
            slices=slices,
            symmetric=symmetric,
            propensity=propensity,
            column=column,
            on_error=on_error,
            delimiter=delimiter,
        )
        plan, rival, names = comparison.plan, comparison.rival, comparison.names
        if ranking is not None:
            how = "hybrid" if hybrid else "reranked"
            names = f"{names[0].removesuffix(' (model)')} ({how})", names[1].removesuffix(" (against)")
        tally = TokenTally()
        kept = dimension_list(dimensions)
        encoder = _load(model, device, batch_size, runtime, prompts, tally, kept)
        other = None if rival is None else _load(rival, device, batch_size, runtime, prompts)

        def measure(matcher: Any, name: str, against: Any, against_name: str, alike: bool) -> Evaluation:
            return run_evaluation(
                matcher,
                plan.table,
                options=plan.options,
                against=against,
                name=name,
                against_name=against_name,
                train_label_counts=plan.train,
                ranking=ranking,
                against_ranking=ranking if alike else None,
            )

        smaller: dict[int, Evaluation] = {}
        if kept is None:
            evaluation = measure(encoder, names[0], other, names[1], False)
        else:
            evaluation, smaller = by_dimension(measure, encoder, other, kept, names)
        evaluation = plan.annotated(evaluation)
        if tally.counts.truncated:
            evaluation = replace(evaluation, notes=(*evaluation.notes, tally.counts.sentence()))
        if json:
            document = {**evaluation.to_json(), "skipped": len(comparison.table.skipped)}
            if kept is not None:
                measured = {kept[0]: evaluation, **smaller}
                document["dimensions"] = {str(number): each.to_json() for number, each in measured.items()}
            print_json({**document, "tokens": tally.counts.to_json()})
        else:
            _show(evaluation)
            for each in smaller.values():
                _show_summary(each)


def _load(
    model: str,
    device: str,
    batch_size: int,
    runtime: bool,
    prompts: PromptOptions,
    tally: TokenTally | None = None,
    dimensions: tuple[int, ...] | None = None,
) -> RoleEncoder:
    from leanmatch.models import RoleEncoder, check_dimensions

    encoder: Any
    if runtime:
        from leanmatch.runtime import load

        say(f"loading {model}")
        encoder = with_prompts(load(model, runtime="native"), prompts)
    else:
        encoder = load_any(model, device, prompts)
    if dimensions is not None:
        check_dimensions(encoder, dimensions)
        encoder.truncate_dim = dimensions[0]
    if words := prompts_in_words(encoder):
        say(words)
    return RoleEncoder(encoder, batch_size=batch_size, show_progress_bar=True, tally=tally)


def _ranking(
    hybrid: bool, lexical_weight: float | None, reranking: tuple[str | None, int, float], device: str
) -> Ranking | None:
    """How MODEL ranks, None for by cosine alone; what is missing is told before the work starts."""
    from leanmatch.lexical.bm25 import bm25s_module
    from leanmatch.metrics import Ranking

    rerank, rerank_top, rerank_weight = reranking
    if not hybrid and rerank is None and lexical_weight is None:
        return None
    reranker = None
    if hybrid:
        bm25s_module("ranking by terms")
    if rerank is not None:
        from leanmatch.metrics.ranking.fusion import RememberingReranker
        from leanmatch.runtime import load_reranker

        reranker = RememberingReranker(load_reranker(rerank, device=device))
    return Ranking(hybrid, lexical_weight, reranker, rerank_top, rerank_weight)


def _show(evaluation: Evaluation) -> None:
    from leanmatch.metrics.tables import slice_table, summary_table

    console = stdout_console()
    for line in (f"{evaluation.source}: {evaluation.split}", f"candidates: {evaluation.candidates}"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    distinct = [part for part in evaluation.slices.values() if part.same_as is None]
    detailed = distinct if len(distinct) <= MOST_TABLES else [p for p in distinct if p.kind != "column value"]
    for part in detailed:
        console.print(slice_table(evaluation, part.name))
    if len(evaluation.slices) > 1:
        console.print(summary_table(evaluation))
    _print_lines(evaluation)


def _show_summary(evaluation: Evaluation) -> None:
    from leanmatch.metrics.tables import summary_table

    stdout_console().print(summary_table(evaluation))
    _print_lines(evaluation)


def _print_lines(evaluation: Evaluation) -> None:
    console = stdout_console()
    for line in (*(f"note: {note}" for note in evaluation.notes), *evaluation.verdicts()):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
