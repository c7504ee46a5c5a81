"""The options that choose prompts, which all commands that encode texts share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from leanmatch.models import PromptOptions

_GROUP = "Prompts"

QueryPromptOption = Annotated[
    str | None,
    typer.Option(
        "--query-prompt",
        metavar="TEXT",
        help="Text before queries (anchors); '' for none. Default: the model's own.",
        rich_help_panel=_GROUP,
    ),
]
DocumentPromptOption = Annotated[
    str | None,
    typer.Option(
        "--document-prompt",
        metavar="TEXT",
        help="Text before documents (positives, items); '' for none. Default: the model's own.",
        rich_help_panel=_GROUP,
    ),
]
PromptNameOption = Annotated[
    str | None,
    typer.Option(
        "--prompt-name",
        metavar="NAME",
        help="One of the model's named prompts, for queries and documents alike.",
        rich_help_panel=_GROUP,
    ),
]


def prompt_options(query: str | None, document: str | None, name: str | None) -> PromptOptions:
    """What the three options say.

    Raises:
        UsageError: a name and a text.
    """
    from leanmatch.models import PromptOptions

    return PromptOptions(query=query, document=document, name=name)


def with_prompts(encoder: Any, options: PromptOptions) -> Any:
    """The encoder, with the prompts that were asked for.

    Raises:
        UsageError: a name that the model does not have.
    """
    if options:
        encoder.set_prompts(options)
    return encoder


def prompts_in_words(encoder: Any) -> str:
    """Which prompts an encoder uses; empty where there are none."""
    prompts = encoder.prompts
    if not (prompts.query or prompts.document):
        return ""
    return f"prompts: {prompts.query!r} before queries, {prompts.document!r} before documents"
