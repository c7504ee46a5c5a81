"""``leanmatch encode``: the texts of files to vectors, as files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanmatch.cli.checks import check_models
from leanmatch.cli.common import JsonOption, print_json, reported_errors, say, stdout_console
from leanmatch.cli.data.command import (
    DelimiterOption,
    IdColumnOption,
    OnErrorOption,
    TextColumnsOption,
)
from leanmatch.cli.prompts import DocumentPromptOption, PromptNameOption, QueryPromptOption, prompt_options

if TYPE_CHECKING:
    from leanmatch.batch import EncodeResult


def encode(
    model: Annotated[str, typer.Argument(help="Model folder or name.")],
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="IN...",
            help="Files and folders of CSV, TSV, JSONL, Parquet (.gz too), or URLs (s3://, gs://).",
        ),
    ],
    output: Annotated[
        str, typer.Option("-o", "--output", metavar="OUT", help="Folder or URL for the parts.")
    ],
    role: Annotated[
        str, typer.Option("--role", help="document or query: which prompt is used.")
    ] = "document",
    precision: Annotated[
        str, typer.Option("--precision", help="Number format of the vectors: float32, float16 or int8.")
    ] = "float32",
    id_column: IdColumnOption = None,
    text_columns: TextColumnsOption = None,
    delimiter: DelimiterOption = None,
    on_error: OnErrorOption = "raise",
    on_duplicate: Annotated[
        str,
        typer.Option("--on-duplicate", help="A repeated id: error stops, last keeps its last row."),
    ] = "error",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier encoding in OUT.")
    ] = False,
    shard: Annotated[
        str | None,
        typer.Option(
            "--shard",
            metavar="I/N",
            help="Encode shard I (from 0) of N. In a job array: slurm; in an indexed Job: kubernetes/N.",
        ),
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="local or ray.")] = "local",
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes, or Ray actors; one by default."),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option("--address", help="Address of a running Ray cluster; auto finds it."),
    ] = None,
    query_prompt: QueryPromptOption = None,
    document_prompt: DocumentPromptOption = None,
    prompt_name: PromptNameOption = None,
    dimensions: Annotated[
        int | None,
        typer.Option(
            "--dimensions",
            metavar="N",
            help="Keep the first N dimensions of the vectors (for models trained with --dimensions).",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Encode the texts of files into a folder of Parquet parts.

    After an interruption, run the same command again: it resumes.
    Each part is whole or absent, so several processes or machines may work on one OUT.
    """
    with reported_errors(resumes=True):
        from leanmatch.batch import EncodeOptions, Shard, encode_files
        from leanmatch.data.readers.delimited import delimiter_named

        options = EncodeOptions(
            id_column=id_column,
            text_columns=tuple(text_columns or ()),
            role=role,
            prompts=prompt_options(query_prompt, document_prompt, prompt_name),
            precision=precision,
            on_error=on_error,  # type: ignore[arg-type]
            on_duplicate=on_duplicate,
            delimiter=delimiter_named(delimiter),
            dimensions=dimensions,
        )
        share = None if shard is None else Shard.parse(shard)
        check_models(model)
        with _Bar() as bar:
            result = encode_files(
                model,
                inputs,
                output,
                options,
                shard=share,
                engine=engine,
                workers=workers,
                address=address,
                overwrite=overwrite,
                progress=bar.advance,
            )
        if json:
            print_json(_as_json(result))
            return
        for line in _sentences(result, output, on_duplicate):
            stdout_console().print(line, markup=False, highlight=False, soft_wrap=True)


class _Bar:
    """Parts that are written, and texts a second, on stderr."""

    def __init__(self) -> None:
        self._bar: Any = None
        self.truncated = 0

    def __enter__(self) -> _Bar:
        return self

    def advance(self, note: Any, parts: int) -> None:
        from tqdm import tqdm

        if self._bar is None:
            self._bar = tqdm(total=parts, desc="encoding", unit=" parts")
        self._bar.update(1)
        self.truncated += note.truncated

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if self.truncated:
            say(f"{self.truncated:,} texts are longer than the model reads; what is beyond is cut off")


def _as_json(result: EncodeResult) -> dict[str, Any]:
    complete = result.complete
    return {
        "parts": result.parts,
        "written": result.written,
        "rows_encoded": result.rows,
        "rows_skipped": result.skipped,
        "parts_missing": result.missing,
        "complete": complete is not None,
        "rows": None if complete is None else complete.rows,
        "superseded": None if complete is None else sum(map(len, complete.superseded.values())),
    }


def _sentences(result: EncodeResult, output: str, on_duplicate: str) -> list[str]:
    lines = [f"{result.rows:,} texts encoded in {result.written:,} of {result.parts:,} parts"]
    if result.skipped:
        lines.append(f"{result.skipped:,} bad rows skipped")
    if result.complete is None:
        lines.append(f"{result.missing:,} parts are missing; {output} is finished when the other shards are")
        return lines
    superseded = sum(map(len, result.complete.superseded.values()))
    if superseded and on_duplicate == "last":
        lines.append(f"{superseded:,} rows do not count, because their id comes again later")
    lines.append(f"{output} is complete: {result.complete.rows:,} vectors")
    return lines
