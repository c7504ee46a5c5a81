"""``leanmatch index build|add|update|delete|rebuild|reference|check``: make a catalogue, and change it."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from leanmatch.cli.common import Commands, JsonOption, reported_errors, say
from leanmatch.cli.data.command import DelimiterOption, IdColumnOption, OnErrorOption, TextColumnsOption
from leanmatch.cli.help import PlainGroup, example
from leanmatch.cli.index import operations
from leanmatch.cli.index.old_spelling import OLD_SPELLING, old_spelling
from leanmatch.cli.index.operations import Encoding, show, write_options
from leanmatch.cli.index.options import (
    CatalogueArgument,
    DeviceOption,
    DimensionsOption,
    HybridOption,
    KindOption,
    ModelOption,
    OutputOption,
    OverwriteOption,
    PrecisionOption,
)
from leanmatch.cli.index.reading import Reading
from leanmatch.cli.prompts import DocumentPromptOption, PromptNameOption, QueryPromptOption, prompt_options
from leanmatch.errors import UsageError


class IndexCommands(PlainGroup):
    """Commands; what names none of them is read as versions before 0.2 did."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the hidden command of the old spelling before arguments that begin with no command."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            likely = difflib.get_close_matches(args[0], list(self.commands), n=1, cutoff=0.75)
            if args[0].startswith("-") or not likely or Path(args[0]).exists():
                args = [OLD_SPELLING, *args]
        return super().parse_args(ctx, args)


app = Commands(
    cls=IndexCommands,
    help="Make a catalogue of items, and change it; every change is all or nothing, also under kill -9.",
    no_args_is_help=True,
)
app.command(OLD_SPELLING, hidden=True, epilog=example(f"index {OLD_SPELLING} lean/ items.csv -o catalogue/"))(
    old_spelling
)


@app.command(epilog=example("index build lean/ items.csv -o catalogue/"))
def build(
    output: OutputOption,
    model: Annotated[str | None, typer.Argument(help="Model folder or name.")] = None,
    items: Annotated[
        Path | None,
        typer.Argument(help="CSV, TSV, JSONL, Parquet (.gz too), a BEIR folder or corpus.jsonl."),
    ] = None,
    vectors: Annotated[
        str | None,
        typer.Option(
            "--vectors",
            metavar="OUT",
            help="Output of leanmatch encode, in place of MODEL and ITEMS.",
            show_default=False,
        ),
    ] = None,
    kind: KindOption = None,
    id_column: IdColumnOption = None,
    text_columns: TextColumnsOption = None,
    delimiter: DelimiterOption = None,
    on_error: OnErrorOption = "raise",
    overwrite: OverwriteOption = False,
    precision: PrecisionOption = None,
    device: DeviceOption = "auto",
    query_prompt: QueryPromptOption = None,
    document_prompt: DocumentPromptOption = None,
    prompt_name: PromptNameOption = None,
    dimensions: DimensionsOption = None,
    hybrid: HybridOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a catalogue of ITEMS. After an interruption, run the same command again: it resumes."""
    with reported_errors(resumes=True), write_options(kind, hybrid) as options:
        if vectors is not None:
            reading_or_encoding = {
                "MODEL": model,
                "--id-column": id_column,
                "--text-column": text_columns,
                "--delimiter": delimiter,
                "--precision": precision,
                "--query-prompt": query_prompt,
                "--document-prompt": document_prompt,
                "--prompt-name": prompt_name,
                "--dimensions": dimensions,
            }
            operations.refuse_with_vectors(reading_or_encoding)
            change = operations.build_from_vectors(vectors, output, options, overwrite=overwrite)
            show(change, output, Reading(None, None, "raise"), as_json)
            say(f"next: leanmatch serve {shlex.quote(str(output))}")
            return
        if model is None or items is None:
            raise UsageError(
                "MODEL and ITEMS are needed", remedy="leanmatch index build MODEL ITEMS -o CATALOGUE"
            )
        reading = Reading(id_column, text_columns, on_error, delimiter)
        prompts = prompt_options(query_prompt, document_prompt, prompt_name)
        encoding = Encoding(model, device, precision, prompts, dimensions)
        change = operations.build(items, output, encoding, reading, options, overwrite=overwrite)
        show(change, output, reading, as_json)
        say(f"next: leanmatch serve {shlex.quote(str(output))}")


def _changing(*, patch: bool) -> Callable[..., None]:
    """The command ``add`` or, with ``patch``, ``update``: they have the same options."""

    def change(
        catalogue: CatalogueArgument,
        items: Annotated[
            Path, typer.Argument(help="Items by their ids: CSV, TSV, JSONL, Parquet (.gz too).")
        ],
        model: ModelOption = None,
        id_column: IdColumnOption = None,
        text_columns: TextColumnsOption = None,
        delimiter: DelimiterOption = None,
        on_error: OnErrorOption = "raise",
        precision: PrecisionOption = None,
        device: DeviceOption = "auto",
        as_json: JsonOption = False,
    ) -> None:
        with reported_errors(), write_options() as options:
            reading = Reading(id_column, text_columns, on_error, delimiter)
            encoding = Encoding(model, device, precision)
            done = operations.change(items, catalogue, encoding, reading, options, patch=patch)
            show(done, catalogue, reading, as_json)

    return change


app.command(
    "add",
    help="Add items, and replace those whose id is there. Only new texts are encoded.",
    epilog=example("index add catalogue/ new.csv"),
)(_changing(patch=False))
app.command(
    "update",
    help="Change items that are there. Columns that the file lacks keep their values, the text included.",
    epilog=example("index update catalogue/ prices.csv"),
)(_changing(patch=True))


@app.command(epilog=example("index delete catalogue/ gone.txt"))
def delete(
    catalogue: CatalogueArgument,
    ids: Annotated[Path, typer.Argument(help="One id a line (.txt), or a table with a column of ids.")],
    id_column: IdColumnOption = None,
    delimiter: DelimiterOption = None,
    on_error: OnErrorOption = "raise",
    as_json: JsonOption = False,
) -> None:
    """Delete items. Ids that are not there are counted."""
    with reported_errors(), write_options() as options:
        reading = Reading(id_column, None, on_error, delimiter)
        show(operations.delete(ids, catalogue, reading, options), catalogue, reading, as_json)


@app.command(epilog=example("index rebuild catalogue/ model/"))
def rebuild(
    catalogue: CatalogueArgument,
    model: Annotated[
        str | None, typer.Argument(help="Model folder or name; the catalogue's own by default.")
    ] = None,
    kind: KindOption = None,
    precision: PrecisionOption = None,
    device: DeviceOption = "auto",
    query_prompt: QueryPromptOption = None,
    document_prompt: DocumentPromptOption = None,
    prompt_name: PromptNameOption = None,
    dimensions: DimensionsOption = None,
    hybrid: HybridOption = None,
    as_json: JsonOption = False,
) -> None:
    """Encode the catalogue's own items with MODEL, and make its search index anew."""
    with reported_errors(), write_options(kind, hybrid) as options:
        prompts = prompt_options(query_prompt, document_prompt, prompt_name)
        change = operations.rebuild(
            catalogue, Encoding(model, device, precision, prompts, dimensions), options
        )
        show(change, catalogue, Reading(None, None, "raise"), as_json)


@app.command(epilog=example("index reference catalogue/ pairs.csv"))
def reference(
    catalogue: CatalogueArgument,
    pairs: Annotated[Path, typer.Argument(help="Training pairs, or texts, one a line (.txt).")],
    model: ModelOption = None,
    delimiter: DelimiterOption = None,
    on_error: OnErrorOption = "raise",
    precision: PrecisionOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Give the drift monitor the texts that live queries are compared with."""
    with reported_errors():
        reading = Reading(None, None, on_error, delimiter)
        result = operations.reference(pairs, catalogue, Encoding(model, device, precision), reading)
        show(result, catalogue, reading, as_json)


@app.command(epilog=example("index check catalogue/"))
def check(catalogue: CatalogueArgument, as_json: JsonOption = False) -> None:
    """Read every file, compare it with its checksum, and check what it holds."""
    with reported_errors():
        show(operations.check(catalogue), catalogue, Reading(None, None, "raise"), as_json)
