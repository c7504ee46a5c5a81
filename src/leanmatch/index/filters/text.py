"""The text form of filters: ``category = "Toys" and (price < 20 or price is missing)``.

Names are letters, digits, ``_``, ``.`` and ``-``, or anything between backticks. Texts stand between double
or single quotes; a quote or a backslash inside is written after a backslash. ``not`` binds before ``and``,
``and`` before ``or``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from leanmatch.errors import UsageError
from leanmatch.index.filters.expression import (
    MAX_CHARACTERS,
    OPERATORS,
    AllOf,
    AnyOf,
    Budget,
    Compare,
    Filter,
    IsIn,
    Missing,
    Not,
    beyond_float64,
    checked_value,
)
from leanmatch.index.storage.columns import Value

MAX_DIGITS = 320
"""Numbers of more characters are refused before they are read; float64 ends at 309 digits."""

_SPACE = re.compile(r"\s*")
_TOKEN = re.compile(
    r"""(?:
    (?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d{1,3})?(?![\w.]))
    |(?P<text>"[^"\\]*(?:\\.[^"\\]*)*"|'[^'\\]*(?:\\.[^'\\]*)*')
    |(?P<quoted>`[^`]+`)
    |(?P<word>[^\W\d][\w.\-]*)
    |(?P<sign><=|>=|!=|<>|==|=|<|>|\(|\)|,)
    )""",
    re.VERBOSE | re.DOTALL,
)
_SIGNS = {**{sign: name for name, sign in OPERATORS.items()}, "==": "eq", "<>": "ne"}
_KEYWORDS = frozenset({"and", "or", "not", "in", "is", "missing", "true", "false"})
_REMEDY = 'for example: category = "Toys" and price < 20'


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def parse_filter(text: str) -> Filter:
    """Read the text form.

    Raises:
        UsageError: it does not follow the grammar; the message shows where.

    >>> parse_filter('price < 20 or shop in ("a", "b")').parts
    (Compare(column='price', operator='lt', value=20), IsIn(column='shop', values=('a', 'b')))
    """
    if len(text) > MAX_CHARACTERS:
        raise UsageError(
            f"the filter has {len(text):,} characters",
            remedy=f"give at most {MAX_CHARACTERS:,}: fewer values, or a column that groups them",
        )
    parser = _Parser(text)
    expression = parser.either(0)
    if parser.peek().kind != "end":
        raise parser.wrong("'and', 'or' or the end")
    return expression


def filter_to_text(expression: Filter) -> str:
    """The text form; :func:`parse_filter` reads it back to an equal filter.

    >>> filter_to_text(AnyOf((Compare("price", "lt", 20), Missing("price"))))
    'price < 20 or price is missing'
    """
    if isinstance(expression, Compare):
        sign = OPERATORS[expression.operator]
        return f"{_name(expression.column)} {sign} {_literal(expression.value)}"
    if isinstance(expression, IsIn):
        return f"{_name(expression.column)} in ({', '.join(map(_literal, expression.values))})"
    if isinstance(expression, Missing):
        return f"{_name(expression.column)} is missing"
    if isinstance(expression, Not):
        return f"not {_inner(expression.part)}"
    joint = " and " if isinstance(expression, AllOf) else " or "
    return joint.join(_inner(part) for part in expression.parts)


def _inner(part: Filter) -> str:
    return f"({filter_to_text(part)})" if isinstance(part, AllOf | AnyOf) else filter_to_text(part)


def _name(column: str) -> str:
    plain = re.fullmatch(r"[^\W\d][\w.\-]*", column) and column.lower() not in _KEYWORDS
    return column if plain else f"`{column}`"


def _literal(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _tokens(text: str) -> Iterator[_Token]:
    """The tokens one after another, in time that grows with the length; the last one is ``end``."""
    at = 0
    while (start := _SPACE.match(text, at).end()) < len(text):  # type: ignore[union-attr]
        match = _TOKEN.match(text, start)
        if match is None:
            raise UsageError(f"the filter cannot be read at {text[start : start + 20]!r}", remedy=_REMEDY)
        kind = str(match.lastgroup)
        word = match.group(kind)
        if kind == "word" and word.lower() in _KEYWORDS:
            kind, word = "keyword", word.lower()
        yield _Token(kind, word, start)
        at = match.end()
    yield _Token("end", "", len(text))


class _Parser:
    """Reads token by token, so that a filter beyond the limits is not read to its end."""

    def __init__(self, text: str) -> None:
        self._text, self._tokens, self._budget = text, _tokens(text), Budget()
        self._next = next(self._tokens)

    def peek(self) -> _Token:
        return self._next

    def take(self, kind: str, *texts: str) -> _Token | None:
        token = self.peek()
        if token.kind != kind or (texts and token.text not in texts):
            return None
        if kind != "end":
            self._next = next(self._tokens)
        return token

    def wrong(self, wanted: str) -> UsageError:
        token = self.peek()
        actual = repr(self._text[token.at : token.at + 20]) if token.kind != "end" else "the end"
        return UsageError(
            f"the filter needs {wanted} at character {token.at + 1}, found {actual}", remedy=_REMEDY
        )

    def either(self, depth: int) -> Filter:
        parts = [self.both(depth)]
        while self.take("keyword", "or"):
            parts.append(self.both(depth))
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def both(self, depth: int) -> Filter:
        parts = [self.one(depth)]
        while self.take("keyword", "and"):
            parts.append(self.one(depth))
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def one(self, depth: int) -> Filter:
        self._budget.take_part(depth)
        if self.take("keyword", "not"):
            return Not(self.one(depth + 1))
        if self.take("sign", "("):
            inner = self.either(depth + 1)
            if not self.take("sign", ")"):
                raise self.wrong("')'")
            return inner
        token = self.take("word") or self.take("quoted")
        if token is None:
            raise self.wrong("a column")
        name = token.text.strip("`") if token.kind == "quoted" else token.text
        return self.test(self._budget.take_text(name))

    def test(self, column: str) -> Filter:
        if sign := self.take("sign", *_SIGNS):
            return Compare(column, _SIGNS[sign.text], self.value())
        if self.take("keyword", "is"):
            negated = self.take("keyword", "not")
            if not self.take("keyword", "missing"):
                raise self.wrong("'missing'")
            return Not(Missing(column)) if negated else Missing(column)
        negated = self.take("keyword", "not")
        if not self.take("keyword", "in"):
            raise self.wrong(f"{', '.join(OPERATORS.values())}, 'in' or 'is missing'")
        membership = self.listed(column)
        return Not(membership) if negated else membership

    def listed(self, column: str) -> IsIn:
        if not self.take("sign", "("):
            raise self.wrong("'('")
        values: list[Value] = []
        while not self.take("sign", ")"):
            if values and not self.take("sign", ","):
                raise self.wrong("',' or ')'")
            self._budget.take_values(1)
            values.append(self.value())
        return IsIn(column, tuple(values))

    def value(self) -> Value:
        if token := self.take("text"):
            return self._budget.take_text(re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL))
        if token := self.take("number"):
            if len(token.text) > MAX_DIGITS:
                raise beyond_float64(f"one of {len(token.text):,} characters")
            whole = re.fullmatch(r"-?\d+", token.text)
            return checked_value(int(token.text) if whole else float(token.text), self._budget)
        if token := self.take("keyword", "true", "false"):
            return token.text == "true"
        raise self.wrong('a value ("text", a number, true or false)')
