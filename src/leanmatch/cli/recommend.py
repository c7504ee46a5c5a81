"""``leanmatch recommend``: the best items of a catalogue for one or more texts."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanmatch.cli.common import JsonOption, print_json, reported_errors, say, stdout_console, text_lines
from leanmatch.cli.index.operations import Encoding
from leanmatch.cli.index.options import (
    HybridSearchOption,
    LexicalWeightOption,
    ModelOption,
    RerankOption,
    RerankTopOption,
    RerankWeightOption,
)
from leanmatch.cli.prompts import PromptNameOption, QueryPromptOption, prompt_options
from leanmatch.cli.terminal import visible
from leanmatch.errors import DataError, UsageError

if TYPE_CHECKING:
    from leanmatch.index import Recommendation
    from leanmatch.index.filters.expression import Filter
    from leanmatch.stores import StoreInfo


def recommend(
    catalogue: Annotated[
        str,
        typer.Argument(
            help="Catalogue folder, made by leanmatch index build; or the URL of a database (leanmatch push)."
        ),
    ],
    texts: Annotated[
        list[str],
        typer.Argument(metavar="TEXT...", help="What to recommend for; - reads lines from stdin."),
    ],
    k: Annotated[int, typer.Option("-k", help="Items for each text.", min=1)] = 10,
    where: Annotated[
        str | None, typer.Option("--where", help="A filter, such as 'price < 20 and shop = \"A\"'.")
    ] = None,
    as_json: JsonOption = False,
    model: ModelOption = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    include_self: Annotated[
        bool, typer.Option("--include-self", help="Also recommend items whose text is the query itself.")
    ] = False,
    query_prompt: QueryPromptOption = None,
    prompt_name: PromptNameOption = None,
    hybrid: HybridSearchOption = None,
    lexical_weight: LexicalWeightOption = None,
    rerank: RerankOption = None,
    rerank_top: RerankTopOption = 50,
    rerank_weight: RerankWeightOption = 0.5,
) -> None:
    """Recommend the K items of a catalogue that match each TEXT best."""
    with reported_errors():
        from leanmatch.index import Catalogue, is_catalogue, parse_filter
        from leanmatch.index.encoders import encoder_for
        from leanmatch.runtime import load_reranker
        from leanmatch.stores.opening import is_store_url

        prompts = prompt_options(query_prompt, None, prompt_name)
        queries = _queries(texts)
        expression = None if where is None else parse_filter(where)
        if is_store_url(catalogue):
            refuse_terms(hybrid, lexical_weight, rerank)
            answers, info = from_store(
                catalogue, queries, k, expression, Encoding(model, device, None, prompts), not include_self
            )
            show_answers(queries, answers, info.model.name, info.rows, False, as_json)
            return
        if not is_catalogue(Path(catalogue)):
            raise UsageError(
                f"{catalogue} is no catalogue: it holds no manifest.json",
                remedy="make one with `leanmatch index build MODEL ITEMS -o CATALOGUE`, then "
                "`leanmatch recommend CATALOGUE TEXT...`",
            )
        opened = Catalogue.open(catalogue)
        if expression is not None and not len(opened.select(expression)):  # before the model is loaded
            say(f"none of the {len(opened):,} items passes the filter: {where}")
        by_terms = opened.by_terms(hybrid, lexical_weight)  # so is a catalogue without terms
        reranker = None if rerank is None else load_reranker(rerank, device=device)
        encoder = encoder_for(opened.manifest, model, device=device, queries=prompts)
        answers = opened.recommend(
            encoder,
            queries,
            k,
            filter=expression,
            exclude_self=not include_self,
            hybrid=hybrid,
            lexical_weight=lexical_weight,
            reranker=reranker,
            rerank_top=rerank_top,
            rerank_weight=rerank_weight,
        )
        show_answers(queries, answers, opened.manifest.model.name, len(opened), by_terms, as_json, rerank)


def show_answers(
    queries: Sequence[str],
    answers: Sequence[Sequence[Recommendation]],
    model: str,
    items: int,
    hybrid: bool,
    as_json: bool,
    reranker: str | None = None,
) -> None:
    """Print the answers as tables, or as one JSON document."""
    if not as_json:
        for text, ranked in zip(queries, answers, strict=True):
            _print_table(text, ranked)
        return
    print_json(
        {
            "model": model,
            "items": items,
            "hybrid": hybrid,
            "reranker": reranker,
            "queries": [
                {"text": text, "recommendations": [item.to_json() for item in ranked]}
                for text, ranked in zip(queries, answers, strict=True)
            ],
        }
    )


def refuse_terms(hybrid: bool | None, lexical_weight: float | None, rerank: str | None) -> None:
    """Refuse a search by terms, or a reranked one, in a store.

    Raises:
        UsageError: it is asked for.
    """
    if hybrid or lexical_weight is not None or rerank is not None:
        raise UsageError(
            "a store searches by vectors alone",
            remedy="leave out --hybrid, --lexical-weight and --rerank, or search a catalogue's folder",
        )


def from_store(
    url: str,
    queries: Sequence[str],
    k: int,
    expression: Filter | None,
    encoding: Encoding,
    exclude_self: bool,
) -> tuple[list[list[Recommendation]], StoreInfo]:
    """The best items of a store."""
    from leanmatch.index.encoders import encoder_for
    from leanmatch.stores import open_store
    from leanmatch.stores import recommend as recommend_from
    from leanmatch.stores.protocol import check_filter

    store = open_store(url)
    try:
        info = store.info
        if expression is not None:
            check_filter(expression, info)  # before the model is loaded
        encoder = encoder_for(info, encoding.model, device=encoding.device, queries=encoding.prompts)
        found = recommend_from(store, encoder, queries, k, filter=expression, exclude_self=exclude_self)
        return found, info
    finally:
        store.close()


def _queries(texts: list[str]) -> list[str]:
    queries: list[str] = []
    for text in texts:
        if text != "-":
            queries.append(text)
            continue
        try:
            lines = text_lines(sys.stdin.buffer.read())
        except UnicodeDecodeError as error:
            raise DataError(f"stdin is not UTF-8: {error}", remedy="convert it to UTF-8") from error
        queries.extend(line for line in lines if line.strip())
    if not queries:
        raise UsageError("there is no text to recommend for: stdin was empty", remedy="give a text, or lines")
    for text in queries:
        if not text.strip():
            raise UsageError("a TEXT is blank", remedy="give a text")
    return queries


def _print_table(text: str, ranked: Sequence[Recommendation]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(visible(text)), title_justify="left")
    for heading in ("rank", "score"):
        table.add_column(heading, justify="right")
    by_terms = any(item.matched is not None for item in ranked)
    for heading in ("id", "text", *(("matched terms",) if by_terms else ())):
        table.add_column(heading, overflow="fold")
    for item in ranked:
        terms = (Text(visible(", ".join(item.matched or ()))),) if by_terms else ()
        table.add_row(
            str(item.rank), f"{item.score:.4f}", Text(visible(item.id)), Text(visible(item.text)), *terms
        )
    stdout_console().print(table)
