"""A catalogue while its writer lock is held: what is stored, and the ways to the next generation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leanmatch.data.readers.items import joined_parts
from leanmatch.errors import DataError, LeanmatchError, ModelError, UsageError
from leanmatch.index.changes import Change, Item
from leanmatch.index.search.approximate import EXACT_LIMIT, Tuned, build_approximate, check_kind, write_index
from leanmatch.index.storage.arrays import map_array
from leanmatch.index.storage.checking import StoredFile
from leanmatch.index.storage.columns import converted
from leanmatch.index.storage.lexical import check_terms
from leanmatch.index.storage.lock import writer_lock
from leanmatch.index.storage.manifest import (
    MANIFEST,
    Approximate,
    Manifest,
    ModelIdentity,
    Segment,
    SourceColumns,
    missing_file,
    new_identity,
    read_manifest,
    store_file,
    write_manifest,
)
from leanmatch.index.storage.segments import (
    SegmentRows,
    read_segments,
    write_dead,
    write_segment,
    write_vectors,
)
from leanmatch.index.storage.staging import Progress, Staging
from leanmatch.index.storage.table import Items, joined_items
from leanmatch.lexical.terms import TERMS_VERSION
from leanmatch.models import ByRole, RoleEncoder, TokenTally
from leanmatch.types import EncodeFunction, Vectors

MOST_SEGMENTS = 12
"""One more, and a change rewrites the catalogue as one segment."""

_DEAD_SHARE = 0.25
_UNCOVERED_SHARE = 0.2
_SMALL = 1_024


@dataclass(frozen=True)
class WriteOptions:
    """How a catalogue is written.

    Attributes:
        kind: see ``approximate.KINDS``; None keeps what the catalogue has (``auto`` in a new one).
        wait_seconds: how long to wait for another writer.
        progress: called while texts are encoded.
        say: told what is worth a line: recall at each effort, a rewrite.
        source: the columns of the file that a new catalogue's items come from.
        hybrid: store the items' terms for hybrid search; None keeps what the catalogue has (a new one has
            none). Only a catalogue that is made or rebuilt can change it.
    """

    kind: str | None = None
    wait_seconds: float = 0.0
    progress: Progress | None = None
    say: Callable[[str], None] = lambda _: None
    source: SourceColumns | None = None
    hybrid: bool | None = None

    def __post_init__(self) -> None:
        if self.kind is not None:
            check_kind(self.kind)
        if self.wait_seconds < 0:
            raise UsageError(f"wait_seconds is {self.wait_seconds}", remedy="give 0 or more")


class UnwritableError(LeanmatchError):
    """The disk is full, or may not be written to."""


class Transaction:
    """The catalogue while its lock is held."""

    def __init__(self, folder: Path, options: WriteOptions, manifest: Manifest | None) -> None:
        self._folder, self._options, self.manifest = folder, options, manifest
        self._tally = TokenTally()
        try:
            self._segments = read_segments(folder, manifest) if manifest is not None else []
        except FileNotFoundError as error:
            raise missing_file(folder, error) from error
        generation = 1 if manifest is None else manifest.generation + 1
        self._generation, self._name = generation, f"g{generation:08d}"

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, options: WriteOptions, *, new: bool = False) -> Iterator[Transaction]:
        if not new and not (folder / MANIFEST).is_file():
            read_manifest(folder)  # says what is wrong
        with writer_lock(folder, wait_seconds=options.wait_seconds):
            manifest = read_manifest(folder) if not new or (folder / MANIFEST).is_file() else None
            remove_strays(folder, manifest)
            try:
                yield cls(folder, options, manifest)
            except OSError as error:  # the manifest is written last: what it named before is whole
                raise UnwritableError(
                    f"{folder} could not be written ({error})",
                    remedy="make room or correct the rights, then give the same command again: "
                    "what was encoded is kept, and a catalogue that was there is as it was",
                ) from error

    def required(self) -> Manifest:
        assert self.manifest is not None
        return self.manifest

    def require(self, identity: ModelIdentity) -> Manifest:
        manifest = self.required()
        if manifest.model.fingerprint != identity.fingerprint:
            raise ModelError(
                f"the catalogue was made with the model {manifest.model.name} "
                f"({manifest.model.fingerprint[:12]}...), not with {identity.name} "
                f"({identity.fingerprint[:12]}...): their vectors do not mix",
                remedy="name that model, or encode all items anew: rebuild_catalogue",
                command="name that model, or encode all items anew: leanmatch index rebuild CATALOGUE MODEL",
            )
        if not manifest.model.same_texts(identity):
            raise ModelError(
                "the catalogue's items were encoded with the prompt "
                f"{manifest.model.document_prompt or ''!r}, not with {identity.document_prompt or ''!r}: "
                "their vectors do not mix",
                remedy="use the catalogue's own prompt, or encode all items anew: rebuild_catalogue",
                command="leave --document-prompt and --prompt-name out to use the catalogue's own, or encode "
                "all items anew: leanmatch index rebuild CATALOGUE MODEL",
            )
        if manifest.model.dimension != identity.dimension:
            raise ModelError(
                f"the catalogue's vectors have {manifest.model.dimension} dimensions, and those of "
                f"{identity.name} have {identity.dimension}: they do not mix",
                remedy=f"load the model with truncate_dim={manifest.model.dimension}, or encode all items "
                "anew: rebuild_catalogue",
                command="encode all items anew: leanmatch index rebuild CATALOGUE --dimensions "
                f"{identity.dimension}",
            )
        if not manifest.model.goes_with(identity):
            raise ModelError(
                f"the catalogue's items were encoded in {manifest.model.weights}, not in {identity.weights}: "
                "their vectors do not mix",
                remedy="use the catalogue's own precision, or encode all items anew: rebuild_catalogue",
                command="leave --precision and --device out to use the catalogue's own, or encode all items "
                "anew: leanmatch index rebuild CATALOGUE --precision PRECISION",
            )
        return manifest

    def places(self) -> dict[str, tuple[int, int]]:
        """Identifier to segment and row, of the items that are alive."""
        return {
            str(name): (number, row)
            for number, segment in enumerate(self._segments)
            for row, name in enumerate(segment.items.ids.tolist())
            if segment.alive[row]
        }

    def vectors_by_key(self, keys: set[bytes] | None = None) -> dict[bytes, Vectors]:
        """The vector of each text that is stored, or of those asked for."""
        return {
            key: segment.vectors[row]
            for segment in self._segments
            for row, key in enumerate(segment.items.key_list())
            if keys is None or key in keys
        }

    def is_same(self, item: Item, position: tuple[int, int], columns: dict[str, str]) -> bool:
        stored, row = self._segments[position[0]].items, position[1]
        if stored.texts[row] != item.text:
            return False
        for name, kind in columns.items():
            new = converted(name, 0, item.metadata.get(name), kind)
            if new != (stored.columns[name][row] if name in stored.columns else None):
                return False
        return True

    def patched(self, item: Item, position: tuple[int, int]) -> Item:
        """An item that is there with what a change gives: its text stays where that is None.

        Raises:
            DataError: of a text that several columns make, no column has a value any more.
        """
        items = self._segments[position[0]].items
        old = {name: column[position[1]] for name, column in items.columns.items()}
        merged, text = {**old, **item.metadata}, item.text
        parts = self.required().text_columns or ()
        if text is None and len(parts) > 1 and any(name in item.metadata for name in parts):
            text = joined_parts([merged.get(name) for name in parts])
            if not text:
                raise DataError(
                    f"item {item.id!r} is left without a text",
                    column=" + ".join(parts),
                    remedy="give one of these columns a value",
                )
        return Item(item.id, items.texts[position[1]] if text is None else text, merged)

    def live_items(self, columns: dict[str, str] | None = None) -> Items:
        """The items that are alive, in their order."""
        wanted = columns if columns is not None else dict(self.required().columns)
        return joined_items([segment.items.where(segment.alive) for segment in self._segments], wanted)

    def live_vectors(self) -> Vectors:
        parts = [np.asarray(segment.vectors[segment.alive]) for segment in self._segments]
        return np.concatenate([*parts, np.zeros((0, self.required().model.dimension), np.float32)])

    def encode(
        self,
        table: Items,
        keys: Sequence[bytes],
        encoder: EncodeFunction | ByRole,
        identity: ModelIdentity,
        known: Callable[[bytes], Vectors | None],
    ) -> tuple[Vectors, int]:
        texts = [str(text) for text in table.texts.tolist()]
        options = {"tally": self._tally} if hasattr(encoder, "count_tokens") else {}
        documents = RoleEncoder(encoder, **options).encode_document
        return Staging(self._folder, identity).encode(
            texts, keys, documents, known, keep=len(texts) > _SMALL, progress=self._options.progress
        )

    def stored_vectors(
        self, parts: Iterable[Vectors], rows: int, dimension: int
    ) -> tuple[StoredFile, Vectors]:
        """Write the vectors of the next segment part by part; the file, and its rows mapped from it."""
        file = write_vectors(self._folder, self._name, parts, rows, dimension)
        return file, map_array(self._folder / file.name)

    def append(
        self,
        table: Items | None,
        vectors: Vectors | None,
        gone: Sequence[tuple[int, int]],
        columns: dict[str, str],
        change: Change,
    ) -> Change:
        """Add a segment and mark rows as gone; or, where the pieces have become many, write one segment."""
        manifest = self.required()
        alive = [segment.alive.copy() for segment in self._segments]
        for number, row in gone:
            alive[number][row] = False
        if self._scattered(alive, 0 if table is None else len(table)):
            self._options.say("rewriting the catalogue as one segment")
            self._segments = [
                SegmentRows(current.segment, current.items, current.vectors, mask)
                for current, mask in zip(self._segments, alive, strict=True)
            ]
            whole, stored = self.live_items(columns), self.live_vectors()
            if table is not None and vectors is not None:
                whole = joined_items([whole, table], columns)
                stored = np.concatenate([stored, vectors])
            return self.rewrite(whole, stored, manifest.model, columns, change)
        segments = []
        for number, (current, mask) in enumerate(zip(self._segments, alive, strict=True)):
            segment = current.segment
            if not np.array_equal(mask, current.alive):
                dead = np.flatnonzero(~mask)
                file = write_dead(self._folder, f"{self._name}-{number}", dead)
                segment = replace(segment, dead=file, dead_rows=len(dead))
            segments.append(segment)
        if table is not None and vectors is not None:
            check_terms(manifest)
            segments.append(write_segment(self._folder, self._name, table, vectors, hybrid=manifest.hybrid))
        return self.switch(
            replace(manifest, generation=self._generation, columns=columns, segments=tuple(segments)),
            change,
        )

    def rewrite(
        self,
        table: Items,
        vectors: Vectors,
        identity: ModelIdentity,
        columns: dict[str, str],
        change: Change,
        *,
        anew: bool = False,
        stored: StoredFile | None = None,
    ) -> Change:
        """One segment of everything, with a search index where one is due.

        ``anew``: another catalogue. ``stored``: the file of the vectors, if it is written already.
        """
        old = self.manifest
        kind = self._options.kind or (old.kind if old is not None else "auto")
        hybrid = self._options.hybrid
        if hybrid is None:
            hybrid = old is not None and old.hybrid
        segment = write_segment(self._folder, self._name, table, vectors, hybrid=hybrid, stored=stored)
        approximate = self._approximate(segment, vectors, kind)
        same = old is not None and old.model.same_vectors(identity)
        extras: dict[str, StoredFile] = dict(old.extras) if old is not None and same else {}
        named = new_identity() if old is None or anew else old.identity
        source = self._options.source if old is None or anew else old.source
        return self.switch(
            Manifest(
                self._generation,
                identity,
                columns,
                (segment,),
                kind,
                approximate,
                extras,
                named,
                source,
                TERMS_VERSION if hybrid else "",
            ),
            change,
        )

    def _approximate(self, segment: Segment, vectors: Vectors, kind: str) -> Approximate | None:
        chosen = ("exact" if segment.rows <= EXACT_LIMIT else "ivf") if kind == "auto" else kind
        if chosen == "exact" or not segment.rows:
            return None
        tuned: Tuned = build_approximate(vectors, chosen, say=self._options.say)
        file = store_file(
            self._folder, f"{self._name}-{chosen}.faiss", lambda path: write_index(tuned.index, path)
        )
        return Approximate(file, chosen, 1, tuned.effort, tuned.recall, tuned.queries)

    def _scattered(self, alive: list[NDArray[np.bool_]], more: int) -> bool:
        """Are there so many segments, dead rows or rows outside the search index that a rewrite pays?"""
        manifest = self.required()
        rows = sum(len(mask) for mask in alive)
        dead = rows - sum(int(mask.sum()) for mask in alive)
        if len(alive) + bool(more) > MOST_SEGMENTS or dead > max(_SMALL, _DEAD_SHARE * rows):
            return True
        total = rows + more - dead
        approximate = manifest.approximate
        if approximate is None:
            return manifest.kind == "auto" and total > EXACT_LIMIT
        covered = sum(len(mask) for mask in alive[: approximate.segments])
        return rows + more - covered > max(_SMALL, _UNCOVERED_SHARE * total)

    def nothing_to_do(self, change: Change) -> Change:
        return self._reported(self.required(), change)

    def switch(self, manifest: Manifest, change: Change) -> Change:
        if not manifest.identity:  # of an earlier version
            manifest = replace(manifest, identity=new_identity())
        write_manifest(self._folder, manifest)
        self.manifest = manifest
        remove_strays(self._folder, manifest, staging=True)
        return self._reported(manifest, change)

    def _reported(self, manifest: Manifest, change: Change) -> Change:
        change.items, change.generation = manifest.items, manifest.generation
        change.hybrid = manifest.hybrid
        counts = self._tally.counts
        change.truncated, change.tokens_cut_off = counts.truncated, counts.lost
        if counts.truncated:
            self._options.say(counts.sentence())
        if manifest.approximate is not None:
            approximate = manifest.approximate
            change.search = (
                f"{approximate.kind} at effort {approximate.effort}, recall@10 {approximate.recall:.4f}"
            )
        return change


def is_ours(name: str) -> bool:
    return name[:1] == "g" and name[1:9].isdigit() and name[9:10] == "-"


def remove_strays(folder: Path, manifest: Manifest | None, *, staging: bool = False) -> None:
    """Remove what no manifest names: files of killed writers, of older generations, and used up chunks."""
    named = {file.name for file in manifest.files} if manifest is not None else set()
    for path in folder.iterdir():
        if path.name.startswith(".partial-") or (is_ours(path.name) and path.name not in named):
            path.unlink(missing_ok=True)
    if staging:
        Staging.remove(folder)
