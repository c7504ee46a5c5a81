"""Making and changing a catalogue. Every operation ends in one rename: the old catalogue or the new one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from leanmatch.errors import DataError, UsageError
from leanmatch.index.changes import Change, Item, checked_items, twice
from leanmatch.index.identity import identity_of, known_as
from leanmatch.index.storage.columns import column_of, infer_type, widened
from leanmatch.index.storage.manifest import (
    LOCK,
    MANIFEST,
    STAGING,
    Manifest,
    ModelIdentity,
    read_manifest,
    store_file,
)
from leanmatch.index.storage.staging import checked_vectors, text_key
from leanmatch.index.storage.table import Items, TextColumn, joined_items
from leanmatch.index.storage.transaction import Transaction, WriteOptions, is_ours
from leanmatch.models import ByRole
from leanmatch.types import EncodeFunction, Vectors


def create_catalogue(
    folder: str | Path,
    items: Sequence[Item],
    encoder: EncodeFunction | ByRole,
    options: WriteOptions | None = None,
    *,
    overwrite: bool = False,
) -> Change:
    """Make a catalogue. After a kill, the same call goes on where it was.

    Args:
        folder: where; new, empty, or of an unfinished call.
        items: each identifier once.
        encoder: texts to vectors, with a folder or a fingerprint
            (:func:`leanmatch.index.identity.identity_of`).
        options: see :class:`WriteOptions`.
        overwrite: replace the catalogue that is there; vectors of texts that stay are taken from it.

    Raises:
        UsageError: the folder holds a catalogue, or something else.
        DataError: items that are not sound.
        ModelError: an encoder that cannot be told from others, or gives odd vectors.
    """
    target = Path(folder)
    _check_target(target, overwrite)
    incoming = checked_items(items)
    identity = identity_of(encoder)
    target.mkdir(parents=True, exist_ok=True)
    with Transaction.opened(target, options or WriteOptions(), new=True) as writer:
        old = writer.manifest
        identity = identity if old is None else known_as(identity, encoder, old.model)
        same = old is not None and old.model.same_vectors(identity)
        stored_vectors = writer.vectors_by_key() if same else {}
        columns = _inferred(incoming)
        table, keys = _as_table(incoming, columns)
        vectors, encoded = writer.encode(table, keys, encoder, identity, stored_vectors.get)
        change = Change(added=len(incoming), encoded=encoded, reused=len(incoming) - encoded)
        return writer.rewrite(table, vectors, identity, columns, change, anew=True)


def create_from_vectors(
    folder: str | Path,
    items: Sequence[Item],
    vectors: Vectors,
    model: ModelIdentity,
    options: WriteOptions | None = None,
    *,
    overwrite: bool = False,
) -> Change:
    """Make a catalogue of vectors that were encoded before; no model is opened.

    Args:
        folder: where; new or empty.
        items: each identifier once.
        vectors: of the items, float32 ``(items, dimension)``, unit length.
        model: what made them.
        options: see :class:`WriteOptions`.
        overwrite: replace the catalogue that is there.

    Raises:
        UsageError: the folder holds a catalogue, or something else.
        DataError: items that are not sound.
        ModelError: vectors of another shape than items and model, or not of unit length.
    """
    incoming = checked_items(items)
    blocks = [(incoming, checked_vectors(vectors, len(incoming), model.dimension))]
    return create_from_blocks(
        folder, blocks, len(incoming), _inferred(incoming), model, options, overwrite=overwrite
    )


def create_from_blocks(
    folder: str | Path,
    blocks: Iterable[tuple[Sequence[Item], Vectors]],
    rows: int,
    columns: Mapping[str, str],
    model: ModelIdentity,
    options: WriteOptions | None = None,
    *,
    overwrite: bool = False,
) -> Change:
    """As :func:`create_from_vectors`, of items that come block by block.

    Vectors go straight to their file, so neither they nor the objects of all items are in memory at once. The
    items' texts and columns are, as arrays.

    Args:
        folder: where; new or empty.
        blocks: items with their vectors, each identifier once among all of them.
        rows: how many items the blocks have together.
        columns: type of each metadata column: text, integer, number or boolean.
        model: what made the vectors.
        options: see :class:`WriteOptions`.
        overwrite: replace the catalogue that is there.

    Raises:
        UsageError: the folder holds a catalogue, or something else.
        DataError: items that are not sound, more or fewer than ``rows``, or a value that its column does not
            hold.
        ModelError: vectors of another shape than items and model, or not of unit length.
    """
    target = Path(folder)
    _check_target(target, overwrite)
    target.mkdir(parents=True, exist_ok=True)
    tables: list[Items] = []

    def vectors_of_blocks() -> Iterator[Vectors]:
        first = 0
        for items, vectors in blocks:
            incoming = checked_items(items, first=first)
            checked = checked_vectors(vectors, len(incoming), model.dimension)
            tables.append(_as_table(incoming, columns, first)[0])
            first += len(incoming)
            yield checked
        if first != rows:
            raise DataError(f"the blocks have {first:,} items, not {rows:,}", remedy="give their number")

    with Transaction.opened(target, options or WriteOptions(), new=True) as writer:
        file, vectors = writer.stored_vectors(vectors_of_blocks(), rows, model.dimension)
        table = joined_items(tables, columns)
        tables.clear()
        _check_once(table.ids)
        change = Change(added=rows, reused=rows)
        return writer.rewrite(table, vectors, model, dict(columns), change, anew=True, stored=file)


def upsert_items(
    folder: str | Path,
    items: Sequence[Item],
    encoder: EncodeFunction | ByRole,
    options: WriteOptions | None = None,
    *,
    patch: bool = False,
) -> Change:
    """Add items, and replace those whose identifier is there; only texts that are new are encoded.

    Args:
        folder: the catalogue.
        items: each identifier once.
        encoder: of the catalogue's model.
        options: see :class:`WriteOptions`.
        patch: only change items that are there; columns that an item does not name keep their values, and a
            text of None keeps the text.

    Raises:
        ModelError: another model than the catalogue's.
        DataError: items that are not sound, a value that does not fit its column, with ``patch`` an
            identifier that is not there.
    """
    incoming = checked_items(items, patch=patch)
    identity = identity_of(encoder)
    with Transaction.opened(Path(folder), options or WriteOptions()) as writer:
        identity = known_as(identity, encoder, writer.required().model)
        manifest = writer.require(identity)
        columns = _joined(manifest.columns, incoming, (options or WriteOptions()).say)
        places = writer.places()
        if patch:
            unknown = [item.id for item in incoming if item.id not in places]
            if unknown:
                raise DataError(
                    f"{len(unknown):,} identifiers are not in the catalogue",
                    value=unknown[0],
                    remedy="add new items with leanmatch index add",
                )
            incoming = [writer.patched(item, places[item.id]) for item in incoming]
        change = Change()
        changed: list[Item] = []
        for item in incoming:
            position = places.get(item.id)
            if position is None:
                change.added += 1
            elif writer.is_same(item, position, columns):
                change.unchanged += 1
                continue
            else:
                change.updated += 1
            changed.append(item)
        if not changed:
            return writer.nothing_to_do(change)
        table, keys = _as_table(changed, columns)
        stored_vectors = writer.vectors_by_key(set(keys))
        vectors, change.encoded = writer.encode(table, keys, encoder, identity, stored_vectors.get)
        change.reused = len(changed) - change.encoded
        gone = [places[item.id] for item in changed if item.id in places]
        return writer.append(table, vectors, gone, columns, change)


def delete_items(folder: str | Path, ids: Iterable[str], options: WriteOptions | None = None) -> Change:
    """Delete items by identifier; those that are not there are counted."""
    wanted = list(dict.fromkeys(ids))
    with Transaction.opened(Path(folder), options or WriteOptions()) as writer:
        places = writer.places()
        gone = [places[name] for name in wanted if name in places]
        change = Change(deleted=len(gone), unknown=len(wanted) - len(gone))
        if not gone:
            return writer.nothing_to_do(change)
        return writer.append(None, None, gone, dict(writer.required().columns), change)


def rebuild_catalogue(
    folder: str | Path, encoder: EncodeFunction | ByRole, options: WriteOptions | None = None
) -> Change:
    """Encode a catalogue's items with another model; items and metadata stay, without their source file.

    With the catalogue's own model in its own precision no text is encoded: deleted rows go, and the search
    index is built anew.
    """
    identity = identity_of(encoder)
    with Transaction.opened(Path(folder), options or WriteOptions()) as writer:
        manifest = writer.required()
        table = writer.live_items()
        keys = table.key_list()
        identity = known_as(identity, encoder, manifest.model)
        same = manifest.model.same_vectors(identity)
        stored_vectors = writer.vectors_by_key() if same else {}
        vectors, encoded = writer.encode(table, keys, encoder, identity, stored_vectors.get)
        change = Change(updated=len(keys), encoded=encoded, reused=len(keys) - encoded)
        return writer.rewrite(table, vectors, identity, dict(manifest.columns), change)


def put_extra(folder: str | Path, name: str, write: Callable[[Path], None], suffix: str) -> Manifest:
    """Add a further file to a catalogue (a monitor's reference, for instance), under a name of its own."""
    target = Path(folder)
    with Transaction.opened(target, WriteOptions()) as writer:
        manifest = writer.required()
        file = store_file(target, f"g{manifest.generation + 1:08d}-{name}{suffix}", write)
        manifest = replace(
            manifest, generation=manifest.generation + 1, extras={**manifest.extras, name: file}
        )
        writer.switch(manifest, Change())
        return manifest


def _check_target(folder: Path, overwrite: bool) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file", remedy="name a folder")
    names = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".partial-")}
    if MANIFEST in names:
        read_manifest(folder)  # a manifest of something else is refused here
        if not overwrite:
            raise UsageError(
                f"{folder} holds a catalogue already",
                remedy="change it (upsert_items, delete_items, rebuild_catalogue), or pass overwrite=True",
                command="change it with leanmatch index add, update, delete or rebuild, or pass --overwrite",
            )
    elif not all(name in {STAGING, LOCK} or is_ours(name) for name in names):
        raise UsageError(f"{folder} holds other files", remedy="name a new folder")


def _inferred(items: Sequence[Item]) -> dict[str, str]:
    names = dict.fromkeys(name for item in items for name in item.metadata)
    return {name: infer_type(item.metadata.get(name) for item in items) for name in names}


def _joined(columns: Mapping[str, str], items: Sequence[Item], say: Callable[[str], None]) -> dict[str, str]:
    """The columns with those that items bring in, widened where their values ask for it."""
    out = dict(columns)
    for name in dict.fromkeys(name for item in items for name in item.metadata):
        values = [item.metadata.get(name) for item in items]
        if name not in out:
            out[name] = infer_type(values)
            continue
        wide = widened(out[name], values)
        if wide == "text" != out[name]:
            say(f"column {name!r} becomes text, so that no digit is lost; filters compare it as numbers")
        out[name] = wide
    return out


def _check_once(ids: TextColumn) -> None:
    """Refuse an identifier that stands on two rows. Hashes find it, so that a million ids are no objects."""
    hashes = np.fromiter((hash(ids[row]) for row in range(len(ids))), np.int64, len(ids))
    order = np.argsort(hashes, kind="stable")
    alike = np.flatnonzero(hashes[order[1:]] == hashes[order[:-1]])
    for at in alike.tolist():
        row, later = sorted((int(order[at]), int(order[at + 1])))
        if ids[row] == ids[later]:
            raise twice(ids[row], row + 1, later + 1)


def _as_table(items: Sequence[Item], columns: Mapping[str, str], first: int = 0) -> tuple[Items, list[bytes]]:
    texts = [str(item.text) for item in items]
    keys = [text_key(text) for text in texts]
    metadata = {
        name: column_of(name, [item.metadata.get(name) for item in items], kind, first)
        for name, kind in columns.items()
    }
    return Items.of([item.id for item in items], texts, keys, metadata), keys
