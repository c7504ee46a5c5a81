"""What can be intervened on and how; plain values, so that every layer can name the choices without torch."""

from __future__ import annotations

from leanmatch.errors import UsageError

INTERVENTIONS = ("mask", "delete", "replace")
"""``mask``: put the mask token there; ``delete``: take out; ``replace``: put a draw of the corpus there."""

UNITS = ("token", "word")

SIDES = ("anchor", "positive", "both")

ANCHOR, POSITIVE = 0, 1
"""How results name the sides of a pair."""


def check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among the choices.

    Raises:
        UsageError: it is not; the message lists them.
    """
    if value not in choices:
        raise UsageError(f"unknown {what} {value!r}", remedy=f"one of {', '.join(choices)}")


def side_numbers(sides: str) -> tuple[int, ...]:
    """``both`` is ``(0, 1)``, ``anchor`` is ``(0,)``, ``positive`` is ``(1,)``."""
    check_choice("side", sides, SIDES)
    return (ANCHOR, POSITIVE) if sides == "both" else (SIDES.index(sides),)
