"""Words of a text as its writer sees them, and which pieces of a tokenizer belong to which word.

Words are found in the text itself, not in what a tokenizer made of it: accents, case and emoji stay as they
are, and two models with different tokenizers speak of the same words.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_ASCII_WORD = re.compile(
    r"[A-Za-z0-9]+(?:(?:(?<=[A-Za-z])'(?=[A-Za-z])|(?<=[0-9])[.,](?=[0-9]))[A-Za-z0-9]+)*"
    r"|[!-/:-@\[-`{-~]"  # every other visible character
)
"""What :func:`_split_unicode` finds, for the texts that are plain ASCII."""

_JOINER = "\u200d"
_IDEOGRAPHS = ((0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
_APOSTROPHES = "'\u2019"


def split_words(text: str) -> NDArray[np.int64]:
    """Find the words of a text.

    A word is a run of letters, digits and their combining marks. An apostrophe between letters and a point or
    comma between digits belong to it (``don't``, ``3.5``); every other symbol is a word of its own, an emoji
    with all that joins it as well. Ideographs stand alone; scripts that write words without spaces otherwise
    (kana, Thai) come as runs.

    Returns:
        int64, shape ``(words, 2)``: start and end in characters (code points) of ``text``.

    >>> text = "Don't drop caf\\u00e9 3.5-inch \\U0001f469\\u200d\\U0001f680!"
    >>> [text[a:b] for a, b in split_words(text)]
    ["Don't", 'drop', 'café', '3.5', '-', 'inch', '👩\u200d🚀', '!']
    """
    plain = text.isascii()
    spans = [match.span() for match in _ASCII_WORD.finditer(text)] if plain else _split_unicode(text)
    return np.array(spans, np.int64).reshape(-1, 2)


def _split_unicode(text: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    start = 0
    while start < len(text):
        if text[start].isspace() or unicodedata.category(text[start]) == "Cc":
            start += 1
            continue
        end = _end_of_word(text, start)
        spans.append((start, end))
        start = end
    return spans


def _end_of_word(text: str, start: int) -> int:
    end = _end_of_cluster(text, start)
    if not _in_word(text[start]):
        return end
    while end < len(text):
        character = text[end]
        if _in_word(character):
            end = _end_of_cluster(text, end)
        elif end + 1 < len(text) and _joins(text[end - 1], character, text[end + 1]):
            end = _end_of_cluster(text, end + 1)
        else:
            break
    return end


def _end_of_cluster(text: str, start: int) -> int:
    """End of one character with all that is drawn with it: marks, variation selectors, joined emoji."""
    end = start + 1
    if _is_flag(text[start]) and end < len(text) and _is_flag(text[end]):
        end += 1
    while end < len(text) and (_extends(text[end]) or _is_joined(text[end - 1], text[end])):
        end += 1
    return end


def _in_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LN" and not _is_ideograph(character)


def _joins(before: str, character: str, after: str) -> bool:
    if character in _APOSTROPHES:
        return before.isalpha() and after.isalpha() and _in_word(after)
    return character in ".," and before.isdecimal() and after.isdecimal()


def _is_ideograph(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in _IDEOGRAPHS)


def _is_joined(before: str, character: str) -> bool:
    return before == _JOINER and not character.isspace() and not _in_word(character)


def _is_flag(character: str) -> bool:
    return 0x1F1E6 <= ord(character) <= 0x1F1FF


def _extends(character: str) -> bool:
    code = ord(character)
    return (
        unicodedata.category(character) in ("Mn", "Me", "Mc")
        or character == _JOINER
        or 0x1F3FB <= code <= 0x1F3FF  # skin tones
        or 0xE0020 <= code <= 0xE007F  # tags of flags
    )


@dataclass(frozen=True)
class Unit:
    """One thing to intervene on: ``start`` and ``end`` in the text, ``pieces``: positions of its tokens."""

    start: int
    end: int
    pieces: tuple[int, ...]


def token_units(text: str, offsets: NDArray[np.int64], editable: NDArray[np.bool_], unit: str) -> list[Unit]:
    """The tokens or words of a tokenized text that can be intervened on, in the order of the text.

    Pieces go to the word that they lie in. A piece that touches several words (some tokenizers keep
    punctuation with its word) makes them one. A piece that covers no visible character (the bare space mark
    of SentencePiece) goes with the next word.

    Args:
        text: the user's text.
        offsets: of every token in ``text``, shape ``(tokens, 2)``.
        editable: false for special tokens and prompts, shape ``(tokens,)``.
        unit: ``token`` or ``word``.
    """
    spans = [_trimmed(text, int(a), int(b)) for a, b in offsets]
    positions = np.flatnonzero(editable).tolist()
    if unit == "token":
        return [Unit(*spans[position], (position,)) for position in positions]
    words = split_words(text)
    # words that a piece touches: those that end after its start and begin before its end
    first = np.searchsorted(words[:, 1], [spans[p][0] for p in positions], "right").tolist()
    last = np.searchsorted(words[:, 0], [spans[p][1] for p in positions], "left").tolist()
    units: list[Unit] = []
    reach = -1  # the last word that belongs to the unit that is being built
    waiting: list[int] = []  # pieces without visible characters
    for index, position in enumerate(positions):
        start, end = spans[position]
        if start == end or first[index] >= last[index]:
            waiting.append(position)
            continue
        begin, stop = first[index], last[index] - 1
        if units and begin <= reach:
            old = units.pop()
            pieces = (*old.pieces, *waiting, position)
            units.append(Unit(old.start, max(old.end, int(words[stop, 1])), pieces))
        else:
            units.append(Unit(int(words[begin, 0]), int(words[stop, 1]), (*waiting, position)))
        reach = max(reach, stop)
        waiting = []
    if waiting and units:
        old = units.pop()
        units.append(Unit(old.start, old.end, (*old.pieces, *waiting)))
    elif waiting:  # nothing visible at all: one unit, where the text is
        units.append(Unit(spans[waiting[0]][0], spans[waiting[-1]][1], tuple(waiting)))
    return units


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while start < end and text[end - 1].isspace():
        end -= 1
    return start, end
