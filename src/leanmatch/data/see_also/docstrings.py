"""What a docstring says: its summary line and the names under "See Also" (numpydoc's parser)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from leanmatch.data.see_also.modules import quiet
from leanmatch.errors import MissingExtraError

_ROLE = re.compile(r":(?:\w+:)?\w+:`~?([^`]*)`")
_TICKS = re.compile(r"`+([^`]*)`+_?")
_ABBREVIATIONS = {"np": "numpy", "pd": "pandas", "sp": "scipy"}


@dataclass(frozen=True)
class DocFacts:
    """A docstring's summary, in one line without markup, and the names under "See Also", in order."""

    summary: str
    see_also: tuple[str, ...]
    readable: bool
    """False where the section breaks numpydoc's rules, so that its names are not known."""


def parse_docstring(doc: str) -> DocFacts:
    """Parse one cleaned docstring.

    >>> parse_docstring("Sum of `a`.\\n\\nSee Also\\n--------\\nnp.prod : Product.\\nmean, median")
    DocFacts(summary='Sum of a.', see_also=('numpy.prod', 'mean', 'median'), readable=True)

    Raises:
        MissingExtraError: numpydoc is not installed.
    """
    try:
        from numpydoc.docscrape import NumpyDocString, ParseError
    except ModuleNotFoundError as error:
        raise MissingExtraError("numpydoc", "demo", "the See Also graph") from error
    readable = True
    with quiet():
        try:
            parsed = NumpyDocString(doc)
        except (ValueError, ParseError):
            readable = False
            parsed = NumpyDocString(doc.split("\n\n", 1)[0])
    names = [cleaned_name(name) for group, _ in parsed["See Also"] for name, _ in group]
    summary = plain_line(parsed["Summary"])
    return DocFacts(summary, tuple(dict.fromkeys(name for name in names if name)), readable)


def cleaned_name(name: str) -> str:
    """A reference without markup, with ``np``, ``pd`` and ``sp`` spelled out.

    >>> cleaned_name("~np.linalg.norm()"), cleaned_name("DataFrame.loc.")
    ('numpy.linalg.norm', 'DataFrame.loc')
    """
    bare = name.strip().strip("`~").removesuffix("()").strip(".")
    first, dot, rest = bare.partition(".")
    return f"{_ABBREVIATIONS.get(first, first)}{dot}{rest}" if dot else bare


def plain_line(lines: list[str]) -> str:
    """Lines joined into one, without roles, backticks and directives.

    >>> plain_line(["Apply :func:`~numpy.sum` to", "each ``group``. .. deprecated:: 1.0"])
    'Apply numpy.sum to each group.'
    """
    text = " ".join(" ".join(lines).split())
    text = re.split(r"(?:^|\s)\.\. \w+::", text)[0]
    return _TICKS.sub(r"\1", _ROLE.sub(r"\1", text)).strip()
