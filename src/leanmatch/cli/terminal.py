"""What reaches a terminal: data is shown, never obeyed.

Item texts, file names and messages may hold control characters. Written to a terminal as they are, they move
its cursor, rename its window or hide text; bidirectional controls make a text read as another. They are shown
as escapes instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 but tab and line feed, DEL, C1, line separators, bidirectional controls, halves of surrogate pairs."""


def visible(text: str) -> str:
    """The text with its control characters as Python writes them in a string.

    >>> visible("red\\x1b[31m dock\\r\\n")
    'red\\\\x1b[31m dock\\\\r\\n'
    """
    return _CONTROLS.sub(lambda match: _escape(match[0]), text)


def visible_offsets(text: str) -> list[int]:
    """Where each character of a text begins in :func:`visible` of it, and where the last one ends."""
    offsets = [0]
    for character in text:
        offsets.append(offsets[-1] + (len(_escape(character)) if _CONTROLS.match(character) else 1))
    return offsets


def visible_json(document: str) -> str:
    """A JSON document with the control characters that JSON does not escape as JSON escapes them.

    >>> visible_json('["a\\x9bb"]')
    '["a\\\\u009bb"]'
    """
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def safe_console(**options: Any) -> Console:
    """A console on which all text goes through :func:`visible`; ``:name:`` in data stays as it is."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class SafeConsole(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else visible(text), style, control)

    return SafeConsole(emoji=False, **options)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
