"""What a batch does: encode all its texts at once, search for all of them at once, or explain pairs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from threading import Event
from typing import Any, NamedTuple, Protocol

import numpy as np

from leanmatch.index import Catalogue
from leanmatch.index.filters.expression import Filter
from leanmatch.index.search.found import Found
from leanmatch.index.search.scan import Selection
from leanmatch.models import DOCUMENT, QUERY, SentenceEncoder, TokenCounts, TokenTally, unit_length
from leanmatch.runtime.encoder import NativeEncoder
from leanmatch.serve.explaining import Effects, Explainer
from leanmatch.types import Vectors

EXPLAINED_RESULTS = 10
"""So many of a text's results are explained; each word of each costs a pass through the model."""


@dataclass(frozen=True)
class Embed:
    """Texts to vectors. ``place`` of any job: where it stands in its request's trace; None without one.

    ``role``: ``query`` or ``document``; None for texts of which that is not known.
    """

    texts: Sequence[str]
    role: str | None = None
    place: Any = None

    @property
    def weight(self) -> int:
        """Number of texts."""
        return len(self.texts)


@dataclass(frozen=True)
class Selected:
    """A filter, and the rows that it leaves in one generation of a catalogue."""

    filter: Filter
    catalogue: Catalogue
    selection: Selection

    def of(self, catalogue: Catalogue) -> Selection:
        """The rows that it leaves in that generation."""
        return self.selection if catalogue is self.catalogue else catalogue.select(self.filter)


@dataclass(frozen=True)
class Recommend:
    """Texts to items; ``hybrid`` and ``lexical_weight`` as in :meth:`leanmatch.index.Catalogue.recommend`.

    ``filter`` is a :class:`Selected` for a catalogue, a plain filter for a store.
    """

    texts: Sequence[str]
    k: int = 10
    filter: Any = None
    exclude: Sequence[str] = ()
    exclude_self: bool = True
    hybrid: bool | None = None
    lexical_weight: float | None = None
    place: Any = None

    @property
    def weight(self) -> int:
        """Number of texts."""
        return len(self.texts)


@dataclass(frozen=True)
class Explain:
    """Queries and the items found for each, to the words that carried each match.

    ``over`` is set when nobody waits for it any more: it is not worked on from then on.
    """

    pairs: Sequence[tuple[str, Sequence[str]]]
    over: Event = field(default_factory=Event)
    place: Any = None

    @property
    def weight(self) -> int:
        """Number of queries."""
        return len(self.pairs)


Job = Embed | Recommend


class ItemRows(Protocol):
    """Items by row: a generation of a catalogue, or what a search of a store found."""

    def text(self, row: int) -> str:
        """The text of an item."""

    def metadata(self, row: int) -> dict[str, Any]:
        """What else is known of an item."""

    def document(self, row: int) -> bytes:
        """An item as JSON, without braces."""

    @property
    def lexical(self) -> Any:
        """The terms of the items, where they have some."""


@dataclass(frozen=True)
class Answer:
    """A :class:`Recommend` job's results: what was found for each text, in rows of these items."""

    catalogue: ItemRows
    found: list[Found]
    generation: int

    def documents(self) -> list[list[bytes]]:
        """For each text its items as JSON without the braces, best first."""
        document = self.catalogue.document
        return [
            [
                b'"rank":%d,"score":%.6f,%b%b' % (rank, score, parts, document(row))
                for rank, (row, score, parts) in enumerate(
                    zip(result.rows.tolist(), result.scores.tolist(), _parts(result), strict=True), start=1
                )
            ]
            for result in self.found
        ]

    def matched(self, texts: Sequence[str]) -> list[list[list[str]]]:
        """For each text and each of its first items the terms that they share, rarest first."""
        shared = self.catalogue.lexical.shared
        return [[shared(text, item) for item in items] for text, items in self.pairs(texts)]

    def pairs(self, texts: Sequence[str]) -> list[tuple[str, list[str]]]:
        """Each text with its first items, as they are explained."""
        return [
            (text, [self.catalogue.text(row) for row in result.rows[:EXPLAINED_RESULTS].tolist()])
            for text, result in zip(texts, self.found, strict=True)
        ]


class Phases(Protocol):
    """Takes note of how long the steps of a batch took."""

    def add(self, name: str, begin: int, end: int, **attributes: Any) -> None:
        """A step, in nanoseconds since 1970."""


class _Tokenized(TokenTally):
    """Hands token counts on, and remembers when they came: the encoder counts when it has cut the texts."""

    def __init__(self, other: TokenTally | None) -> None:
        super().__init__()
        self._other, self.at = other, 0

    def add(self, counts: TokenCounts) -> None:
        self.at = time.time_ns()
        super().add(counts)
        if self._other is not None:
            self._other.add(counts)


def _parts(found: Found) -> list[bytes]:
    """The cosine and the lexical score of each item where its score is another number."""
    out = [b""] * len(found.rows)
    for name, values in ((b"cosine", found.cosines), (b"lexical", found.lexical)):
        if values is not None:
            out = [
                b'%b"%b":%.6f,' % (part, name, value)
                for part, value in zip(out, values.tolist(), strict=True)
            ]
    return out


class Engine:
    """An encoder and one generation of a catalogue, which stay together; each method is for one thread."""

    def __init__(
        self,
        encoder: Any,
        catalogue: Catalogue,
        threads: int | None = None,
        explainer: Explainer | None = None,
        tally: TokenTally | None = None,
    ) -> None:
        """``tally`` gets the token counts of what is encoded, where the encoder counts them."""
        self.encoder, self.catalogue = encoder, catalogue
        self.explainer = explainer  # made at the first use: most servers are never asked
        self._threads, self._tally = threads, tally

    def with_catalogue(self, catalogue: Catalogue) -> Engine:
        """The same encoder, and what is kept for it, with another generation."""
        return Engine(self.encoder, catalogue, self._threads, self.explainer, self._tally)

    def encode(self, texts: Sequence[str], role: str | None = None, phases: Phases | None = None) -> Vectors:
        """Vectors, with the number of threads that was asked for where the encoder takes one.

        Args:
            texts: the texts.
            role: ``query`` or ``document``; None for texts of which that is not known.
            phases: takes note of how long it took; apart for tokens where the encoder is the native one.
        """
        options = unit_length(self.encoder)
        if isinstance(self.encoder, SentenceEncoder):
            options |= {"threads": self._threads, "tally": self._tally}
        encode = getattr(self.encoder, f"encode_{role}" if role else "encode", self.encoder)
        if phases is None:
            return np.asarray(encode(texts, **options), dtype=np.float32)
        tokenized = _Tokenized(options.get("tally"))
        if isinstance(self.encoder, NativeEncoder):  # in one piece: all tokens, then all vectors
            options |= {"tally": tokenized, "batch_size": max(len(texts), 1)}
        begin = time.time_ns()
        vectors = np.asarray(encode(texts, **options), dtype=np.float32)
        if tokenized.at:
            phases.add("tokenize", begin, tokenized.at, **{"leanmatch.tokens": tokenized.counts.tokens})
        phases.add("encode", tokenized.at or begin, time.time_ns())
        return vectors

    def _role(self, job: Job) -> str | None:
        """The role of a job's texts; that of queries wherever it makes no difference."""
        prompts = getattr(self.encoder, "prompts", None)
        if isinstance(job, Recommend) or prompts is None or prompts.query == prompts.resolve():
            return QUERY
        return job.role

    def run(self, jobs: Sequence[Job], phases: Phases | None = None) -> list[Any]:
        """An answer for each job: vectors, an :class:`Answer`, or the exception that it ended with.

        ``phases`` takes note of how long each step took.
        """
        catalogue = self.catalogue  # one generation for the whole batch
        rows: dict[tuple[str | None, str], int] = {}
        for job in sorted(jobs, key=lambda job: self._role(job) or ""):  # texts of a role stand together
            for text in job.texts:
                rows.setdefault((self._role(job), text), len(rows))
        vectors = np.concatenate(
            [
                self.encode([text for _, text in some], role, phases)
                for role, some in groupby(rows, key=lambda row: row[0])
            ]
        )
        begin = 0 if phases is None else time.time_ns()
        out: list[Any] = [None] * len(jobs)
        wanted: list[_Wanted] = []
        for at, job in enumerate(jobs):
            if isinstance(job, Embed):
                out[at] = vectors[[rows[self._role(job), text] for text in job.texts]]
                continue
            try:  # one request's fault is not its neighbours'
                selection = None if job.filter is None else job.filter.of(catalogue)
                by_terms = catalogue.by_terms(job.hybrid, job.lexical_weight)
                wanted.append(_Wanted(at, job, selection, _excluded(catalogue, job), by_terms))
            except Exception as error:
                out[at] = error
        results = iter(self._search(catalogue, vectors, rows, wanted) if wanted else ())
        if phases is not None and wanted:
            phases.add("search", begin, time.time_ns(), **{"leanmatch.items": len(catalogue)})
        for one in wanted:
            results_of = [next(results) for _ in one.job.texts]
            out[one.at] = Answer(catalogue, results_of, catalogue.manifest.generation)
        return out

    def explain(self, jobs: Sequence[Explain]) -> list[list[list[tuple[Effects, Effects]]] | None]:
        """For each job and each of its queries, the effects of both sides' words for each item.

        None for a job that was over before it was answered.
        """
        if self.explainer is None:
            self.explainer = Explainer(self.encoder, self._threads)
        return self.explainer.explain([(job.pairs, job.over.is_set) for job in jobs])

    @staticmethod
    def _search(
        catalogue: Catalogue,
        vectors: Vectors,
        rows: dict[tuple[str | None, str], int],
        wanted: Sequence[_Wanted],
    ) -> list[Found]:
        """One search for all texts of all jobs."""
        return catalogue.search(
            vectors[[rows[QUERY, text] for one in wanted for text in one.job.texts]],
            [one.job.k for one in wanted for _ in one.job.texts],
            filters=[one.selection for one in wanted for _ in one.job.texts],
            exclude=[banned for one in wanted for banned in one.excluded],
            texts=[text if one.by_terms else None for one in wanted for text in one.job.texts],
            lexical_weight=[one.job.lexical_weight for one in wanted for _ in one.job.texts],
        )


class _Wanted(NamedTuple):
    """A search of a batch: the job and its place, what it may find, and whether it is hybrid."""

    at: int
    job: Recommend
    selection: Selection | None
    excluded: list[set[int]]
    by_terms: bool


def _excluded(catalogue: Catalogue, job: Recommend) -> list[set[int]]:
    """Rows that each text of a job leaves out."""
    banned = {row for row in map(catalogue.row, job.exclude) if row is not None}
    if not job.exclude_self:
        return [banned] * len(job.texts)
    return [banned.union(catalogue.same_as(text)) for text in job.texts]


class Identified:
    """The engine's encoder as the writer wants it: with an identity that need not be computed again."""

    def __init__(self, engine: Engine) -> None:
        model = engine.catalogue.manifest.model
        self.name, self.fingerprint = model.name, model.fingerprint
        self.tokenizer_fingerprint, self.dimension = model.tokenizer, model.dimension
        self.precision = str(getattr(engine.encoder, "precision", ""))
        self.prompts = getattr(engine.encoder, "prompts", None)
        self.roles_differ = True  # only documents are asked for
        self._engine = engine

    def encode_query(self, texts: Sequence[str]) -> Vectors:
        """Vectors of queries."""
        return self._engine.encode(texts, QUERY)

    def encode_document(self, texts: Sequence[str]) -> Vectors:
        """Vectors of items."""
        return self._engine.encode(texts, DOCUMENT)
