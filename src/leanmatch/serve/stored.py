"""Items in a store that other servers share: this server keeps a model and a sample of the items, no state.

Every search and every change goes to the store, in the generation that it has then. The sample is a
catalogue in a temporary folder. It serves what is not worth a search of the whole store: the values of the
page's filter fields, sample queries, suggestions and the reference of the drift monitor.
"""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leanmatch.errors import UsageError
from leanmatch.index import Catalogue, Item, WriteOptions, create_from_vectors, parse_filter
from leanmatch.index.changes import Change, checked_items
from leanmatch.index.filters.expression import Filter, filter_from_json
from leanmatch.index.search.found import Found
from leanmatch.index.search.planner import Plan
from leanmatch.models import DOCUMENT, TokenTally
from leanmatch.serve.engine import Answer, Engine, Recommend
from leanmatch.serve.holding import State, open_queries
from leanmatch.serve.monitoring.drift import Reference, TokenCounter, catalogue_reference
from leanmatch.serve.options import ServeOptions
from leanmatch.stores import Hit, Patience, Store, StoreInfo, open_store
from leanmatch.stores.protocol import check_filter, check_model
from leanmatch.stores.recommend import search_others
from leanmatch.types import Vectors

SAMPLE_ITEMS = 5_000
CONNECT_SECONDS = 3.0
FIRST_PAUSE_SECONDS = 0.1
ATTEMPTS = 4
STORE = Plan("store", 0, 1.0)


@dataclass(frozen=True)
class HitRows:
    """What one search found, by row, as an answer asks for it."""

    hits: Sequence[Hit]

    def text(self, row: int) -> str:
        """The text of an item."""
        return self.hits[row].text

    def metadata(self, row: int) -> dict[str, Any]:
        """What else is known of an item."""
        return self.hits[row].metadata

    def document(self, row: int) -> bytes:
        """An item as JSON, without braces."""
        hit = self.hits[row]
        whole = {"id": hit.id, "text": hit.text, "metadata": hit.metadata}
        return json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()[1:-1]

    @property
    def lexical(self) -> Any:
        """A store searches by vectors alone.

        Raises:
            UsageError: always.
        """
        raise UsageError("a store has no terms", remedy="leave out hybrid")


class StoreHolding:
    """A store by its URL. :meth:`search` is for any number of threads, each of which has a connection.

    Args:
        options: of the server; ``catalogue`` is the URL.
        tally: gets the token counts of what is encoded.
        encoder: one that is loaded already; else the store says which.
    """

    def __init__(self, options: ServeOptions, tally: TokenTally, encoder: Any = None) -> None:
        self._options, self._tally, self._given = options, tally, encoder
        self.loaded = ""
        self._patience = Patience(ATTEMPTS, FIRST_PAUSE_SECONDS, CONNECT_SECONDS, once_while_lost=True)
        self._here = threading.local()
        self._stores: list[Store] = []
        self._info: StoreInfo | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @property
    def info(self) -> StoreInfo:
        """What the store held at the last look."""
        assert self._info is not None, "it is set before anything is served"
        return self._info

    def _store(self) -> Store:
        """This thread's connection."""
        store: Store | None = getattr(self._here, "store", None)
        if store is None:
            store = self._here.store = open_store(self._options.catalogue, self._patience)
            self._stores.append(store)
        return store

    def look(self) -> str:
        """Number, content and reference of the generation; changes of single items make no new one."""
        info = self._store().info
        if self._info is not None and _digest(info) == self.loaded:
            self._info = info  # the number of items
        return _digest(info)

    def load(self) -> Engine:
        """See :class:`~leanmatch.serve.holding.Holding`."""
        info = self._store().info
        encoder = self._given
        if encoder is None:
            encoder = open_queries(info, self._options.model, self._options)
        engine = self._engine_of(encoder, info)
        self._info, self.loaded = info, _digest(info)
        return engine

    def renewed(self, engine: Engine) -> Engine | None:
        """See :class:`~leanmatch.serve.holding.Holding`."""
        info = self._store().info
        if _digest(info) == self.loaded:
            return None
        old = self.info.model
        if info.model.same_vectors(old):
            fresh = engine.with_catalogue(self._sample(info))
        else:
            moved = self._options.model if info.model.fingerprint == old.fingerprint else None
            fresh = self._engine_of(open_queries(info, moved, self._options), info)
        self._info, self.loaded = info, _digest(info)
        return fresh

    def _engine_of(self, encoder: Any, info: StoreInfo) -> Engine:
        self._options.check_dimensions(info.model.dimension)
        return Engine(encoder, self._sample(info), self._options.threads, tally=self._tally)

    def _sample(self, info: StoreInfo) -> Catalogue:
        items, vectors = self._store().sample(SAMPLE_ITEMS)
        folder = tempfile.TemporaryDirectory(prefix="leanmatch-sample-")
        options = WriteOptions(kind="exact")
        create_from_vectors(Path(folder.name) / "catalogue", items, vectors, info.model, options)
        catalogue = Catalogue.open(Path(folder.name) / "catalogue")
        catalogue.same_as("")
        old, self._folder = self._folder, folder
        if old is not None:
            old.cleanup()
        return catalogue

    def select(self, given: dict[str, Any] | str) -> Filter:
        """Read a request's filter.

        Raises:
            UsageError: it is none, or does not fit the columns.
        """
        expression = parse_filter(given) if isinstance(given, str) else filter_from_json(given)
        check_filter(expression, self.info)
        return expression

    def search(self, engine: Engine, job: Recommend, queries: Vectors) -> Answer:
        """What is found for the texts of a job, whose vectors these are.

        Raises:
            UsageError: a search by terms.
            OtherModelError: by now the store holds vectors of another model than the engine's.
            StoreError: the store cannot be reached.
        """
        if job.hybrid or job.lexical_weight is not None:
            raise UsageError(
                "a store searches by vectors alone", remedy="leave out hybrid and lexical_weight"
            )
        found = search_others(
            self._store(),
            queries,
            job.texts,
            job.k,
            filter=job.filter,
            exclude=job.exclude,
            exclude_self=job.exclude_self,
            model=engine.catalogue.manifest.model,
        )
        hits = [hit for result in found for hit in result]
        out, start = [], 0
        for result in found:
            rows = np.arange(start, start + len(result))
            out.append(Found(np.array([hit.score for hit in result], np.float64), rows, STORE))
            start += len(result)
        return Answer(HitRows(hits), out, self.info.generation)

    def state(self, catalogue: Catalogue) -> State:
        """See :class:`~leanmatch.serve.holding.Holding`."""
        return State(self.info.rows, self.info.generation, self.info.source)

    def columns(self, catalogue: Catalogue) -> list[Any]:
        """The columns of the store, with the values of the sample."""
        known = {facet["name"]: facet for facet in catalogue.facets()}
        return [
            {**known.get(name, {"name": name, "present": 0}), "type": kind}
            for name, kind in self.info.columns.items()
        ]

    def reference(self, engine: Engine, counter: TokenCounter) -> Reference:
        """That of ``leanmatch index reference``; or items of the sample, with the best other one of each."""
        pushed = self._store().reference()
        if pushed is not None:
            return Reference.read(pushed, "the store's reference")
        sample = engine.catalogue

        def nearest(rows: Sequence[int]) -> list[tuple[float, Mapping[str, Any]] | None]:
            texts = [sample.text(row) for row in rows]
            found = search_others(
                self._store(), sample.vectors(rows), texts, 1, exclude_self=True, model=sample.manifest.model
            )
            return [(hits[0].score, hits[0].metadata) if hits else None for hits in found]

        return catalogue_reference(sample, counter, nearest)

    def change(self, engine: Engine, items: Sequence[Item], deleted: Sequence[str]) -> Change:
        """See :class:`~leanmatch.serve.holding.Holding`."""
        store, change = self._store(), Change(search="store")
        if items:
            incoming = checked_items(items)
            check_model(engine.catalogue.manifest.model, store.info)  # before the work
            vectors = engine.encode([str(item.text) for item in incoming], DOCUMENT)
            change.added = store.upsert(incoming, vectors, model=engine.catalogue.manifest.model)
            change.updated, change.encoded = len(incoming) - change.added, len(incoming)
        else:
            wanted = list(dict.fromkeys(deleted))
            change.deleted = store.delete(wanted)
            change.unknown = len(wanted) - change.deleted
        info = store.info
        change.items, change.generation = info.rows, info.generation
        return change

    def close(self) -> None:
        """Let go of the connections and of the sample."""
        for store in self._stores:
            store.close()
        if self._folder is not None:
            self._folder.cleanup()


def _digest(info: StoreInfo) -> str:
    return f"{info.generation} {info.source} {info.reference}"
