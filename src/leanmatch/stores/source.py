"""What is pushed: the items of a catalogue, or of encoded files, with their vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from leanmatch.errors import DataError
from leanmatch.index.changes import Item
from leanmatch.index.storage.manifest import REFERENCE, ModelIdentity
from leanmatch.stores.protocol import StoreInfo, reference_digest
from leanmatch.types import Vectors

BLOCK_ROWS = 4_096

Block = tuple[list[Item], Vectors]
Progress = Callable[[int, int], None]
"""Called with the number of items that are there and the number of all."""


@dataclass(frozen=True)
class Source:
    """Items with their vectors, read block by block.

    Attributes:
        key: tells one content from another; a push that was killed goes on only with the same.
        model: of the vectors.
        columns, numeric: as in :class:`leanmatch.stores.StoreInfo`.
        rows: number of items.
        blocks: reads them, in one order, always the same.
        reference: what the drift monitor compares queries with, see :meth:`leanmatch.stores.Store.reference`.
    """

    key: str
    model: ModelIdentity
    columns: dict[str, str]
    numeric: tuple[str, ...]
    rows: int
    blocks: Callable[[], Iterator[Block]]
    reference: bytes | None = None

    def info(self, generation: int, key: str) -> StoreInfo:
        """What the store records about these items; ``key`` identifies this push."""
        reference = reference_digest(self.reference)
        return StoreInfo(self.model, self.columns, self.numeric, self.rows, generation, key, reference)

    def batches(self, size: int, done: int) -> Iterator[tuple[int, list[Item], Vectors]]:
        """The items from number ``done`` on, at most ``size`` at once, with the number of the first."""
        row = 0
        for items, vectors in self.blocks():
            for start in range(0, len(items), size):
                stop = min(start + size, len(items))
                first = max(start, start + done - row)
                if first < stop:
                    yield row + first - start, items[first:stop], vectors[first:stop]
                row += stop - start


def source_of(place: str | Path) -> Source:
    """A catalogue's folder, or the output of ``leanmatch encode``, as a source.

    Raises:
        DataError: neither, or vectors that were made with the role ``query``.
    """
    from leanmatch.batch.plan import MANIFEST, is_manifest
    from leanmatch.index import is_catalogue

    manifest = Path(place) / MANIFEST
    if Path(place).is_dir() and not (manifest.is_file() and is_manifest(manifest.read_bytes())):
        if not is_catalogue(Path(place)):
            raise DataError(
                "neither a catalogue nor the output of leanmatch encode",
                path=place,
                remedy="name a folder that leanmatch index build or leanmatch encode made",
            )
        return _of_catalogue(Path(place))
    return _of_files(place)


def _of_catalogue(folder: Path) -> Source:
    from leanmatch.index import Catalogue

    catalogue = Catalogue.open(folder)
    manifest = catalogue.manifest

    def blocks() -> Iterator[Block]:
        for start in range(0, len(catalogue), BLOCK_ROWS):
            rows = range(start, min(start + BLOCK_ROWS, len(catalogue)))
            items = [Item(catalogue.ids[row], catalogue.text(row), catalogue.metadata(row)) for row in rows]
            yield items, catalogue.vectors(rows)

    numeric = tuple(
        name
        for name, kind in manifest.columns.items()
        if kind == "text" and catalogue.column(name).numeric is not None
    )
    held = [file.sha256 for segment in manifest.segments for file in segment.files]
    content = [asdict(manifest.model), dict(manifest.columns), held]
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    reference = catalogue.extra(REFERENCE)
    return Source(
        key,
        manifest.model,
        dict(manifest.columns),
        numeric,
        len(catalogue),
        blocks,
        None if reference is None else reference.read_bytes(),
    )


def _of_files(place: str | Path) -> Source:
    from leanmatch.batch import EncodedFiles

    encoded = EncodedFiles.open(place)
    plan = encoded.plan
    if plan.role != "document":
        raise DataError(
            f"the vectors were made with the role {plan.role!r}, not as items",
            path=place,
            remedy='encode the items with role="document"',
            command="encode the items with --role document",
        )
    columns, numeric = encoded.column_types()
    key = hashlib.sha256(f"{plan.key} {encoded.rows}".encode()).hexdigest()
    return Source(key, plan.model, columns, numeric, encoded.rows, encoded.items)
