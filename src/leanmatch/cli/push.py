"""``leanmatch push``: hand what was saved over to where others use it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

from leanmatch.cli.common import JsonOption, print_json, reported_errors, say, stdout_console
from leanmatch.errors import UsageError

_STORE = "Stores"


@dataclass(frozen=True)
class PushRequest:
    """What the user typed; ``place`` is the target behind its scheme."""

    source: str
    target: str
    place: str
    precision: str | None
    private: bool | None
    message: str | None
    revision: str | None
    json: bool


def push(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Model folder; for a database, a catalogue or the output of leanmatch encode.",
        ),
    ],
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET", help="hub:user/name, postgresql://.../DATABASE#NAME or qdrant://HOST:PORT/NAME."
        ),
    ],
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="Vectors in the database: float32, float16 (PostgreSQL) or int8 (Qdrant).",
            rich_help_panel=_STORE,
        ),
    ] = None,
    private: Annotated[
        bool | None,
        typer.Option("--private/--public", help="Who sees a new repository. Default: the account's setting."),
    ] = None,
    message: Annotated[str | None, typer.Option("--message", "-m", help="Message of the commit.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch to push to; created if missing.")] = None,
    json: JsonOption = False,
) -> None:
    """Push a model to the Hugging Face hub, or items to a database.

    hub: one commit with the model, its card and nothing else. The token is that of `hf auth login` or
    HF_TOKEN. Files that are there already are not sent again.

    postgresql, qdrant: all items as a new generation. Searches see the old items until the new ones are
    complete. After an interruption, run the same command again: it resumes.
    """
    with reported_errors():
        scheme, place = split_target(target)
        SCHEMES[scheme](PushRequest(source, target, place, precision, private, message, revision, json))


def split_target(target: str) -> tuple[str, str]:
    """Scheme and place of a target: ``hub:user/name`` is the place ``user/name`` of the scheme ``hub``.

    Raises:
        UsageError: no scheme, or one that nothing pushes to.
    """
    scheme, colon, place = target.partition(":")
    if not colon or scheme not in SCHEMES or not place:
        known = ", ".join(f"{name}:" for name in SCHEMES)
        raise UsageError(
            f"the target {target!r} begins with no place that can be pushed to",
            remedy=f"begin it with one of {known} as in hub:user/name",
        )
    return scheme, place


def _refuse(request: PushRequest, *names: str) -> None:
    """Refuse options of another kind of target.

    Raises:
        UsageError: one of them is given.
    """
    given = [f"--{name}" for name in names if getattr(request, name) is not None]
    if given:
        raise UsageError(
            f"{given[0]} says nothing about the target {request.target}",
            remedy=f"leave out {', '.join(given)}",
        )


def _to_store(request: PushRequest) -> None:
    from tqdm import tqdm

    from leanmatch.stores import push_items, source_of

    _refuse(request, "private", "message", "revision")
    items = source_of(request.source)
    with tqdm(total=items.rows, desc="pushing", unit=" items", unit_scale=True) as bar:

        def advance(done: int, _: int) -> None:
            bar.update(done - bar.n)

        info = push_items(
            items,
            request.target,
            precision=request.precision or "float32",
            progress=advance,
        )
    if request.json:
        shown = {"items": info.rows, "generation": info.generation, "columns": dict(info.columns)}
        print_json({**shown, "candidates": info.candidates, "recall": info.recall})
        return
    line = f"{info.rows:,} items are there, generation {info.generation}"
    if info.candidates:
        line += f"; recall@10 {info.recall:.3f} with {info.candidates:,} candidates"
    stdout_console().print(line, markup=False, highlight=False, soft_wrap=True)


def _to_hub(request: PushRequest) -> None:
    from leanmatch.formats import push_model

    _refuse(request, "precision")
    say(f"pushing {request.source} to {request.place}")
    pushed = push_model(
        Path(request.source),
        request.place,
        private=request.private,
        message=request.message,
        revision=request.revision,
    )
    if request.json:
        print_json(
            {
                "url": pushed.url,
                "commit": pushed.commit,
                "private": pushed.private,
                "sent": list(pushed.sent),
                "deleted": list(pushed.deleted),
                "left_out": list(pushed.left_out),
                "bytes": pushed.bytes,
            }
        )
        return
    lines = [f"left out: {', '.join(pushed.left_out)} (no part of the model)"] if pushed.left_out else []
    if pushed.deleted:
        lines.append(f"deleted there: {', '.join(pushed.deleted)} (of an earlier model)")
    sent = (
        f"{len(pushed.sent)} files, {pushed.bytes:,} bytes" if pushed.sent else "nothing to send: all there"
    )
    seen = {True: "private", False: "public: anyone can read it", None: "visibility unknown"}[pushed.private]
    lines.append(f"{pushed.url} ({seen}), commit {pushed.commit[:12]}: {sent}")
    lines.append(f'load it with leanmatch.load("{pushed.repository}")')
    for line in lines:
        stdout_console().print(line, markup=False, highlight=False, soft_wrap=True)


SCHEMES: Mapping[str, Callable[[PushRequest], None]] = MappingProxyType(
    {"hub": _to_hub, **dict.fromkeys(("postgresql", "postgres", "qdrant", "qdrants"), _to_store)}
)
"""Scheme of a target to what pushes there."""
