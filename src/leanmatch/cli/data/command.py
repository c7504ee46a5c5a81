"""``leanmatch data``: look at pairs, split them, make the See Also graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanmatch.cli.checks import check_models, check_writable
from leanmatch.cli.common import Commands, JsonOption, print_json, reported_errors, stdout_console
from leanmatch.cli.help import example
from leanmatch.cli.pairs import read_table
from leanmatch.errors import LeanmatchError

if TYPE_CHECKING:
    from leanmatch.data import PairTable, Split
    from leanmatch.models import TokenCounts

app = Commands(help="Look at pairs, split them, make example data.", no_args_is_help=True)

ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="OURS=THEIRS",
        help="Read your column as ours: anchor=query. May be repeated.",
    ),
]
IdColumnOption = Annotated[str | None, typer.Option("--id-column", help="Column of identifiers.")]
TextColumnsOption = Annotated[
    list[str] | None,
    typer.Option("--text-column", metavar="NAME", help="Column of the text; several are joined."),
]
DelimiterOption = Annotated[
    str | None,
    typer.Option(
        "--delimiter",
        help="Field separator of CSV: a character, or comma, semicolon, tab or pipe. Default: detected.",
    ),
]
OnErrorOption = Annotated[
    str, typer.Option("--on-error", help="raise: stop at a bad row; skip: leave it out.")
]
NearOption = Annotated[
    bool, typer.Option("--near-duplicates/--no-near-duplicates", help="Look for near-duplicate texts, too.")
]
SharedPositivesOption = Annotated[
    bool | None,
    typer.Option(
        "--shared-positives/--own-positives",
        help="Positives are a catalogue that all parts share: only anchors and whole pairs leak.",
    ),
]


@app.command(epilog=example("data check pairs.csv --column anchor=query"))
def check(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL, Parquet (.gz too), BEIR or XMC folder.")],
    column: ColumnOption = None,
    on_error: OnErrorOption = "skip",
    delimiter: DelimiterOption = None,
    near_duplicates: NearOption = True,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Also count the tokens that this model would cut off.", show_default=False
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Print what is in a file of pairs: counts, duplicates, bad rows, lengths, overlap between splits."""
    with reported_errors():
        from leanmatch.data import check_pairs

        check_models(model)
        table = read_table(file, column=column, on_error=on_error, delimiter=delimiter, list_skipped=False)
        report = check_pairs(table, near_duplicates=near_duplicates)
        counts = {} if model is None else _token_counts(model, table)
        if json:
            tokens = {column: count.to_json() for column, count in counts.items()}
            print_json(report.to_json() | ({"tokens": tokens} if counts else {}))
        else:
            from leanmatch.cli.data.tables import report_tables

            stdout_console().print(*report_tables(report), sep="\n")
            for side, count in counts.items():
                cut_off = count.sentence() or f"{count.tokens:,} tokens, none of them cut off"
                stdout_console().print(f"{side} texts: {cut_off}", highlight=False, soft_wrap=True)


def _token_counts(model: str, table: PairTable) -> dict[str, TokenCounts]:
    """Token counts of the distinct texts of both sides, each with the model's prompt."""
    from leanmatch.runtime import load

    encoder = load(model)
    sides = {
        "anchor": (table.anchors, encoder.prompts.query),
        "positive": (table.positives, encoder.prompts.document),
    }
    return {
        column: encoder.count_tokens(list(dict.fromkeys(texts)), prompt=prompt)
        for column, (texts, prompt) in sides.items()
    }


@app.command(epilog=example("data split pairs.csv --hold-out category=Toys -o split.json"))
def split(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL, Parquet (.gz too), BEIR or XMC folder.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="MANIFEST", help="Where to write the split.")
    ],
    hold_out: Annotated[
        list[str] | None, typer.Option(metavar="COL=VALUE", help="Test out of distribution on these rows.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="DATE", help="Test out of distribution on rows from this date on.")
    ] = None,
    valid_fraction: Annotated[float, typer.Option(help="Share of rows for validation.")] = 0.1,
    test_fraction: Annotated[float, typer.Option(help="Share of rows for the test in distribution.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the random choices.")] = 0,
    leakage: Annotated[
        str, typer.Option(help="Rows that leak into a test: remove, report or ignore.")
    ] = "remove",
    near_duplicates: NearOption = True,
    shared_positives: SharedPositivesOption = None,
    column: ColumnOption = None,
    on_error: OnErrorOption = "raise",
    delimiter: DelimiterOption = None,
    write_parts: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write train, valid and tests as Parquet files.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a manifest and parts that are there.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Split pairs into train, valid, test_in and test_out, without leakage, and write a manifest."""
    with reported_errors():
        from leanmatch.data import SplitOptions, split_pairs, write_manifest

        options = SplitOptions(
            hold_out=tuple(hold_out or ()),
            after=after,
            valid_fraction=valid_fraction,
            test_fraction=test_fraction,
            seed=seed,
            leakage=leakage,  # type: ignore[arg-type]  # SplitOptions checks it
            near_duplicates=near_duplicates,
            shared_positives=shared_positives,
        )
        _check_targets(output, write_parts, overwrite)
        table = read_table(file, column=column, on_error=on_error, delimiter=delimiter)
        result = split_pairs(table, options)
        if write_parts is not None:
            _write_parts(result, write_parts, overwrite)
        write_manifest(result, output)
        if json:
            manifest = result.manifest()
            manifest["parts"] = {name: part["rows"] for name, part in manifest["parts"].items()}
            print_json(manifest | {"manifest": str(output)})
        else:
            from leanmatch.cli.data.tables import split_tables

            console = stdout_console()
            console.print(*split_tables(result), sep="\n")
            console.print(f"written: {output}", markup=False, highlight=False, soft_wrap=True)


@app.command("see-also", epilog=example("data see-also -o see-also/"))
def see_also(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what an earlier call wrote.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write the See Also graph of the installed scientific packages as pairs and items."""
    with reported_errors():
        from leanmatch.data.see_also.build import write_see_also

        summary = write_see_also(output, overwrite=overwrite, show_progress=True)
        if json:
            print_json(summary.to_json())
        else:
            from leanmatch.cli.data.tables import see_also_table

            stdout_console().print(see_also_table(summary))


def _check_targets(manifest: Path, parts: Path | None, overwrite: bool) -> None:
    """Refuse what is there: without ``overwrite`` anything, with it what a split did not write."""
    from leanmatch.data.splitting.manifest import is_split_manifest
    from leanmatch.data.splitting.parts import PARTS

    check_writable(manifest, folder=False)
    if parts is not None:
        check_writable(parts, folder=True)
    if manifest.exists() and not overwrite:
        raise LeanmatchError(f"{manifest} exists already", remedy="name another file or pass --overwrite")
    if manifest.exists() and not is_split_manifest(manifest):
        raise LeanmatchError(f"{manifest} exists and is no manifest of a split", remedy="name another file")
    if parts is None or not parts.exists():
        return
    ours = {*(parts / f"{name}.parquet" for name in PARTS), manifest}
    others = sorted(path.name for path in parts.iterdir() if path not in ours)
    if others:
        raise LeanmatchError(
            f"{parts} holds what is no part of a split: {others[0]}", remedy="name another folder"
        )
    if not overwrite and any(parts.iterdir()):
        raise LeanmatchError(f"{parts} exists already", remedy="name another folder or pass --overwrite")


def _write_parts(result: Split, folder: Path, overwrite: bool) -> None:
    from leanmatch.data import write_pairs
    from leanmatch.data.splitting.parts import PARTS
    from leanmatch.files import atomic_folder

    with atomic_folder(folder, overwrite=overwrite) as temporary:
        for name in PARTS:
            write_pairs(getattr(result, name), temporary / f"{name}.parquet")
