"""``leanmatch index MODEL ITEMS -o CATALOGUE`` and ``--add FILE``, ...: the spelling before subcommands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanmatch.cli.common import JsonOption, reported_errors, say
from leanmatch.cli.data.command import DelimiterOption, IdColumnOption, OnErrorOption, TextColumnsOption
from leanmatch.cli.index import operations
from leanmatch.cli.index.operations import Encoding, show, write_options
from leanmatch.cli.index.options import DeviceOption, KindOption, OverwriteOption, PrecisionOption
from leanmatch.cli.index.reading import Reading
from leanmatch.errors import UsageError

OLD_SPELLING = "old-spelling"


def old_spelling(
    model: Annotated[
        str | None, typer.Argument(help="Model folder or name; changes take the catalogue's own by default.")
    ] = None,
    items: Annotated[
        Path | None, typer.Argument(help="Items: CSV, TSV, JSONL, Parquet, or a BEIR folder or corpus.jsonl.")
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="The catalogue's folder.", show_default=False)
    ] = ...,  # type: ignore[assignment]
    add: Annotated[
        Path | None, typer.Option("--add", help="Items to add, or to replace where the id is there.")
    ] = None,
    update: Annotated[
        Path | None,
        typer.Option("--update", help="Items to change; columns the file lacks keep their values."),
    ] = None,
    delete: Annotated[
        Path | None, typer.Option("--delete", help="Items to delete: one id a line, or a table with ids.")
    ] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Encode the catalogue's own items with MODEL.")
    ] = False,
    reference: Annotated[
        Path | None,
        typer.Option("--reference", help="Training pairs or texts that live queries are compared with."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Read every file and compare checksums.")] = False,
    kind: KindOption = None,
    id_column: IdColumnOption = None,
    text_columns: TextColumnsOption = None,
    on_error: OnErrorOption = "raise",
    delimiter: DelimiterOption = None,
    overwrite: OverwriteOption = False,
    as_json: JsonOption = False,
    device: DeviceOption = "auto",
    precision: PrecisionOption = None,
) -> None:
    """The spelling of versions before 0.2: one command with a flag a mode."""
    with reported_errors():
        flags = {
            "--add": add,
            "--update": update,
            "--delete": delete,
            "--rebuild": rebuild,
            "--reference": reference,
            "--check": check,
        }
        mode = _mode({name for name, value in flags.items() if value}, model, items)
        file = add or update or delete or reference
        _notice(mode, output, model, items or file)
        reading = Reading(id_column, text_columns, on_error, delimiter)
        encoding = Encoding(model, device, precision)
        with write_options(kind) as options:
            if mode == "check":
                show(operations.check(output), output, reading, as_json)
            elif mode == "rebuild":
                show(operations.rebuild(output, encoding, options), output, reading, as_json)
            elif mode == "build":
                assert items is not None
                result = operations.build(items, output, encoding, reading, options, overwrite=overwrite)
                show(result, output, reading, as_json)
            else:
                assert file is not None
                if mode == "delete":
                    show(operations.delete(file, output, reading, options), output, reading, as_json)
                elif mode == "reference":
                    show(operations.reference(file, output, encoding, reading), output, reading, as_json)
                else:
                    patch = mode == "update"
                    change = operations.change(file, output, encoding, reading, options, patch=patch)
                    show(change, output, reading, as_json)


def _mode(flags: set[str], model: str | None, items: Path | None) -> str:
    """The subcommand that the flags stand for."""
    if len(flags) > 1:
        raise UsageError(f"{' and '.join(sorted(flags))} together", remedy="give one of them a call")
    if not flags and (model is None or items is None):
        raise UsageError("there is nothing to do", remedy="leanmatch index --help lists the commands")
    if flags and items is not None:
        raise UsageError(f"ITEMS does not go with {min(flags)}", remedy="leave it out")
    if flags == {"--rebuild"} and model is None:
        raise UsageError("--rebuild needs a model", remedy="leanmatch index rebuild CATALOGUE MODEL")
    return min(flags).removeprefix("--") if flags else "build"


def _notice(mode: str, folder: Path, model: str | None, file: Path | None) -> None:
    """Say the new spelling."""
    words: dict[str, tuple[object, ...]] = {
        "build": (model, file, "-o", folder),
        "rebuild": (folder, model),
        "check": (folder,),
    }
    new = " ".join(str(word) for word in words.get(mode, (folder, file)))
    say(f"note: this spelling goes on working for now; the new one is: leanmatch index {mode} {new}")
