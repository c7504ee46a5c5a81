"""``leanmatch compress``: a model in, a smaller one out, at a quality or a size that the user names."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanmatch.cli.checks import check_models, check_writable
from leanmatch.cli.common import (
    EXIT_FAILED,
    JsonOption,
    print_json,
    reported_errors,
    stderr_console,
    stdout_console,
)
from leanmatch.cli.compress.menu import show_menu
from leanmatch.cli.compress.request import CompressRequest
from leanmatch.cli.data.command import ColumnOption, DelimiterOption, OnErrorOption, TextColumnsOption

if TYPE_CHECKING:
    from leanmatch.cli.compress.task import Work
    from leanmatch.compression.planner.budget import Budget
    from leanmatch.compression.planner.clock import Clock
    from leanmatch.compression.planner.menu import Menu
    from leanmatch.compression.planner.plan import Planned, Planner


def compress(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or name of the model.")],
    data: Annotated[
        Path,
        typer.Option("--data", help="Pairs to learn from and to judge on: a file, a BEIR or XMC folder."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the compressed model.")],
    task: Annotated[
        str, typer.Option(help="match: texts to vectors; classify: texts (anchor) to classes (positive).")
    ] = "match",
    keep: Annotated[
        str | None,
        typer.Option(metavar="F", help="Share of the metric to keep, overall and on each slice: 0.99."),
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="S", help="Whole folder's size, such as 10MB.")] = None,
    macs: Annotated[
        str | None,
        typer.Option(metavar="X", help="Fewer multiply-adds in the layers, such as 2.67x."),
    ] = None,
    faster: Annotated[
        str | None,
        typer.Option(
            metavar="X", help="Speed on one core here, against int8 of the same model, such as 1.5x."
        ),
    ] = None,
    workload: Annotated[
        str,
        typer.Option("--for", help="What time is measured on: queries (1 x 16 tokens) or bulk (64 x 32)."),
    ] = "bulk",
    menu: Annotated[
        bool, typer.Option("--menu", help="Show the possible plans before training; save nothing.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the menu: a .svg, .png or .pdf file.")
    ] = None,
    pick: Annotated[int | None, typer.Option(metavar="N", help="Train this row of the menu.")] = None,
    spec: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON or YAML specification, instead of a plan.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="LEAN",
            help="Train this compressed version of MODEL further, instead of a plan.",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="stf (factors, then training), post, svd, fwsvd, nm or int8 (with --size also fewer bits)."
        ),
    ] = "stf",
    minutes: Annotated[
        float | None,
        typer.Option(metavar="N", help="Training time of one attempt; two at most with --keep alone."),
    ] = None,
    allow_lower: Annotated[
        bool, typer.Option("--allow-lower", help="Save the best attempt even if it misses --keep.")
    ] = False,
    column: ColumnOption = None,
    texts: Annotated[
        Path | None,
        typer.Option(help="More texts to learn from, without labels: items, queries, logs."),
    ] = None,
    text_columns: TextColumnsOption = None,
    on_error: OnErrorOption = "raise",
    delimiter: DelimiterOption = None,
    batch_size: Annotated[int, typer.Option(min=2, help="Texts a training step.")] = 64,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate of the factors.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random choices.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    resume: Annotated[bool, typer.Option("--resume/--no-resume", help="Continue an interrupted run.")] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT if it exists.")] = False,
    json: JsonOption = False,
) -> None:
    """Make a model smaller or faster at a stated quality. Below it, nothing is saved and the exit code is 1.

    Every model is evaluated twice, before and after training. The best one within the request is saved."""
    request = CompressRequest(
        model=model,
        data=data,
        output=output,
        task=task,
        keep=keep,
        size=size,
        macs=macs,
        faster=faster,
        workload=workload,
        menu=menu,
        plot=plot,
        pick=pick,
        spec=spec,
        start=start,
        method=method,
        minutes=minutes,
        allow_lower=allow_lower,
        column=column,
        texts=texts,
        text_columns=text_columns,
        on_error=on_error,
        delimiter=delimiter,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        device=device,
        resume=resume,
        overwrite=overwrite,
    )
    with reported_errors(resumes=resume):
        summary = run(request)
        if menu:
            show_menu(summary, json)
            return
        if json:
            print_json(summary)
        else:
            _show(summary)
    if not summary["saved"]:
        raise typer.Exit(EXIT_FAILED)


def run(request: CompressRequest) -> dict[str, Any]:
    """Do what was asked for."""
    from leanmatch.cli.compress.amounts import parse_ratio, parse_share, parse_size

    parsers = (
        (request.keep, parse_share),
        (request.size, parse_size),
        (request.macs, parse_ratio),
        (request.faster, lambda words: parse_ratio(words, "faster")),
    )
    for words, parse in parsers:
        if words is not None:
            parse(words)  # refused before torch is imported
    check_writable(request.output, folder=True)
    _require_libraries()
    check_models(request.model)
    from leanmatch.cli.compress.options import gather_options

    options = gather_options(request)
    output: Path = request.output
    console = stderr_console()

    def say(message: str) -> None:
        console.print(message, highlight=False, markup=False, soft_wrap=True)

    from leanmatch.cli.compress.options import default_budget
    from leanmatch.cli.compress.task import clock_of, int8_plan, open_work
    from leanmatch.formats import check_target
    from leanmatch.trainer.work_folder import WorkFolder

    if not request.menu:
        check_target(output, overwrite=request.overwrite)
    work = open_work(request, say)
    int8 = request.method == "int8"  # it takes as long as the int8 that times are compared with
    clock = None if int8 else clock_of(work.model, options.workload)
    if work.start is None:
        options = default_budget(options, clock is not None and request.method in ("stf", "post"))
    folder = output.parent / f".{output.name}.compressing"
    identity = {**options.identity, **work.identity}
    with WorkFolder(folder, identity, resume=request.resume, lock=True) as work_folder:
        if work_folder.resumed:
            say(f"continuing the run in {work_folder.path}")
        planner, budget = _planner(request, options, work, clock, work_folder.path, say)
        if request.menu:
            return _menu(request, planner.menu(budget), clock)
        if request.pick is not None:
            row = planner.menu(budget).row(request.pick)
            say(f"row {row.number}: {planner.words(row.plan)}")
            planned = planner.take(row.plan, budget.keep)
        elif work.start is not None:
            planned = planner.take(work.start.plan, budget.keep)
        elif int8 and budget.size is None and options.spec is None:
            planned = planner.take(int8_plan(work.model), budget.keep)
        else:
            planned = planner.run(budget, options.spec)
        if planned.reached or request.allow_lower:
            summary = _save(request, options, work, planned, clock)
            work_folder.remove()
        else:
            summary = _summary(request, options, planned) | {"saved": False, "work": str(work_folder.path)}
    return summary | {"skipped": work.skipped}


def _require_libraries() -> None:
    from leanmatch.errors import MissingExtraError

    for library in ("torch", "transformers", "sentence_transformers"):
        try:
            importlib.import_module(library)
        except ModuleNotFoundError as error:
            raise MissingExtraError(library, "train", "compressing a model") from error


def _planner(
    request: CompressRequest, options: Any, work: Work, clock: Clock | None, folder: Path, say: Any
) -> tuple[Planner, Budget]:
    from dataclasses import replace

    from leanmatch.cli.compress.task import overhead
    from leanmatch.compression.planner.plan import Planner

    budget = options.budget
    if budget.size is not None:
        rest = overhead(work)
        budget = replace(budget, beside=rest)
        say(f"tokenizer and configurations take {rest:,} of the {budget.size:,} bytes")
    training = options.training
    if work.start is not None:
        training = replace(training, begin=work.start.record["steps"])
    planner = Planner(
        work.model,
        work.task,
        folder,
        method=request.method,
        training=training,
        clock=clock,
        report=say,
        start=None if work.start is None else work.start.model,
    )
    return planner, budget


def _menu(request: CompressRequest, menu: Menu, clock: Clock | None) -> dict[str, Any]:
    summary = {
        **menu.to_json(),
        "workload": None if clock is None else str(clock.workload),
        "machine": None if clock is None else clock.machine,
    }
    if request.plot is not None:
        from leanmatch.cli.compress.menu import draw

        draw(summary, request.plot)
    return summary


def _summary(request: CompressRequest, options: Any, planned: Planned) -> dict[str, Any]:
    chosen, keep = planned.chosen, options.budget.keep
    evaluated = [
        {
            "budget": attempt.plan.label,
            "faster": attempt.plan.faster,
            "dropped": list(attempt.plan.dropped),
            "trained": attempt.trained,
            "chosen": attempt is chosen,
            **attempt.quality.to_json(),
            "training": attempt.training,
        }
        for attempt in planned.attempts
    ]
    return {
        "model": request.model,
        "output": str(request.output),
        "saved": True,
        "reached": planned.reached,
        "method": request.method,
        "from": None if request.start is None else str(request.start),
        "asked": options.asked,
        "quality": chosen.quality.to_json(),
        "verdict": None if keep is None else chosen.quality.verdict(keep),
        "missed_on": [] if keep is None else [part["slice"] for part in chosen.quality.below(keep)],
        "faster": chosen.plan.faster,
        "dropped": list(chosen.plan.dropped),
        "evaluated": evaluated,
        "attempts": [entry for entry in evaluated if entry["trained"]]
        or [entry for entry in evaluated if entry["chosen"]],
        "seconds": {part: round(seconds, 1) for part, seconds in planned.seconds.items()},
        "cpu_seconds": {part: round(seconds, 1) for part, seconds in planned.cpu_seconds.items()},
    }


def _save(
    request: CompressRequest, options: Any, work: Work, planned: Planned, clock: Clock | None
) -> dict[str, Any]:
    from leanmatch.formats import save_compressed

    chosen = planned.chosen
    summary = _summary(request, options, planned)
    quality = {**chosen.quality.to_json(), "reached": planned.reached, "asked": options.asked}
    training = {name: summary[name] for name in ("method", "attempts", "evaluated")}
    if work.start is not None:
        training |= {"method": work.start.method, "start": work.start.record}
    machine = None
    if clock is not None:
        machine = {
            **clock.machine,
            "workload": clock.workload.name,
            "texts": clock.workload.texts,
            "tokens": clock.workload.tokens,
            "faster": chosen.plan.faster,
            "encoder_layers": work.encoder_layers,
        }
    saved = save_compressed(
        planned.model,
        request.output,
        {**work.provenance, "options": options.identity["options"], "training": training, "machine": machine},
        tokenizer=work.task.tokenizer,
        spec=chosen.plan.spec,
        quality=quality,
        errors=chosen.errors,
        overwrite=request.overwrite,
    )
    report = saved.report
    return {
        **summary,
        "folder_bytes": saved.bytes,
        "bytes": report["bytes"],
        "dense": report["dense"],
        "layer_macs": report["layer_macs"],
        "parity": saved.parity.min_cosine,
        "machine": machine,
    }


def _state_in_words(state: dict[str, Any], untrained: str) -> str:
    from leanmatch.compression.planner.quality import Quality

    quality = Quality.within(state)
    kept, low, high = quality.estimate
    worst = quality.worst_slice
    but = "" if worst is None else f", {worst['kept']:.1%} on {worst['slice']}"
    how = f"trained {state['training']['steps']:,} steps" if state["trained"] else untrained
    mark = " <- the best" if state["chosen"] else ""
    return f"{state['budget']}, {how}: {kept:.1%} kept ({low:.1%} to {high:.1%}){but}{mark}"


def _speed_words(summary: dict[str, Any]) -> list[str]:
    machine = summary["machine"]
    if machine is None or summary["faster"] is None:
        return []
    ratio = summary["faster"]
    verdict = (
        f"{ratio:.2f}x as fast as int8 of the same model"
        if ratio > 1
        else (f"NOT faster than int8 of the same model ({ratio:.2f}x)")
    )
    noise = (
        f"; times differed by {machine['spread']:.0%}: measure again when idle" if machine["noisy"] else ""
    )
    dropped = (
        f"; {len(summary['dropped'])} of {machine['encoder_layers']} encoder layers left out"
        if summary["dropped"]
        else ""
    )
    return [
        f"{verdict} on this machine ({machine['level']}, {machine['texts']} x {machine['tokens']} tokens, "
        f"one core){dropped}{noise}"
    ]


def _show(summary: dict[str, Any]) -> None:
    from leanmatch.compression.planner.quality import Quality

    console = stdout_console()
    quality = Quality(**summary["quality"])
    untrained = "one shot" if summary["from"] is None else "before more training"
    lines = []
    if not summary["saved"]:
        lines += [
            f"No model was saved: the best of {len(summary['evaluated'])} models keeps less than was asked "
            f"for. {quality.verdict_sentence(summary['asked']['keep'])}",
            *(f"  {line}" for line in quality.slice_sentences(summary["asked"]["keep"])),
            *(f"  {_state_in_words(state, untrained)}" for state in summary["evaluated"]),
            "To save the best one, run the same command with --allow-lower. It is kept in "
            f"{summary['work']}.",
            "More --minutes, more training texts or another --method may reach what was asked for.",
        ]
    else:
        dense, sizes = summary["dense"], summary["bytes"]
        if not summary["reached"]:
            lines.append("The model keeps less than was asked for; saved because of --allow-lower.")
        if summary["verdict"] is not None:
            lines.append(quality.verdict_sentence(summary["asked"]["keep"]))
        lines += [
            quality.sentence(),
            *(f"  {line}" for line in quality.slice_sentences(summary["asked"]["keep"])),
            *(
                f"  {_state_in_words(state, untrained)}"
                for state in summary["evaluated"]
                if len(summary["evaluated"]) > 1
            ),
            f"weights: {sizes['weights']:,} bytes, {dense['bytes'] / sizes['weights']:.2f}x fewer than in "
            f"float32; whole folder {summary['folder_bytes']:,}",
            f"multiply-adds a token in compressed layers: {summary['layer_macs']:,}, "
            f"{dense['layer_macs'] / max(1, summary['layer_macs']):.2f}x fewer",
            *_speed_words(summary),
            f"saved to {summary['output']} (loaded again, its vectors are the same: cosine "
            f"{summary['parity']:.6f})",
        ]
        if summary["verdict"] not in (None, "shown"):
            lines.append(
                f"To train it further: leanmatch compress {summary['model']} --data ... "
                f"--from {summary['output']} --minutes N -o NEW"
            )
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
