"""From a text to its terms, so that ``XJ-200``, ``xj200`` and ``XJ 200`` find each other.

A text is normalized (NFKC, case folded, diacritics of Latin, Greek and Cyrillic removed, digits of all
scripts as 0-9) and cut into *atoms*: runs of letters, and runs of digits. Every atom is a term. So are the
joins of two to four atoms with nothing or one of ``- _ . /`` between them, where they hold both a letter and
a digit: ``RX100-M3`` also has ``rx100``, ``100m``, ``m3``, ``rx100m``, ``100m3`` and ``rx100m3``. Atoms on
both sides of a space are not joined: ``XJ 200`` shares ``xj`` and ``200`` with ``XJ-200``, not ``xj200``,
which ranks it below an item that is written as asked for.

Scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese) give single characters and pairs of
neighbours.
"""

from __future__ import annotations

import re
import unicodedata

TERMS_VERSION = "terms-1"
"""Names this rule in a catalogue's manifest: terms that another rule made are not compared with these."""

MOST_JOINED = 4
MOST_CHARACTERS = 24
"""No join is longer."""

SEPARATORS = "-_./\u2010\u2011\u2012\u2013\u2014"

_SPACELESS = (  # code points of Han, Hiragana, Katakana, Thai, Lao, Burmese, Khmer
    "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u3041-\u309f\u30a1-\u30ff\u0e01-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_ATOM = re.compile(rf"(?P<spaceless>[{_SPACELESS}]+)|(?P<number>\d+)|(?P<word>[^\W\d_{_SPACELESS}]+)")
_MARK = re.compile(rf"[^\w\s{_SPACELESS}]")
_DIACRITICS = re.compile("[\u0300-\u036f]")
_WRITTEN_TOGETHER = re.compile(rf"[^\W_]+(?:[{re.escape(SEPARATORS)}][^\W_]+)*")
_MEASURE = re.compile(
    r"(?:f/?)?[0-9]+(?:[-.,/x][0-9]+)*"
    r"(?:[kmgt]b?|[kmgt]bps|[mck]?m|inch|in|ft|mpx?|[kmg]?hz|k?w|wh|m?v|ma|mah|[ipsxde]|fps|rpm|"
    r"st|nd|rd|th|pcs?|pk|pack|bits?|core|[km]?g|oz|lbs?)?"
)


def terms(text: str) -> list[str]:
    """The terms of a text in their order, repetitions included.

    >>> terms("Sony DSC-RX100 16GB")
    ['sony', 'dsc', 'dscrx100', 'rx', 'rx100', '100', '16', '16gb', 'gb']
    >>> terms("XJ 200"), terms("Ünïcode"), terms("数码相机")
    (['xj', '200'], ['unicode'], ['数', '数码', '码', '码相', '相', '相机', '机'])
    """
    plain = normalized(text)
    atoms = [
        (plain[match.start() : match.end()], match.start(), match.end(), match.lastgroup)
        for match in _ATOM.finditer(_marks_as_letters(plain))
    ]
    out: list[str] = []
    for number, (atom, _, end, kind) in enumerate(atoms):
        if kind == "spaceless":
            for at, character in enumerate(atom):
                out.append(character)
                if at + 1 < len(atom):
                    out.append(atom[at : at + 2])
            continue
        out.append(atom)
        joined, last, kinds = atom, end, {kind}
        for following, start, next_end, next_kind in atoms[number + 1 : number + MOST_JOINED]:
            gap = plain[last:start]
            together = not gap or (len(gap) == 1 and gap in SEPARATORS)
            if not together or next_kind == "spaceless" or len(joined) + len(following) > MOST_CHARACTERS:
                break
            joined, last = joined + following, next_end
            kinds.add(next_kind)
            if len(kinds) == 2:
                out.append(joined)
    return out


def holds_part_number(text: str) -> bool:
    """Does a text hold what looks like a part number?

    That is letters and digits written together, at least four of them, with two digits or more and a letter,
    which are no measure (``128GB``, ``18-55mm``, ``1080p``).

    >>> [holds_part_number(text) for text in ("XJ-200", "xj200 case", "XJ 200", "128GB", "18-55mm f/3.5-5.6")]
    [True, True, False, False, False]
    """
    return any(map(_is_part_number, _WRITTEN_TOGETHER.findall(normalized(text))))


def normalized(text: str) -> str:
    """The form in which texts are compared; half of a surrogate pair becomes a replacement character."""
    if text.isascii():
        return text.lower()
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    text = unicodedata.normalize("NFKD", text).casefold()
    text = unicodedata.normalize("NFKC", _DIACRITICS.sub("", text))
    return "".join(
        character if character.isascii() or not character.isdecimal() else str(unicodedata.decimal(character))
        for character in text
    )


def _marks_as_letters(plain: str) -> str:
    """The text with a letter for each combining mark, such as a vowel sign: it belongs to its word."""
    if plain.isascii():
        return plain
    return _MARK.sub(lambda match: "a" if unicodedata.category(match[0])[0] == "M" else match[0], plain)


def _is_part_number(written: str) -> bool:
    characters = [character for character in written if character.isalnum()]
    digits = sum(character.isdigit() for character in characters)
    return (
        len(characters) >= 4
        and 2 <= digits < len(characters)
        and all(character.isascii() for character in characters)
        and _MEASURE.fullmatch(written) is None
    )
