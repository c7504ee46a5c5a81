"""``leanmatch train``: pairs in, a robust matcher out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanmatch.cli.checks import check_models, check_writable
from leanmatch.cli.common import (
    JsonOption,
    print_json,
    reported_errors,
    stderr_console,
    stdout_console,
)
from leanmatch.cli.common import say as say_aloud
from leanmatch.cli.data.command import (
    ColumnOption,
    DelimiterOption,
    OnErrorOption,
    SharedPositivesOption,
    TextColumnsOption,
)
from leanmatch.cli.matchers import dimension_list
from leanmatch.cli.pairs import read_table, read_unlabelled
from leanmatch.cli.prompts import DocumentPromptOption, PromptNameOption, QueryPromptOption
from leanmatch.cli.train.request import TrainRequest, number_or_auto
from leanmatch.cli.train.verdict import held_out_verdict, next_command, show_verdict

if TYPE_CHECKING:
    from leanmatch.data import PairTable, Split
    from leanmatch.training import TrainOptions, TrainResult
    from leanmatch.types import EncodeFunction

SKIPPED_KEPT = 100
"""Bad rows of ``--on-error skip`` that the result and ``leanmatch.json`` list; all are counted."""


def train(
    data: Annotated[
        Path, typer.Argument(help="Pairs: CSV, TSV, JSONL, Parquet (also .gz), a BEIR or an XMC folder.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the trained model.")],
    base: Annotated[str | None, typer.Option(help="Model name or folder to start from.")] = None,
    regularizer: Annotated[str | None, typer.Option(help="itv, out, mask or none.")] = None,
    weight: Annotated[str | None, typer.Option(help="Weight of the regularizer, or auto.")] = None,
    average: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            help="Average with the base: the share of trained parameters (0 to 1.5), or auto.",
        ),
    ] = None,
    refit: Annotated[
        bool | None,
        typer.Option(
            "--refit/--no-refit",
            help="Whether the pairs set aside for choosing the average are also trained on.",
        ),
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(help="Unlabelled texts from where the model will be used: items or queries."),
    ] = None,
    text_columns: TextColumnsOption = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option(metavar="COL=VALUE", help="Rows only for testing, out of distribution."),
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="DATE", help="Rows from this date on are only for testing.")
    ] = None,
    valid_fraction: Annotated[
        float | None, typer.Option(help="Share for validation, unless rows are marked valid.")
    ] = None,
    test_fraction: Annotated[
        float | None, typer.Option(help="Share for testing, unless there is a split column.")
    ] = None,
    leakage: Annotated[
        str | None, typer.Option(help="Rows that leak into a test: remove, report or ignore.")
    ] = None,
    near_duplicates: Annotated[
        bool | None,
        typer.Option("--near-duplicates/--no-near-duplicates", help="Whether near-duplicates leak."),
    ] = None,
    shared_positives: SharedPositivesOption = None,
    column: ColumnOption = None,
    on_error: OnErrorOption = "raise",
    delimiter: DelimiterOption = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the pairs.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Optimizer steps, instead of epochs.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Time limit of training; cuts the steps.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pairs a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random choices.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    precision: Annotated[str | None, typer.Option(help="auto, fp32, bf16 or fp16.")] = None,
    mini_batch_size: Annotated[
        int | None, typer.Option(help="Texts in memory at once (gradient cache).")
    ] = None,
    gather_across_devices: Annotated[
        bool | None,
        typer.Option(
            "--gather-across-devices/--no-gather-across-devices",
            help="Under torchrun: negatives of all processes.",
            show_default=False,
        ),
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Cut texts to this many tokens in training.")] = None,
    early_stopping: Annotated[
        int | None, typer.Option(help="Stop after N evaluations without gain; 0: never.")
    ] = None,
    interventions: Annotated[
        str | None, typer.Option("--intervention", help="auto, mask, delete or replace.")
    ] = None,
    per_text: Annotated[
        float | None, typer.Option(help="Edited copies of each text; below 1, the share of edited texts.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="Intervene on a token or a word.")] = None,
    matching: Annotated[str | None, typer.Option(help="effect, score or one-sided.")] = None,
    pairs: Annotated[str | None, typer.Option(help="all in-batch pairs or the diagonal.")] = None,
    sides: Annotated[str | None, typer.Option(help="alternate, both, anchor or positive.")] = None,
    negatives: Annotated[str | None, typer.Option(help="given, mined or none.")] = None,
    freeze_layers: Annotated[int | None, typer.Option(help="Lowest layers to freeze.")] = None,
    lora_rank: Annotated[int | None, typer.Option(help="Rank of LoRA adapters; 0: all weights.")] = None,
    dimensions: Annotated[
        str | None,
        typer.Option(
            metavar="N,...",
            help="Also make these numbers of leading dimensions work by themselves (Matryoshka): 192,96.",
        ),
    ] = None,
    query_prompt: QueryPromptOption = None,
    document_prompt: DocumentPromptOption = None,
    prompt_name: PromptNameOption = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with options; flags override it.")] = None,
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Continue an interrupted run.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT if it exists.")] = False,
    json: JsonOption = False,
) -> None:
    """Fine-tune a text matcher on pairs so that it keeps its quality out of distribution."""
    with reported_errors(resumes=resume):
        request = TrainRequest(
            data=data,
            output=output,
            column=column,
            on_error=on_error,
            delimiter=delimiter,
            target=target,
            text_columns=text_columns,
            overwrite=overwrite,
            resume=resume,
            as_json=json,
            config=config,
            options={
                "base": base,
                "average": number_or_auto("--average", average),
                "refit": refit,
                "negatives": negatives,
                "freeze_layers": freeze_layers,
                "lora_rank": lora_rank,
                "dimensions": dimension_list(dimensions),
            },
            regularizer={
                "kind": regularizer,
                "weight": number_or_auto("--weight", weight),
                "interventions": interventions,
                "per_text": per_text,
                "unit": unit,
                "matching": matching,
                "pairs": pairs,
                "sides": sides,
            },
            schedule={
                "epochs": epochs,
                "max_steps": max_steps,
                "minutes": minutes,
                "batch_size": batch_size,
                "lr": lr,
                "seed": seed,
                "device": device,
                "precision": precision,
                "mini_batch_size": mini_batch_size,
                "gather_across_devices": gather_across_devices,
                "max_length": max_length,
                "early_stopping": early_stopping,
            },
            prompts={"query": query_prompt, "document": document_prompt, "name": prompt_name},
            split={
                "hold_out": hold_out,
                "after": after,
                "valid_fraction": valid_fraction,
                "test_fraction": test_fraction,
                "leakage": leakage,
                "near_duplicates": near_duplicates,
                "shared_positives": shared_positives,
            },
        )
        summary = run(request)
        if json and summary is not None:
            print_json(summary)


def run(request: TrainRequest) -> dict[str, Any] | None:
    """Do what was asked for. Only the first of several processes returns a summary."""
    check_writable(request.output, folder=True)
    from leanmatch.cli.train.options import gather_options

    options, split_options = gather_options(request)
    first = int(os.environ.get("RANK", "0")) == 0  # of the processes of torchrun
    say = say_aloud if first else _say_nothing
    output = request.output

    from leanmatch.data import split_pairs
    from leanmatch.formats import check_target

    check_target(output, overwrite=request.overwrite)  # now, not after hours of training
    check_models(options.base)
    target = read_unlabelled(request.target, "--target", request, say)
    table = read_table(
        request.data,
        column=request.column,
        on_error=request.on_error,
        delimiter=request.delimiter,
        say=say,
    )
    split = split_pairs(table, split_options)
    say(
        f"{len(table)} rows: {len(split.train)} train, {len(split.valid)} validation, "
        f"{len(split.test_in)} test in distribution, {len(split.test_out)} out; "
        f"{sum(split.leakage.removed.values())} leaking rows removed"
    )
    for note in split.notes:
        say(note)
    result, matcher = _fit(options, split, target, output, request.resume, say)
    if not first:
        return None
    target_data = {"source": str(request.target), "texts": len(target)} if request.target else None
    summary = _save(result, matcher, options, split, table, request, say, target=target_data)
    if result.average:  # there is nothing to diagnose in the base model itself
        say(next_command(output, request.data, tested=summary["test"] is not None))
    return summary


def _say_nothing(remark: str) -> None:
    """What the other processes say."""


def _fit(
    options: TrainOptions,
    split: Split,
    target: list[str],
    output: Path,
    resume: bool,
    say: Callable[[str], None],
) -> tuple[TrainResult, Path]:
    from leanmatch.formats.reader import load_matcher
    from leanmatch.training import fit

    model = load_matcher(options.base, device=options.schedule.device)
    work = output.parent / f".{output.name}.training"
    result = fit(
        model,
        split.train,
        split.valid if len(split.valid) else None,
        options,
        work,
        resume=resume,
        group_columns=list(dict.fromkeys(item.partition("=")[0] for item in split.options.hold_out)),
        by_time=split.options.after is not None,
        report=say,
        encoder_of=_encoder_maker(say),
        target=target,
    )
    return result, work


def _encoder_maker(say: Callable[[str], None]) -> Callable[[Any], EncodeFunction]:
    """Validation encodes natively, but under torchrun, where only the first process can write models."""
    from leanmatch.runtime import TwinEncoders
    from leanmatch.training.selection.evaluator import encode_function

    return TwinEncoders(encode_function, say) if "WORLD_SIZE" not in os.environ else encode_function


def _save(
    result: TrainResult,
    work: Path,
    options: TrainOptions,
    split: Split,
    table: PairTable,
    request: TrainRequest,
    say: Callable[[str], None],
    *,
    target: dict[str, Any] | None,
) -> dict[str, Any]:
    import shutil

    from leanmatch.formats import rewrite_model_card, save_matcher
    from leanmatch.metrics import retrieval_score
    from leanmatch.models import Prefix
    from leanmatch.report.pairs import Remembering

    output = request.output
    encode = _encoder_maker(_say_nothing)(result.model)
    metrics = {}
    relevant = split.valid.relevant()
    if any(a != p for a, p in zip(relevant.anchors, relevant.positives, strict=True)):
        whole = Remembering(encode, name="model")
        metrics["valid MRR@10"] = retrieval_score(whole, split.valid, "MRR@10")
        for kept in options.dimensions or ():
            matcher = Prefix(whole, kept)
            metrics[f"valid MRR@10, {kept} dimensions"] = retrieval_score(matcher, split.valid, "MRR@10")
    left_out = {
        "skipped": len(table.skipped),
        "skipped_rows": [row.to_json() for row in table.skipped[:SKIPPED_KEPT]],
    }
    data = {
        "source": str(table.source),
        "fingerprint": table.fingerprint(),
        "rows": len(table),
        "columns": table.columns_read,
        **({} if target is None else {"target": target}),
    }
    base = Path(options.base)
    provenance = {
        # whoever evaluates against the base may stand elsewhere
        "base": str(base.absolute()) if base.is_dir() else options.base,
        "data": data | left_out,
        "split": split.manifest(),
        "options": options.to_json(),
        "training": result.to_json(),
        "metrics": metrics,
    }
    saved = save_matcher(result.model, output, provenance, overwrite=request.overwrite)
    shutil.rmtree(work)
    say(f"saved to {output} (loaded again, its vectors are the same: cosine {saved.parity.min_cosine:.6f})")
    verdict = held_out_verdict(output, str(provenance["base"]), table, options.schedule.device, say)
    if verdict is not None:
        rewrite_model_card(output, verdict.to_json())
        show_verdict(verdict, result, stderr_console() if request.as_json else stdout_console())
    return {
        "model": str(output),
        "base": options.base,
        "metrics": metrics,
        "test": None if verdict is None else verdict.to_json(),
        **left_out,
        **result.to_json(),
    }
