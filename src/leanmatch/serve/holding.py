"""Where a server's items lie: a catalogue's folder here, or a store (:mod:`leanmatch.serve.stored`)."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from leanmatch.errors import ModelError
from leanmatch.index import Catalogue, Item, WriteOptions, delete_items, read_manifest, upsert_items
from leanmatch.index.changes import Change
from leanmatch.index.encoders import HasModel, encoder_for
from leanmatch.index.storage.manifest import REFERENCE
from leanmatch.models import PromptOptions, TokenTally
from leanmatch.serve.engine import Engine, Identified
from leanmatch.serve.following import manifest_digest
from leanmatch.serve.monitoring.drift import Reference, TokenCounter, catalogue_reference
from leanmatch.serve.options import ServeOptions

WRITER_PATIENCE_SECONDS = 30.0

log = logging.getLogger("leanmatch.serve")


@dataclass(frozen=True)
class State:
    """What is served now: number of items, number of the generation, and what tells it from any other."""

    items: int
    generation: int
    identity: str


class Holding(Protocol):
    """Opens the items and their model, follows changes, and makes them."""

    loaded: str
    """What :meth:`look` said of what was loaded last."""

    def look(self) -> str:
        """What is there now, in a word: another word after each change that must be loaded."""

    def load(self) -> Engine:
        """The engine of what is there now."""

    def renewed(self, engine: Engine) -> Engine | None:
        """The engine of what is there now, None where that is loaded already."""

    def state(self, catalogue: Catalogue) -> State:
        """What an engine with this catalogue serves."""

    def columns(self, catalogue: Catalogue) -> list[Any]:
        """What a client shows of the metadata columns."""

    def reference(self, engine: Engine, counter: TokenCounter) -> Reference:
        """What the drift monitor compares with."""

    def change(self, engine: Engine, items: Sequence[Item], deleted: Sequence[str]) -> Change:
        """Add or replace items, or delete some."""

    def close(self) -> None:
        """Let go of what is open."""


class CatalogueHolding:
    """A catalogue's folder.

    Args:
        options: of the server.
        tally: gets the token counts of what is encoded.
        encoder: one that is loaded already; else the catalogue says which.
    """

    def __init__(self, options: ServeOptions, tally: TokenTally, encoder: Any = None) -> None:
        self._options, self._tally, self._given = options, tally, encoder
        self.loaded = ""

    def look(self) -> str:
        """The manifest's SHA-256."""
        return manifest_digest(self._options.catalogue)

    def load(self) -> Engine:
        """See :class:`Holding`."""
        self.loaded = self.look()
        encoder = self._given
        if encoder is None:
            encoder = open_queries(read_manifest(self._options.catalogue), self._options.model, self._options)
        engine = self._engine_of(encoder)
        engine.catalogue.by_terms(None)  # a server that lacks bm25s does not start
        return engine

    def renewed(self, engine: Engine) -> Engine | None:
        """See :class:`Holding`."""
        old, folder = engine.catalogue.manifest, engine.catalogue.folder
        digest = self.look()  # first: what changes from here on is seen at the next look
        if digest == self.loaded:
            return None
        manifest = read_manifest(folder)
        if manifest.model.same_vectors(old.model):
            fresh = engine.with_catalogue(Catalogue.open(folder))
        else:
            moved = self._options.model if manifest.model.fingerprint == old.model.fingerprint else None
            fresh = self._engine_of(open_queries(manifest, moved, self._options))
        fresh.catalogue.by_terms(None)
        fresh.catalogue.same_as("")  # made now, so that no request waits for them
        warm_columns(fresh.catalogue)
        self.loaded = digest
        return fresh

    def _engine_of(self, encoder: Any) -> Engine:
        catalogue = Catalogue.open(self._options.catalogue)
        self._options.check_dimensions(catalogue.dimension)
        return Engine(encoder, catalogue, self._options.threads, tally=self._tally)

    def state(self, catalogue: Catalogue) -> State:
        """See :class:`Holding`."""
        return State(len(catalogue), catalogue.manifest.generation, catalogue.manifest.identity)

    def columns(self, catalogue: Catalogue) -> list[Any]:
        """See :class:`Holding`."""
        return catalogue.facets()

    def reference(self, engine: Engine, counter: TokenCounter) -> Reference:
        """That of ``leanmatch index reference``, or the items among themselves."""
        stored = engine.catalogue.extra(REFERENCE)
        if stored is None:
            return catalogue_reference(engine.catalogue, counter)
        return Reference.read(stored.read_bytes(), stored)

    def change(self, engine: Engine, items: Sequence[Item], deleted: Sequence[str]) -> Change:
        """See :class:`Holding`."""
        folder, options = engine.catalogue.folder, WriteOptions(wait_seconds=WRITER_PATIENCE_SECONDS)
        if items:
            return upsert_items(folder, items, Identified(engine), options)
        return delete_items(folder, deleted, options)

    def close(self) -> None:
        """Nothing is open."""


def warm_columns(catalogue: Catalogue) -> None:
    """Make the coded columns, so that no request waits for them."""
    for name in catalogue.manifest.columns:
        catalogue.column(name)


def open_queries(held: HasModel, model: str | None, options: ServeOptions) -> Any:
    """The encoder of queries.

    Args:
        held: says which model the items are of.
        model: its folder, where it has moved.
        options: of the server.

    Raises:
        ModelError: see :func:`encoder_for`; or another precision than the items', with a write key.
    """
    queries = PromptOptions(query=options.query_prompt, name=options.prompt_name)
    encoder = encoder_for(held, model, precision=options.precision, queries=queries)
    precision, items = str(getattr(encoder, "precision", "")), held.model
    if not items.goes_with(replace(items, weights=precision)):
        message = f"queries are encoded in {precision}, the items were in {items.weights}"
        if options.write_keys:
            raise ModelError(
                f"{message}: items that come over HTTP would not match the others",
                remedy="leave out --precision, or --write-key",
            )
        log.warning(json.dumps({"event": "precision", "message": message}))
    return encoder
