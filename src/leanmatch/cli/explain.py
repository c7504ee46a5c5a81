"""``leanmatch explain``: why two texts score as they do, word by word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from leanmatch.cli.checks import check_models
from leanmatch.cli.common import JsonOption, print_json, reported_errors, stdout_console
from leanmatch.cli.matchers import labels, provenance_of
from leanmatch.cli.matchers import load_any as _load
from leanmatch.cli.prompts import DocumentPromptOption, PromptNameOption, QueryPromptOption, prompt_options
from leanmatch.cli.terminal import visible, visible_offsets

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

    from leanmatch.interventions import Interactions, TokenImportance

MOST_LINES = 60
"""Words in the table; of more, those with the largest effects."""

MOST_CHARACTERS = 1000
"""Of each text that are shown in colours."""

BAR = 16
"""Characters of the longest bar."""

SUPPORTS, AGAINST = "#2166ac", "#b35806"
"""Blue and orange: told apart by readers who do not see red and green apart, on light and dark."""


def explain(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or name of the matcher.")],
    anchor: Annotated[str, typer.Argument(metavar="TEXT_A", help="One text.")],
    positive: Annotated[str, typer.Argument(metavar="TEXT_B", help="The other text.")],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Show another matcher beside it; 'base': the one MODEL was trained from."
        ),
    ] = None,
    intervention: Annotated[
        str, typer.Option(help="What is done to a word: delete, mask or replace.")
    ] = "delete",
    unit: Annotated[str, typer.Option(help="word or token.")] = "word",
    interactions: Annotated[
        bool, typer.Option("--interactions", help="Also show which word depends on which.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    query_prompt: QueryPromptOption = None,
    document_prompt: DocumentPromptOption = None,
    prompt_name: PromptNameOption = None,
    json: JsonOption = False,
) -> None:
    """Show what the score of two texts hangs on: the effect of taking each word away."""
    with reported_errors():
        from leanmatch.cli.evaluate.plan import base_named_by
        from leanmatch.interventions import importance
        from leanmatch.interventions import interactions as find_interactions

        prompts = prompt_options(query_prompt, document_prompt, prompt_name)
        _check_text(anchor, positive)
        rival = base_named_by(provenance_of(model), model) if against == "base" else against
        check_models(model, rival)
        names = labels(model, rival, by_base=against == "base")
        settings: dict[str, Any] = {"intervention": intervention, "unit": unit}
        own = _load(model, device, prompts)
        importances = {names[0]: importance(own, [anchor], [positive], **settings)}
        if rival is not None:
            importances[names[1]] = importance(
                _load(rival, device, prompts), [anchor], [positive], **settings
            )
        pairwise = find_interactions(own, [anchor], [positive], **settings)[0] if interactions else None
        if json:
            print_json(_as_json(importances, pairwise))
        else:
            _show(importances, pairwise)


def _check_text(*texts: str) -> None:
    from leanmatch.errors import UsageError

    for text in texts:
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(f"a text is not UTF-8: {text!r:.60}", remedy="check the terminal") from error


def _as_json(importances: dict[str, TokenImportance], pairwise: Interactions | None) -> dict[str, Any]:
    first = next(iter(importances.values()))
    models = {}
    for name, importance in importances.items():
        (pair,) = importance.to_json()["pairs"]
        models[name] = pair
    result: dict[str, Any] = {"intervention": first.intervention, "unit": first.unit, "models": models}
    return result if pairwise is None else result | {"interactions": pairwise.to_json()}


def _show(importances: dict[str, TokenImportance], pairwise: Interactions | None) -> None:
    from rich.text import Text

    console = stdout_console()
    top = (
        max(
            (float(abs(importance.effects).max(initial=0.0)) for importance in importances.values()),
            default=0.0,
        )
        or 1.0
    )
    for name, importance in importances.items():
        console.print(Text.assemble((name, "bold"), f": score {importance.scores[0]:.3f}"))
        for side in (0, 1):
            console.print(_coloured(importance, side, top))
    console.print(_numbers(importances, top))
    console.print(
        Text.assemble(
            ("blue", f"white on {SUPPORTS}"),
            ": the score falls without the word; ",
            ("orange", f"white on {AGAINST}"),
            ": it rises",
        )
    )
    for importance in importances.values():
        for side in (0, 1):
            if importance.read[side, 0] < len(importance.text(0, side).rstrip()):
                console.print(f"note: the model reads the first {importance.read[side, 0]:,} characters only")
    if pairwise is not None:
        _show_interactions(pairwise)


def _numbers(importances: dict[str, TokenImportance], top: float) -> Table:
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    from leanmatch.metrics.tables import LAYOUT

    table = Table(**LAYOUT)
    table.add_column("word", overflow="fold")
    for name in importances:
        table.add_column(escape(name), justify="right")
        table.add_column("")
    sides = [_lines(list(importances.values()), side) for side in (0, 1)]
    sizes = sorted((_size(effects) for side in sides for _, effects in side), reverse=True)
    least = sizes[MOST_LINES - 1] if len(sizes) > MOST_LINES else 0.0
    for number, side in enumerate(sides):
        if number:
            table.add_section()
        for label, effects in side:
            if _size(effects) < least:
                continue
            cells: list[Text] = []
            for effect in effects:
                if effect is None:
                    cells += [Text("not read", style="dim"), Text("")]
                else:
                    cells += [Text(f"{effect:+.3f}"), _bar(effect, top)]
            table.add_row(Text(visible(label)), *cells)
    if least > 0:
        table.title = f"the {table.row_count} largest of {len(sizes):,} effects (--json lists all)"
    return table


def _coloured(importance: TokenImportance, side: int, top: float) -> Text:
    from rich.text import Text

    text, rows = importance.text(0, side), importance.rows(0, side)
    shown = text[:MOST_CHARACTERS] + ("\u2026" if len(text) > MOST_CHARACTERS else "")
    line = Text("  " + (visible(shown) or "(no text)"))
    places = visible_offsets(shown)
    for (start, end), effect in zip(
        importance.offsets[rows].tolist(), importance.effects[rows].tolist(), strict=True
    ):
        if abs(effect) >= 0.08 * top and end <= MOST_CHARACTERS:
            line.stylize(_style(effect / top), places[start] + 2, places[end] + 2)
    return line


def _style(share: float) -> str:
    """White on blue or orange; fainter effects on a darker ground."""
    colour = SUPPORTS if share > 0 else AGAINST
    strength = 0.35 + 0.65 * min(1.0, abs(share))
    channels = [round(int(colour[i : i + 2], 16) * strength) for i in (1, 3, 5)]
    return "white on #{:02x}{:02x}{:02x}".format(*channels)


def _lines(importances: list[TokenImportance], side: int) -> list[tuple[str, list[float | None]]]:
    """Every word of one side with its effect under each model, in the order of the text."""
    effects: dict[tuple[int, int], list[float | None]] = {}
    for number, importance in enumerate(importances):
        rows = importance.rows(0, side)
        for (start, end), effect in zip(
            importance.offsets[rows].tolist(), importance.effects[rows].tolist(), strict=True
        ):
            effects.setdefault((start, end), [None] * len(importances))[number] = effect
    text = importances[0].text(0, side)
    return [(text[start:end], line) for (start, end), line in sorted(effects.items())]


def _size(effects: list[float | None]) -> float:
    return max(abs(effect) for effect in effects if effect is not None)


def _bar(effect: float, top: float) -> Text:
    from rich.text import Text

    length = round(BAR * abs(effect) / top)
    return Text("\u2588" * length, style=SUPPORTS if effect > 0 else AGAINST)


def _show_interactions(interactions: Interactions) -> None:
    from rich.table import Table
    from rich.text import Text

    from leanmatch.metrics.tables import LAYOUT

    left, right = interactions.words()
    table = Table(title="interactions: effect that a word has only with the other", **LAYOUT)
    table.add_column("")
    for word in right:
        table.add_column(Text(visible(word)), justify="right", overflow="fold")
    top = float(abs(interactions.values).max(initial=0.0)) or 1.0
    for word, row in zip(left, interactions.values.tolist(), strict=True):
        cells = [Text(f"{x:+.2f}", style=_style(x / top) if abs(x) >= 0.25 * top else "") for x in row]
        table.add_row(Text(visible(word)), *cells)
    stdout_console().print(table)
