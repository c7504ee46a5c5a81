"""What a batch does: encode all its texts at once, then search or explain for each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from leanmatch.index import Catalogue
from leanmatch.index.filters import Filter
from leanmatch.types import Vectors

EXPLAINED_RESULTS = 10
"""So many of a text's results are explained; each word of each costs a pass through the model."""

EXPLAINED_WORDS = 48


@dataclass(frozen=True)
class Embed:
    """Texts to vectors."""

    texts: Sequence[str]

    @property
    def weight(self) -> int:
        """Number of texts."""
        return len(self.texts)


@dataclass(frozen=True)
class Recommend:
    """Texts to items."""

    texts: Sequence[str]
    k: int = 10
    filter: Filter | None = None
    exclude: Sequence[str] = ()
    exclude_self: bool = True
    explain: bool = False

    @property
    def weight(self) -> int:
        """Number of texts."""
        return len(self.texts)


Job = Embed | Recommend


@dataclass(frozen=True)
class Answer:
    """A :class:`Recommend` job's results: for each text a list of plain documents, best first."""

    generation: int
    results: list[list[dict[str, Any]]]
    paths: list[str] = field(default_factory=list)


class Engine:
    """An encoder and the current generation of a catalogue. :meth:`run` is for one thread."""

    def __init__(self, encoder: Any, catalogue: Catalogue, threads: int | None = None) -> None:
        self.encoder, self.catalogue = encoder, catalogue
        self._threads = threads

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors, with the number of threads that was asked for where the encoder takes one."""
        if self._threads is not None and hasattr(self.encoder, "choices"):  # leanmatch's runtime
            vectors: Vectors = self.encoder.encode(texts, threads=self._threads)
            return vectors
        return np.asarray(self.encoder(texts), dtype=np.float32)

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        """An answer for each job: vectors, an :class:`Answer`, or the exception that it ended with."""
        catalogue = self.catalogue  # one generation for the whole batch
        rows: dict[str, int] = {}
        for job in jobs:
            for text in job.texts:
                rows.setdefault(text, len(rows))
        vectors = self.encode(list(rows))
        found: list[Any] = []
        for job in jobs:
            own = vectors[[rows[text] for text in job.texts]]
            try:
                found.append(own if isinstance(job, Embed) else self._recommend(catalogue, job, own))
            except Exception as error:  # one request's fault is not its neighbours'
                found.append(error)
        return found

    def _recommend(self, catalogue: Catalogue, job: Recommend, vectors: Vectors) -> Answer:
        banned = {row for row in map(catalogue.row, job.exclude) if row is not None}
        exclude = [banned | set(catalogue.same_as(text) if job.exclude_self else ()) for text in job.texts]
        found = catalogue.search(vectors, job.k, filters=[job.filter] * len(job.texts), exclude=exclude)
        results = [
            [
                {
                    "rank": rank,
                    "score": round(float(score), 6),
                    "id": catalogue.ids[row],
                    "text": catalogue.text(row),
                    "metadata": catalogue.metadata(row),
                }
                for rank, (row, score) in enumerate(zip(one.rows.tolist(), one.scores, strict=True), start=1)
            ]
            for one in found
        ]
        if job.explain:
            for text, documents in zip(job.texts, results, strict=True):
                self._explain(text, documents[:EXPLAINED_RESULTS])
        return Answer(catalogue.manifest.generation, results, [one.plan.path for one in found])

    def _explain(self, text: str, documents: list[dict[str, Any]]) -> None:
        """Add to each result the words of both sides with their effect on the score."""
        from leanmatch.interventions import importance

        if not documents:
            return
        items = [document["text"] for document in documents]
        found = importance(self.encode, [text] * len(items), items, max_units=EXPLAINED_WORDS, level="text")
        for document in documents:
            document["explanation"] = {"query": [], "item": []}
        for pair, side, (start, end), effect in zip(
            found.pair.tolist(),
            found.side.tolist(),
            found.offsets.tolist(),
            found.effects.tolist(),
            strict=True,
        ):
            words = documents[pair]["explanation"]["item" if side else "query"]
            words.append({"start": start, "end": end, "importance": round(effect, 6)})
