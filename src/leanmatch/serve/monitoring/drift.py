"""Does what people ask now look like what the model was trained on?

A *profile* describes queries by numbers and counts alone; no text is kept. The reference profile is made
once, from training pairs or other texts (``leanmatch index reference``), and lies in the catalogue; the
live one is that of the last queries. They are compared by

- the share of tokens that the tokenizer does not know, and of words that no reference text has;
- the population stability index of scripts, of languages, of the best item's category and of its score,
  ``sum_i (p_i - q_i) ln(p_i / q_i)`` over bins, with 0.1 and 0.25 as the customary marks for a noticeable
  and a strong shift (Siddiqi, *Credit Risk Scorecards*, 2006).
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
import unicodedata
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leanmatch.data import normalized_text
from leanmatch.errors import FormatError
from leanmatch.index import Catalogue
from leanmatch.models import RoleEncoder
from leanmatch.serve.monitoring.languages import RULE, gathered, identifier, why_not_compared
from leanmatch.types import JsonValue

LIVE_QUERIES = 2_000
NOTED_A_SECOND = 100
"""More queries than this are sampled."""

ENOUGH = 100
"""Fewer live queries than this are not judged."""

NOTICEABLE, STRONG = 0.1, 0.25
SHARE_NOTICEABLE, SHARE_STRONG = 0.05, 0.15
MOST_TEXTS = 5_000
MOST_CATEGORIES = 40

_SCORE_BINS = 10
_FORMAT = "leanmatch-reference-1"
_DAMAGED = (ArithmeticError, AttributeError, LookupError, OSError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class Query:
    """What is kept of one query."""

    tokens: int
    unknown: int
    words: tuple[int, ...]
    script: str
    score: float | None
    category: str | None
    language: str | None = None


@dataclass
class Profile:
    """Counts over queries."""

    queries: int = 0
    tokens: int = 0
    unknown: int = 0
    words: int = 0
    new_words: int = 0
    scripts: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    categories: Counter[str] = field(default_factory=Counter)
    scores: list[float] = field(default_factory=list)

    @property
    def unknown_share(self) -> float:
        """Share of tokens that the tokenizer does not know."""
        return self.unknown / self.tokens if self.tokens else 0.0

    @property
    def new_word_share(self) -> float:
        """Share of words that no reference text has."""
        return self.new_words / self.words if self.words else 0.0


@dataclass(frozen=True)
class Reference:
    """The profile that live queries are compared with.

    Attributes:
        source: where its texts come from, for people.
        column: the metadata column whose mix is compared, None where there is none.
        vocabulary: sorted 64-bit hashes of the words of its texts.
        held_out: share of new words among every tenth text against the vocabulary of the others: what is
        normal.
    """

    source: str
    profile: Profile
    column: str | None
    vocabulary: NDArray[np.int64]
    held_out: float

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        profile = self.profile
        document = {
            "format": _FORMAT,
            "source": self.source,
            "column": self.column,
            "queries": profile.queries,
            "tokens": profile.tokens,
            "unknown": profile.unknown,
            "held_out": self.held_out,
            "scripts": dict(profile.scripts),
            "languages": dict(profile.languages),
            "languages_by": RULE,
            "categories": dict(profile.categories),
            "scores": [round(score, 5) for score in profile.scores],
            "vocabulary": base64.b64encode(self.vocabulary.astype("<i8").tobytes()).decode(),
        }
        path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def read(cls, content: bytes, place: object) -> Reference:
        """What :meth:`write` wrote; ``place`` is where it lies, for messages.

        Raises:
            FormatError: it is damaged.
        """
        try:
            document = json.loads(content)
            if document["format"] != _FORMAT:
                raise ValueError(f"format {document['format']!r}")
            profile = Profile(
                queries=int(document["queries"]),
                tokens=int(document["tokens"]),
                unknown=int(document["unknown"]),
                scripts=Counter(document["scripts"]),
                languages=Counter(document["languages"] if document.get("languages_by") == RULE else {}),
                categories=Counter(document["categories"]),
                scores=[float(score) for score in document["scores"]],
            )
            counts = [*profile.scripts.values(), *profile.languages.values(), *profile.categories.values()]
            numbers = [*counts, *profile.scores, float(document["held_out"])]
            if not all(isinstance(count, int) for count in counts) or not np.isfinite(numbers).all():
                raise ValueError("a count is no number")
            column = document["column"]
            if not isinstance(column, str | None) or not isinstance(document["source"], str):
                raise ValueError(f"column {column!r:.80}")
            vocabulary = np.frombuffer(base64.b64decode(document["vocabulary"]), "<i8").astype(np.int64)
            return cls(document["source"], profile, column, vocabulary, float(document["held_out"]))
        except _DAMAGED as error:
            raise FormatError(
                f"{place} is no reference ({type(error).__name__}: {error})"[:400],
                remedy="make it anew with leanmatch index reference",
            ) from error


def words_of(text: str) -> tuple[int, ...]:
    """64-bit hashes of a text's words, case folded."""
    return tuple(
        int.from_bytes(
            hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big", signed=True
        )
        for word in normalized_text(text).split()
    )


def script_of(text: str) -> str:
    """The script of most letters: Latin, Cyrillic, Han, ...; ``none`` without letters."""
    counts: Counter[str] = Counter()
    for letter in text:
        if letter.isascii():
            if letter.isalpha():
                counts["Latin"] += 1
        elif letter.isalpha():
            name = unicodedata.name(letter, "OTHER").split()[0].title()
            counts["Han" if name == "Cjk" else name] += 1
    return max(counts, key=lambda script: (counts[script], script)) if counts else "none"


class TokenCounter:
    """Counts tokens and unknown tokens; without a tokenizer it counts none."""

    def __init__(self, tokenizer: Any) -> None:
        """``tokenizer``: a ``tokenizers.Tokenizer`` or a transformers tokenizer that wraps one."""
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        usable = hasattr(backend, "encode_batch") and hasattr(backend, "token_to_id")
        self._tokenizer = backend if usable else None
        self._unknown = _unknown_id(backend) if usable else None

    @property
    def there(self) -> bool:
        """Can it count?"""
        return self._tokenizer is not None

    def __call__(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """``(tokens, unknown)`` of each text."""
        if self._tokenizer is None:
            return [(0, 0)] * len(texts)
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            (
                sum(mask),
                sum(1 for token, real in zip(e.ids, mask, strict=True) if real and token == self._unknown),
            )
            for e in encodings
            for mask in [e.attention_mask]
        ]


def _unknown_id(tokenizer: Any) -> int | None:
    name = getattr(tokenizer.model, "unk_token", None) or "[UNK]"
    for candidate in (name, "[UNK]", "<unk>"):
        number = tokenizer.token_to_id(candidate)
        if number is not None:
            return int(number)
    return None


def category_column(catalogue: Catalogue) -> str | None:
    """The first text column of few values that are no numbers: what is compared as the category."""
    for name, kind in catalogue.manifest.columns.items():
        if kind != "text":
            continue
        coded = catalogue.column(name)
        if 2 <= len(coded.values) <= MOST_CATEGORIES and coded.numeric is None:
            return name
    return None


def observe(
    counter: TokenCounter,
    texts: Sequence[str],
    column: str | None,
    best: Sequence[tuple[float, Mapping[str, Any]] | None],
) -> list[Query]:
    """What is kept of queries; ``best`` is the score and metadata of each one's first item."""
    language_of = identifier()
    return [
        Query(
            tokens=tokens,
            unknown=unknown,
            words=words_of(text),
            script=script_of(text),
            score=first[0] if first else None,
            category=str(first[1].get(column, "")) if first and column else None,
            language=language_of(text) if language_of is not None else None,
        )
        for text, (tokens, unknown), first in zip(texts, counter(texts), best, strict=True)
    ]


def build_reference(catalogue: Catalogue, encoder: Any, texts: Sequence[str], source: str) -> Reference:
    """The profile of texts (anchors of training pairs, for instance) against a catalogue.

    At most 5,000 texts are encoded and searched; the vocabulary is that of all.
    """
    counter = TokenCounter(getattr(encoder, "tokenizer", None))
    encode = RoleEncoder(encoder).encode_query
    column = category_column(catalogue)
    step = max(1, len(texts) // MOST_TEXTS)
    sample = list(texts[::step])[:MOST_TEXTS]
    queries: list[Query] = []
    for start in range(0, len(sample), 256):
        part = sample[start : start + 256]
        results = catalogue.search(
            np.asarray(encode(part), np.float32), 1, exclude=[catalogue.same_as(t) for t in part]
        )
        best = [
            (float(result.scores[0]), catalogue.metadata(int(result.rows[0]))) if len(result.rows) else None
            for result in results
        ]
        queries += observe(counter, part, column, best)
    return _reference(texts, queries, column, source)


Nearest = Callable[[Sequence[int]], list[tuple[float, Mapping[str, Any]] | None]]
"""Of some rows, score and metadata of the best other item of each."""


def catalogue_reference(
    catalogue: Catalogue, counter: TokenCounter, nearest: Nearest | None = None
) -> Reference:
    """A makeshift where no training texts were given: the items among themselves.

    Args:
        catalogue: the items.
        counter: counts their tokens.
        nearest: finds the best other items; in the catalogue where not given.
    """
    nearest = nearest or partial(_nearest, catalogue)
    column = category_column(catalogue)
    texts = catalogue.texts
    rows = list(range(0, len(texts), max(1, len(texts) // 1_000)))[:1_000]
    queries: list[Query] = []
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        best = nearest(part)
        queries += observe(counter, [texts[row] for row in part], column, best)
    return _reference(texts, queries, column, "the catalogue's items (no training texts were given)")


def _nearest(catalogue: Catalogue, rows: Sequence[int]) -> list[tuple[float, Mapping[str, Any]] | None]:
    texts = catalogue.texts
    results = catalogue.search(
        catalogue.vectors(rows), 1, exclude=[catalogue.same_as(texts[row]) for row in rows]
    )
    return [
        (float(result.scores[0]), catalogue.metadata(int(result.rows[0]))) if len(result.rows) else None
        for result in results
    ]


def _reference(texts: Sequence[str], queries: list[Query], column: str | None, source: str) -> Reference:
    hashed = [words_of(text) for text in texts]
    kept = {word for row, words in enumerate(hashed) if row % 10 for word in words}
    out = [word for words in hashed[::10] for word in words]
    held_out = sum(word not in kept for word in out) / len(out) if out and kept else 0.0
    vocabulary = np.array(sorted(kept.union(out)), dtype=np.int64)
    return Reference(source, profile_of(queries), column, vocabulary, held_out)


def profile_of(queries: Sequence[Query], vocabulary: NDArray[np.int64] | None = None) -> Profile:
    """Counts over queries; words are new where they are not in the vocabulary."""
    profile = Profile(queries=len(queries))
    for query in queries:
        profile.tokens += query.tokens
        profile.unknown += query.unknown
        profile.scripts[query.script] += 1
        if query.language is not None:
            profile.languages[query.language] += 1
        if query.category is not None:
            profile.categories[query.category] += 1
        if query.score is not None:
            profile.scores.append(query.score)
    words = np.array([word for query in queries for word in query.words], dtype=np.int64)
    profile.words = len(words)
    if vocabulary is not None and len(words):
        profile.new_words = int((~np.isin(words, vocabulary)).sum())
    return profile


def stability_index(reference: Mapping[Any, float], live: Mapping[Any, float]) -> float:
    """Population stability index of two counts over the same bins, each bin with half a count more.

    >>> stability_index({"a": 50, "b": 50}, {"a": 50, "b": 50})
    0.0
    >>> stability_index({"a": 90, "b": 10}, {"a": 10, "b": 90}) > 2
    True
    """
    bins = sorted({*reference, *live}, key=str)
    if len(bins) < 2:
        return 0.0
    p = np.array([reference.get(label, 0) + 0.5 for label in bins])
    q = np.array([live.get(label, 0) + 0.5 for label in bins])
    p, q = p / p.sum(), q / q.sum()
    return float(np.sum((q - p) * np.log(q / p)))


def score_index(reference: Sequence[float], live: Sequence[float]) -> float:
    """Stability index of scores over ten bins that hold equal shares of the reference."""
    if len(reference) < _SCORE_BINS or not live:
        return 0.0
    edges = np.unique(np.quantile(np.asarray(reference), np.linspace(0, 1, _SCORE_BINS + 1)[1:-1]))
    counts = [
        Counter(np.searchsorted(edges, np.asarray(scores), side="right").tolist())
        for scores in (reference, live)
    ]
    return stability_index(counts[0], counts[1])


class Monitor:
    """Keeps the last queries and compares them with the reference."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._queries: deque[Query] = deque(maxlen=LIVE_QUERIES)
        self._lock = Lock()
        self._room, self._since = float(LIVE_QUERIES), time.monotonic()

    def wants(self, queries: int) -> bool:
        """Are these to be noted? Of a fast stream only :data:`NOTED_A_SECOND` a second, evenly in time, are.

        A query is read once more for its unknown tokens and words, which takes as long as answering it.
        """
        now = time.monotonic()
        self._room = min(float(LIVE_QUERIES), self._room + (now - self._since) * NOTED_A_SECOND)
        self._since = now
        if self._room < queries:
            return False
        self._room -= queries
        return True

    def add(self, queries: Sequence[Query]) -> None:
        """Take note of queries."""
        with self._lock:
            self._queries.extend(queries)

    def report(self) -> JsonValue:
        """A document: live and reference figures of each measure, and a verdict for each and over all."""
        with self._lock:
            queries = list(self._queries)
        reference, base = self.reference, self.reference.profile
        live = profile_of(queries, reference.vocabulary)
        measures: list[dict[str, Any]] = []
        if base.tokens:
            measures.append(
                _share(
                    "unknown_tokens",
                    "tokens the tokenizer does not know",
                    base.unknown_share,
                    live.unknown_share,
                )
            )
        measures.append(
            _share("new_words", "words no reference text has", reference.held_out, live.new_word_share)
        )
        measures.append(_index("scripts", "writing systems", stability_index(base.scripts, live.scripts)))
        languages = gathered(base.languages, live.languages)
        languages_note = why_not_compared(base.languages, live.languages)
        if languages_note is None:
            measures.append(_index("languages", "languages", stability_index(*languages)))
        if base.categories:
            label = f"mix of {reference.column} among best results"
            measures.append(_index("categories", label, stability_index(base.categories, live.categories)))
        if base.scores:
            measures.append(_index("scores", "scores of best results", score_index(base.scores, live.scores)))
        enough = len(queries) >= ENOUGH
        levels = [measure["level"] for measure in measures]
        worst = max(levels, key=("steady", "noticeable", "strong").index)
        return {
            "queries": len(queries),
            "enough": enough,
            "needed": ENOUGH,
            "verdict": worst if enough else "too few queries to say",
            "reference": {"source": reference.source, "queries": base.queries},
            "measures": measures,
            "scripts": _mix(base.scripts, live.scripts),
            "languages": _mix(*languages) if languages_note is None else [],
            "languages_note": languages_note,
            "languages_told": {"live": sum(live.languages.values()), "queries": len(queries)},
            "categories": _mix(base.categories, live.categories),
            "column": reference.column,
            "scores": {"reference": _quartiles(base.scores), "live": _quartiles(live.scores)},
        }


def _share(name: str, label: str, reference: float, live: float) -> dict[str, Any]:
    more = live - reference
    level = "strong" if more >= SHARE_STRONG else "noticeable" if more >= SHARE_NOTICEABLE else "steady"
    return {
        "name": name,
        "label": label,
        "unit": "share",
        "reference": round(reference, 4),
        "live": round(live, 4),
        "level": level,
    }


def _index(name: str, label: str, value: float) -> dict[str, Any]:
    level = "strong" if value >= STRONG else "noticeable" if value >= NOTICEABLE else "steady"
    return {
        "name": name,
        "label": label,
        "unit": "index",
        "reference": 0.0,
        "live": round(value, 4),
        "level": level,
    }


def _mix(reference: Mapping[str, int], live: Mapping[str, int]) -> list[dict[str, Any]]:
    totals = max(1, sum(reference.values())), max(1, sum(live.values()))
    names = sorted(
        {*reference, *live},
        key=lambda name: -(reference.get(name, 0) / totals[0] + live.get(name, 0) / totals[1]),
    )
    return [
        {
            "name": name,
            "reference": round(reference.get(name, 0) / totals[0], 4),
            "live": round(live.get(name, 0) / totals[1], 4),
        }
        for name in names[:12]
    ]


def _quartiles(scores: Sequence[float]) -> list[float]:
    return [round(float(q), 4) for q in np.quantile(scores, [0.25, 0.5, 0.75])] if scores else []
