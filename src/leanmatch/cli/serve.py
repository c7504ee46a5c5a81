"""``leanmatch serve``: a catalogue, or the items of a database, over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from leanmatch.cli.common import reported_errors, say
from leanmatch.cli.index.options import RerankOption, RerankTopOption, RerankWeightOption
from leanmatch.cli.prompts import PromptNameOption, QueryPromptOption
from leanmatch.errors import DataError, UsageError

API_KEYS, WRITE_KEYS = "LEANMATCH_API_KEY", "LEANMATCH_WRITE_KEY"
"""Environment variables. typer would split them at every space, and a key may have one."""


def serve(
    catalogue: Annotated[
        str | None,
        typer.Argument(
            help="A folder made by leanmatch index build; or the URL of a database (leanmatch push)."
        ),
    ] = None,
    demo: Annotated[
        bool,
        typer.Option("--demo", help="Serve the See Also items of numpy, scipy, ... (made at first use)."),
    ] = False,
    model: Annotated[str | None, typer.Option("--model", help="The model's folder, if it has moved.")] = None,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Port; 0 takes a free one.")] = 8080,
    workers: Annotated[int, typer.Option("--workers", help="Processes.", min=1)] = 1,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Encoding threads of each process.", min=1)
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="Precision of queries: stored, float32, bfloat16 or int8; by default that of the items.",
        ),
    ] = None,
    query_prompt: QueryPromptOption = None,
    prompt_name: PromptNameOption = None,
    dimensions: Annotated[
        int | None,
        typer.Option(
            "--dimensions",
            metavar="N",
            help="Dimensions of /v1/embeddings where a request asks for none. Default: the catalogue's.",
            min=1,
            show_default=False,
        ),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", help=f"Ask for this key; may be repeated. Or {API_KEYS}, one key a line."),
    ] = None,
    write_key: Annotated[
        list[str] | None,
        typer.Option("--write-key", help=f"Let this key change items. Or {WRITE_KEYS}, one key a line."),
    ] = None,
    batch_texts: Annotated[int, typer.Option("--batch-texts", help="Texts encoded together.", min=1)] = 64,
    window_ms: Annotated[
        float, typer.Option("--window-ms", help="How long a batch waits for more texts under load.", min=0)
    ] = 1.0,
    waiting: Annotated[
        int, typer.Option("--waiting", help="Most requests in progress; others are answered 429.", min=1)
    ] = 256,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds a request may take.")] = 10.0,
    allow_token_ids: Annotated[
        bool,
        typer.Option(
            "--allow-token-ids",
            help="Take token ids of the model's own tokenizer as input of embeddings; others give nonsense.",
        ),
    ] = False,
    log_texts: Annotated[bool, typer.Option("--log-texts", help="Write queries to the log.")] = False,
    otel: Annotated[
        bool,
        typer.Option("--otel", help="Send OpenTelemetry traces; OTEL_EXPORTER_OTLP_ENDPOINT says where."),
    ] = False,
    rerank: RerankOption = None,
    rerank_top: RerankTopOption = 50,
    rerank_weight: RerankWeightOption = 0.5,
    demo_folder: Annotated[
        Path | None, typer.Option("--demo-folder", help="Where --demo keeps its catalogue.")
    ] = None,
) -> None:
    """Serve recommendations, embeddings, metrics and a web page. Stops gracefully on SIGTERM and Ctrl-C."""
    with reported_errors():
        if demo == (catalogue is not None):
            given = "both a catalogue and --demo are given" if demo else "there is no catalogue to serve"
            raise UsageError(given, remedy="leanmatch serve CATALOGUE, or leanmatch serve --demo")
        from leanmatch.serve.options import Limits, ServeOptions
        from leanmatch.serve.running import run_server
        from leanmatch.stores.opening import is_store_url

        if catalogue is None:
            from leanmatch.serve.demo import demo_catalogue

            catalogue = str(demo_catalogue(demo_folder, say=say))
        elif not is_store_url(catalogue) and not Path(catalogue).is_dir():
            remedy = "leanmatch index build makes one"
            raise DataError("there is no such catalogue", path=catalogue, remedy=remedy)
        options = ServeOptions(
            catalogue=catalogue,
            model=model,
            host=host,
            port=port,
            workers=workers,
            threads=threads,
            precision=precision,
            query_prompt=query_prompt,
            prompt_name=prompt_name,
            dimensions=dimensions,
            api_keys=tuple(api_key or _keys_of(API_KEYS)),
            write_keys=tuple(write_key or _keys_of(WRITE_KEYS)),
            log_texts=log_texts,
            allow_token_ids=allow_token_ids,
            otel=otel,
            rerank=rerank,
            rerank_top=rerank_top,
            rerank_weight=rerank_weight,
            limits=Limits(
                batch_texts=batch_texts, window_ms=window_ms, waiting=waiting, timeout_seconds=timeout
            ),
        )
        run_server(options, say)


def _keys_of(variable: str) -> list[str]:
    return [key for key in os.environ.get(variable, "").splitlines() if key]
