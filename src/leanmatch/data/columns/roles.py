"""Recognizes a file's columns by a table of usual names and by what their values must be.

A name decides only where it is the only candidate, and only where the values fit: an anchor holds words, a
label zeros and ones, a timestamp times. What is ambiguous is left to the user.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leanmatch.data.columns.names import SPLIT_NAMES, is_known
from leanmatch.data.timestamps import parse_timestamp

USUAL_NAMES: dict[str, tuple[str, ...]] = {
    "anchor": (
        *("query", "queries", "query_text", "search", "search_query", "search_term", "search_text"),
        *("question", "question_text", "keyword", "keywords", "claim"),
    ),
    "positive": (
        *("title", "product", "product_title", "product_name", "product_text", "item", "item_title"),
        *("item_name", "item_text", "offer", "offer_title", "listing", "listing_title"),
        *("document", "document_text", "doc", "doc_text", "passage", "passage_text", "answer", "answer_text"),
        "response",
    ),
    "negative": ("hard_negative", "negative_title", "negative_text"),
    "label": (
        *("clicked", "click", "is_click", "is_clicked", "purchased", "is_purchased", "bought", "ordered"),
        *("converted", "relevant", "is_relevant", "match", "is_match", "matched", "is_positive"),
        *("is_duplicate", "duplicate", "labels", "target"),
    ),
    "relevance": ("relevance_score", "relevance_grade", "grade"),
    "split": ("subset", "partition"),
    "timestamp": (
        *("date", "time", "datetime", "day", "ts", "event_time", "created", "created_at", "clicked_at"),
        "event_date",
    ),
    "anchor_id": ("query_id", "qid", "question_id", "search_id"),
    "positive_id": (
        *("sku", "product_id", "item_id", "doc_id", "document_id", "passage_id", "asin", "offer_id"),
        *("listing_id", "corpus_id", "answer_id", "pid", "docid"),
    ),
}
"""Usual names of each column, in lower case with ``_`` between words. Our own names come before them."""

SCORE_NAMES = ("score", "scores", "similarity", "similarity_score", "similarity_scores", "sim")
"""Usual names of a column that says how similar two texts are, in numbers."""

USUAL_PAIRS = tuple(
    (f"{stem}{left}", f"{stem}{right}")
    for stem in ("question", "sentence", "text", "title", "product", "item", "query", "doc")
    for left, right in (("1", "2"), ("_1", "_2"), ("_a", "_b"), ("_left", "_right"))
)
"""Names that make an anchor and a positive together, never alone."""

LABELS: dict[Any, int] = {
    **{"0": 0, "1": 1, "0.0": 0, "1.0": 1, 0: 0, 1: 1},
    **{"false": 0, "true": 1, "no": 0, "yes": 1},
}
"""What may stand in ``label``, texts in lower case, and what it is read as."""


@dataclass(frozen=True)
class Recognized:
    """What a file's columns are likely to be.

    Attributes:
        columns: our name to the file's, where one column fits and no other does.
        ambiguous: our name to the file's columns that all fit.
    """

    columns: dict[str, str]
    ambiguous: dict[str, tuple[str, ...]]


def plain_name(name: str) -> str:
    """A name as the table has it.

    >>> plain_name(" Search-Query "), plain_name("productTitle")
    ('search_query', 'product_title')
    """
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[\s_.\-]+", "_", spaced).casefold()


def recognize(
    columns: Mapping[str, Sequence[Any]], given: Mapping[str, str], wanted: Iterable[str]
) -> Recognized:
    """Look for columns by their usual names and by what they hold.

    Args:
        columns: values of some rows by the file's column names.
        given: our name to the file's, for columns that are spoken for; so are those with a name of ours.
        wanted: our names that are to be found.

    >>> recognize({"Query": ["usb"], "title": ["dock"], "clicked": ["0"]}, {}, USUAL_NAMES).columns
    {'anchor': 'Query', 'positive': 'title', 'label': 'clicked'}
    """
    taken, wanted = {*given.values(), *filter(is_known, columns)}, set(wanted)
    free = {name: values for name, values in columns.items() if name not in taken}
    plain = {name: plain_name(name) for name in free}
    candidates: dict[str, list[str]] = {}
    for ours, usual in USUAL_NAMES.items():
        if ours not in wanted:
            continue
        named = [name for name in free if plain[name] == ours]  # another case of our own name comes first
        named = named or [name for name in free if plain[name] in usual]
        candidates[ours] = [name for name in named if _FITS[ours](free[name])]
    if {"anchor", "positive"} <= wanted:
        for left, right in USUAL_PAIRS:
            both = [name for wish in (left, right) for name in free if plain[name] == wish]
            if len(both) == 2 and all(_holds_words(free[name]) for name in both):
                for ours, name in zip(("anchor", "positive"), both, strict=True):
                    candidates[ours] = [*candidates[ours], name]
                candidates["label"] = [n for n in candidates.get("label", ()) if n not in both]
    recognized = {ours: names[0] for ours, names in candidates.items() if len(names) == 1}
    for ours, texts in (("anchor_id", "anchor"), ("positive_id", "positive")):
        text = recognized.get(texts) or given.get(texts, texts)
        if ours in recognized and not (
            text in columns and _names_one_text(columns[recognized[ours]], columns[text])
        ):
            del recognized[ours]
    ambiguous = {ours: tuple(names) for ours, names in candidates.items() if len(names) > 1}
    return Recognized(recognized, ambiguous)


def is_zero_or_one(values: Sequence[Any]) -> bool:
    """Whether all values can be read as labels."""
    return bool(values) and all(_plain(value) in LABELS for value in values)


def label_of(value: Any) -> int:
    """0 or 1.

    Raises:
        KeyError, TypeError: neither.
    """
    return LABELS[_plain(value)]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return value.strip().casefold()
    return value if isinstance(value, int | float) else repr(value)


def _holds_words(values: Sequence[Any]) -> bool:
    return any(isinstance(value, str) and any(map(str.isalpha, value)) for value in values)


def _holds_times(values: Sequence[Any]) -> bool:
    try:
        moments = [parse_timestamp(value) for value in values]
    except (ValueError, OverflowError):
        return False
    return bool(moments) and all(1990 <= moment.year <= 2100 for moment in moments)


def _holds_splits(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(v, str) and v.strip().casefold() in SPLIT_NAMES for v in values)


def _holds_grades(values: Sequence[Any]) -> bool:
    try:
        grades = [float(value) for value in values if value not in (None, "")]
        return bool(grades) and all(grade == int(grade) for grade in grades)
    except (ValueError, TypeError, OverflowError):
        return False


def _holds_ids(values: Sequence[Any]) -> bool:
    return bool(values) and all(value is not None and str(value).strip() for value in values)


def _names_one_text(ids: Sequence[Any], texts: Sequence[Any]) -> bool:
    """Whether each id stands for one text, so that it can stand for it."""
    return len(set(zip(map(str, ids), map(str, texts), strict=True))) == len(set(map(str, ids)))


_FITS: dict[str, Callable[[Sequence[Any]], bool]] = {
    **dict.fromkeys(("anchor", "positive", "negative"), _holds_words),
    "label": is_zero_or_one,
    "relevance": _holds_grades,
    "split": _holds_splits,
    "timestamp": _holds_times,
    **dict.fromkeys(("anchor_id", "positive_id"), _holds_ids),
}
